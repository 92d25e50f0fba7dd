from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlr_rag.specializing.report.data import Report
from mlr_rag.specializing.report.writing import write_report
from tests.specializing import sample_report
from tests.specializing.browser import CHROMIUM, DRIVER, Browser, browser

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium and chromedriver here (apt-get install chromium-driver)"
)
WIDTHS = {"phone": (360, 740), "desktop": (1280, 900)}
LONG = "W" * 290  # nowhere to break


@pytest.fixture(scope="module", params=WIDTHS)
def window(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with browser(*WIDTHS[request.param]) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    reports = {name: getattr(sample_report, name)() for name in ("accepted", "refused", "minimal")}
    reports["wide"] = _wide(reports["accepted"])
    return {name: write_report(report, tmp_path_factory.mktemp(name)) for name, report in reports.items()}


@pytest.mark.parametrize("name", ["accepted", "refused", "minimal", "wide"])
def test_a_page_fits_its_window_asks_for_nothing_and_complains_of_nothing(
    name: str, window: Browser, pages: dict[str, Path]
) -> None:
    window.show_as()
    window.log("performance")
    window.open(pages[name])
    for _ in ("folded", "unfolded"):
        assert window.ask("document.documentElement.scrollWidth") <= window.ask("innerWidth")
        assert window.ask(_OUTSIDE) == []
        window.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert window.log("browser") == []
    events = [json.loads(line)["message"] for line in window.log("performance")]
    asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]


def test_a_finger_can_open_an_example(window: Browser, pages: dict[str, Path]) -> None:
    window.show_as()
    window.open(pages["accepted"])
    seen = "document.querySelector('details .hits').checkVisibility({contentVisibilityAuto: true})"
    assert window.ask("document.querySelector('details').open") is False
    assert window.ask("document.querySelector('summary').offsetHeight") >= 32
    window.ask("document.querySelector('summary').click()")
    assert window.ask("document.querySelector('details').open") is True
    assert window.becomes(seen)


def test_in_the_dark_the_page_and_its_plots_are_dark(window: Browser, pages: dict[str, Path]) -> None:
    window.open(pages["accepted"])
    back, ink = "getComputedStyle(document.body).backgroundColor", "getComputedStyle(document.querySelector('{}')).{}"
    looks = {}
    for scheme in ("light", "dark"):
        window.show_as(scheme=scheme)
        looks[scheme] = [
            _brightness(window.ask(back)),
            _brightness(window.ask(ink.format("body", "color"))),
            _brightness(window.ask(ink.format(".plot text", "fill"))),
        ]
    assert looks["light"][0] > 200 > 128 > max(looks["light"][1:])
    assert looks["dark"][0] < 60 < 128 < min(looks["dark"][1:])


def test_on_paper_every_example_is_open_and_the_page_light(window: Browser, pages: dict[str, Path]) -> None:
    window.show_as(media="print", scheme="dark")
    window.open(pages["accepted"])
    hidden = "[...document.querySelectorAll('details .hits')].filter(each => each.offsetHeight < 20).length"
    assert window.ask("document.querySelectorAll('details .hits').length") > 20
    assert window.ask(hidden) == 0
    assert _brightness(window.ask("getComputedStyle(document.body).backgroundColor")) == 255
    assert _brightness(window.ask("getComputedStyle(document.body).color")) < 60
    window.show_as()


# Text that sticks out of the window, but for what scrolls in a box of its own.
_OUTSIDE = """[...document.querySelectorAll('h1,h2,h3,h4,p,dd,dt,li,figcaption,summary,svg,code,td,th')]
    .filter(each => !each.closest('.box') && each.checkVisibility())
    .filter(each => each.getBoundingClientRect().right > innerWidth + 0.5)
    .map(each => each.outerHTML.slice(0, 120))"""


def _brightness(color: str) -> float:
    """Of "rgb(r, g, b)", 0 to 255."""
    parts = [float(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(parts) / len(parts)


def _wide(report: Report) -> Report:
    """The same with words that nothing breaks, everywhere a reader's own words go."""
    assert report.test is not None
    example = report.test.improved[0].model_copy(update={"text": LONG, "id": LONG, "relevant": (LONG,)})
    hits = tuple(hit.model_copy(update={"text": LONG}) for hit in example.before)
    example = example.model_copy(update={"before": hits, "after": hits})
    return report.model_copy(
        update={
            "verdict": LONG,
            "model": LONG,
            "reasons": (LONG,),
            "advice": (LONG,),
            "test": report.test.model_copy(update={"improved": (example,), "hurt": (example,)}),
            "trials": tuple(trial.model_copy(update={"name": LONG, "what": LONG}) for trial in report.trials),
            "teacher": None if report.teacher is None else report.teacher.model_copy(update={"name": LONG}),
            "data": report.data.model_copy(update={"corpus": LONG, "generator": LONG, "queries": {LONG: 3}}),
            "run": report.run.model_copy(update={"command": LONG, "machine": LONG, "versions": {LONG: LONG}}),
        }
    )
