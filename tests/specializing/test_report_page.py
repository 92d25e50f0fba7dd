from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib
import pytest

from mlr_rag.specializing.report.data import Report
from mlr_rag.specializing.report.html import to_html
from mlr_rag.specializing.report.plots import plots
from tests.specializing import sample_report
from tests.specializing.pages import of, shown_numbers, source_of

SAMPLES = [sample_report.accepted, sample_report.refused, sample_report.minimal]
NOT_IN_WORDS = ("/version", "/test/per_query", "/curves")  # drawn, or of no use to a reader
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}&amp;"


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_number_on_the_page_is_the_jsons(sample: Any) -> None:
    report: Report = sample()
    values = json.loads(report.model_dump_json())
    shown = shown_numbers(of(report))
    assert shown
    for place, text in shown:
        value, step = _read(text)
        assert abs(value - _at(values, place)) <= step, f"{place}: {text}"


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_number_of_the_json_is_on_the_page(sample: Any) -> None:
    report: Report = sample()
    on_page = {place for place, _ in shown_numbers(of(report))}
    in_json = {
        place for place, _ in _numbers(json.loads(report.model_dump_json())) if not place.startswith(NOT_IN_WORDS)
    }
    missing = in_json - on_page
    if not (report.accepted and report.chosen == "interpolated"):
        missing -= {"/alpha"}
    if report.test is None or report.test.looks == 1:
        missing -= {"/test/looks"}
    if not report.adapter or report.chosen == "query_adapter":
        missing -= {"/adapter"}
    assert not missing


def test_the_page_needs_nothing_from_anywhere() -> None:
    source = source_of(sample_report.accepted())
    page = of(sample_report.accepted())
    assert not page.all("script", "img", "iframe", "object", "embed")
    links = [value for each in page.elements for name, value in each.attributes.items() if name in ("href", "src")]
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    assert not re.findall(r"https?://", source)
    assert "@import" not in source
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", source))


def test_ids_are_unique_and_every_reference_finds_its_own() -> None:
    source = source_of(sample_report.accepted())
    ids = re.findall(r'\bid="([^"]+)"', source)
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', source))
    assert max(Counter(ids).values()) == 1
    assert {first or second for first, second in used} == set(ids)


def test_anybodys_text_is_shown_as_text() -> None:
    report = Report.model_validate(_poisoned(sample_report.accepted().model_dump(mode="json")))
    page = of(report)
    assert not page.all("script", "img")
    assert not [each for each in page.elements if "onerror" in each.attributes]
    assert page.all("h1")[0].text == EVIL
    assert EVIL in page.all("title")[0].text
    shown = page.all("body")[0].text
    assert shown.count(EVIL) > 150  # queries, passages, names, reasons, kinds, versions


def test_a_refused_candidate_is_called_so() -> None:
    page = of(sample_report.refused())
    text = page.all("body")[0].text
    assert "Handed back: the base model" in text
    assert "What the candidate did that was refused" in text
    assert "specialized" not in {each.text for each in page.all("dt")}
    assert "Base kept" in page.all("title")[0].text


def test_parts_that_a_run_did_not_have_leave_no_trace() -> None:
    page = of(sample_report.minimal())
    assert [each.text for each in page.all("h2")] == ["On your test queries", "The data", "The run"]
    assert "test queries were asked with the base model alone" in page.all("body")[0].text
    assert not page.all("figure", "table", "details")


def test_a_reader_that_cannot_see_is_told_as_much() -> None:
    page = of(sample_report.accepted())
    assert page.all("html")[0].attributes["lang"] == "en"
    assert len(page.all("h1")) == len(page.all("main")) == 1
    levels = [int(each.tag[1]) for each in page.all("h1", "h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) == 5
    assert all(each.attributes.get("scope") for each in page.all("th"))
    drawings = page.all("svg")
    assert all(each.attributes.get("aria-label") or each.attributes.get("aria-hidden") for each in drawings)
    assert len([each for each in drawings if each.attributes.get("role") == "img"]) == 6


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(theme: str) -> None:
    roots = re.findall(r":root \{(.*?)\}", source_of(sample_report.minimal()), re.DOTALL)
    colors = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", roots[0]))
    colors |= dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", roots[1])) if theme == "dark" else {}
    texts = ["ink", "soft", "yes", "improved", "hurt"]
    pairs = [(text, back) for text in texts for back in ("page", "card")] + [("yes", "yes-back"), ("no", "no-back")]
    poor = {pair: _contrast(colors[pair[0]], colors[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}  # WCAG 2, AA


def test_plots_are_made_of_the_values_that_there_are() -> None:
    report = sample_report.accepted()
    names = ["differences", "per_query", "interpolation", "dev_curves", "loss_curves", "layers"]
    assert list(plots(report)) == names
    without_loss = [
        curve.model_copy(update={"points": tuple(each.model_copy(update={"loss": None}) for each in curve.points)})
        for curve in report.curves
    ]
    some = report.model_copy(update={"curves": tuple(without_loss), "layers": (), "interpolation": (), "test": None})
    assert list(plots(some)) == ["dev_curves"]
    assert plots(sample_report.minimal()) == {}


def test_plots_take_their_colors_from_the_page_and_keep_letters() -> None:
    for name, svg in plots(sample_report.accepted()).items():
        assert not re.findall(r"#[0-9a-f]{6}\b", svg), name
        assert "<text" in svg, name
        assert "var(--ink)" in svg, name


def test_curves_of_one_name_and_a_name_of_markup_are_all_drawn() -> None:
    report = sample_report.accepted()
    curves = tuple(curve.model_copy(update={"name": "<b>$x$ & y"}) for curve in report.curves)
    svg = plots(report.model_copy(update={"curves": curves}))["dev_curves"]
    assert svg.count("&lt;b&gt;$x$ &amp; y") == 2


def test_one_query_and_thousands_are_drawn_alike() -> None:
    for queries in (1, 3000):
        test = sample_report.comparison(queries, 0.1)
        assert len(plots(sample_report.minimal().model_copy(update={"test": test}))["per_query"]) < 300_000


def test_the_same_report_gives_the_same_page_whatever_matplotlib_is_set_to() -> None:
    report = sample_report.accepted()
    settings = {"font.size": 30.0, "lines.linewidth": 9.0, "svg.fonttype": "path"}
    with matplotlib.rc_context(settings):
        again = to_html(report)
        assert {name: matplotlib.rcParams[name] for name in settings} == settings
    assert again.splitlines() == source_of(report).splitlines()


def _read(text: str) -> tuple[float, float]:
    """A number as a reader takes it, and how far the true one may be: half its last digit, or all below "<"."""
    if found := re.fullmatch(r"(?:(\d[\d,]*) h )?(?:(\d+) min)?(?: ?(\d+) s)?", text):
        hours, minutes, seconds = (float((part or "0").replace(",", "")) for part in found.groups())
        return hours * 3600 + minutes * 60 + seconds, 30.001 if found[1] else 0.501
    number = text.removeprefix("p = ").removeprefix("p < ").removesuffix(" s").replace(",", "").replace("−", "-")
    scale = 0.01 if number.endswith("%") else 1.0
    number = number.removesuffix("%")
    digits = len(number.partition(".")[2])
    step = scale * 10.0**-digits * (1.0 if text.startswith("p <") else 0.5)
    return float(number) * scale, step + 1e-9


def _at(values: Any, place: str) -> float:
    for part in place.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        values = values[int(name)] if isinstance(values, list) else values[name]
    assert isinstance(values, int | float)
    return values


def _numbers(values: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else enumerate(values)
        for name, value in items:
            yield from _numbers(value, f"{place}/{str(name).replace('~', '~0').replace('/', '~1')}")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield place, values


def _poisoned(values: Any, name: str = "") -> Any:
    """Every text replaced, keys that anybody chooses too."""
    if isinstance(values, dict):
        ours = name not in ("left_out", "queries", "versions", "relevant", "shared")
        return {key if ours else f"{key}{EVIL}": _poisoned(value, key) for key, value in values.items()}
    if isinstance(values, list):
        return [_poisoned(value, name) for value in values]
    return EVIL if isinstance(values, str) and name not in ("chosen", "by", "created") else values


def _contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
