"""A headless Chromium, driven by chromedriver's own protocol (W3C WebDriver), for tests of pages."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


class Browser:
    """One window."""

    def __init__(self, server: str, width: int, height: int) -> None:
        options = {
            "binary": CHROMIUM,
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}},
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self._session = server
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"{server}/session/{session['sessionId']}"

    def open(self, page: Path) -> None:
        """Load a file, and wait for it."""
        self._call("POST", "/url", {"url": page.as_uri()})

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return self._call("POST", "/execute/sync", {"script": f"return {expression}", "args": []})

    def becomes(self, expression: str) -> bool:
        """Whether it is true, now or within ten seconds: what is shown comes after what was clicked."""
        end = time.monotonic() + 10
        while not (found := self.ask(expression) is True) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def show_as(self, media: str = "", scheme: str = "light") -> None:
        """As on a screen or on paper, light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        params = {"media": media, "features": features}
        self._call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": params})

    def log(self, kind: str) -> list[str]:
        """What the browser said ("browser") or did ("performance") since it was last asked."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": kind})]

    def picture(self, path: Path) -> None:
        """Write what is in view as a PNG."""
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        """End it."""
        self._call("DELETE", "")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._session}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser(width: int, height: int) -> Iterator[Browser]:
    """A window of so many CSS pixels; needs CHROMIUM and DRIVER."""
    assert DRIVER is not None
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        try:
            assert driver.stdout is not None
            port = next(found[1] for line in driver.stdout if (found := re.search(r"on port (\d+)\.", line)))
            window = Browser(f"http://127.0.0.1:{port}", width, height)
            try:
                yield window
            finally:
                window.close()
        finally:
            driver.terminate()
