"""A real `chroma run` server on 127.0.0.1, which tests may kill and start again."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PATIENCE = 60.0


class ChromaServer:
    """A server on a free port, over a folder that outlives it.

    Attributes:
        location: The part of a collection's URL between `chroma:` and its name.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.location = f"//127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        executable = Path(sys.executable).with_name("chroma")
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--path", str(self._folder)]
        quiet = subprocess.DEVNULL  # a full pipe would block it
        self._process = subprocess.Popen([executable, "run", *place], stdin=quiet, stdout=quiet, stderr=quiet)
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{executable} did not come up ({self._process.poll()})") from None
                time.sleep(0.05)
            else:
                return

    def __enter__(self) -> ChromaServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
