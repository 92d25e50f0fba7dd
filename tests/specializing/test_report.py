from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mlr_rag.errors import InvalidInputError, MissingExtraError
from mlr_rag.specializing.report.data import CUT, Comparison, QueryScore, Report, excerpt, read_report
from mlr_rag.specializing.report.formats import change, count, duration, metric, p_value, pointer, short
from mlr_rag.specializing.report.markdown import plain, to_markdown
from mlr_rag.specializing.report.writing import write_report
from tests.specializing import sample_report
from tests.specializing.pages import of, shown_numbers

SAMPLES = [sample_report.accepted, sample_report.refused, sample_report.minimal]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_written_report_reads_back_equal(sample: Any, tmp_path: Path) -> None:
    report = sample()
    page = write_report(report, tmp_path / "new" / "folder")
    assert page.name == "report.html"
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert (page.parent / "report.md").read_text("utf-8").startswith(f"# {report.verdict}")
    assert read_report(page.parent / "report.json") == report


def test_what_follows_from_the_values_is_in_the_json_too() -> None:
    values = json.loads(sample_report.accepted().model_dump_json())
    test = values["test"]
    assert values["accepted"] is True
    assert test["queries"] == 120 == test["wins"] + test["ties"] + test["losses"]
    first = test["per_query"][0]
    assert first["difference"] == first["specialized"] - first["base"]


def test_queries_that_are_not_independent_are_told_in_groups() -> None:
    assert "60 queries in 20 independent groups, answered here by 2 candidates, 95% intervals" in to_markdown(
        sample_report.refused()
    )
    assert "by the 20 groups that are independent" in of(sample_report.refused()).all("body")[0].text
    for told in (to_markdown(sample_report.accepted()), of(sample_report.accepted()).all("body")[0].text):
        assert "independent" not in told


def test_a_difference_of_rounding_is_a_tie() -> None:
    scores = [("a", 0.3, 0.1 + 0.2), ("b", 0.5, 0.6), ("c", 0.5, 0.4), ("d", 0.2, 0.2)]
    test = Comparison(
        metrics={}, per_query=tuple(QueryScore(id=i, text=i, base=b, specialized=s) for i, b, s in scores)
    )
    assert (test.wins, test.ties, test.losses) == (1, 2, 1)


def test_only_the_base_means_refused() -> None:
    assert not sample_report.refused().accepted
    assert all(
        sample_report.refused().model_copy(update={"chosen": chosen}).accepted
        for chosen in ("tuned", "interpolated", "query_adapter")
    )


def test_long_texts_are_cut_at_a_word_wherever_they_are_given() -> None:
    score = QueryScore(id="q", text="word \n " * 200, base=0.1, specialized=0.2)
    assert len(score.text) <= CUT
    assert score.text.endswith("word…")
    assert excerpt("two\tlines\nhere") == "two lines here"
    assert len(excerpt("x" * 1000)) == CUT


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        QueryScore(id="q", text="t", base=float("nan"), specialized=0.2)


@pytest.mark.parametrize(
    ("content", "found"),
    [(None, "No such file"), ("{", "the file"), ("{}", "verdict"), ('{"verdict": 3}', "verdict")],
)
def test_a_file_that_is_no_report_is_refused_with_its_place(content: str | None, found: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInputError, match=found):
        read_report(path)


def test_without_the_extra_the_numbers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = sample_report.accepted()
    for missing in ("jinja2", "matplotlib"):
        with monkeypatch.context() as without:
            without.setitem(__import__("sys").modules, missing, None)
            with pytest.raises(MissingExtraError, match=r"mlr-rag\[report\]"):
                write_report(report, tmp_path)
        assert read_report(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (metric(0.66249), "0.662"),
        (metric(1.0), "1.000"),
        (change(0.0894), "+0.089"),
        (change(-0.0125), "−0.013"),
        (change(-0.0004), "0.000"),
        (change(0.0), "0.000"),
        (p_value(0.0009999), "p < 0.001"),
        (p_value(0.001), "p = 0.001"),
        (p_value(1.0), "p = 1.000"),
        (count(41260), "41,260"),
        (short(0.3), "0.3"),
        (duration(0.44), "0.4 s"),
        (duration(9.7), "10 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(313), "5 min 13 s"),
        (duration(3599.7), "1 h 00 min"),
        (duration(3900), "1 h 05 min"),
        (pointer(["a/b", 0, "c~d"]), "/a~1b/0/c~0d"),
    ],
)
def test_numbers_are_written_in_one_way(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_markdown_says_no_number_that_the_page_does_not(sample: Any) -> None:
    report: Report = sample()
    on_page = {word for _, text in shown_numbers(of(report)) for word in text.split()}
    tables = [line for line in to_markdown(report).splitlines() if line.startswith("|") and "---" not in line]
    numbers = set(re.findall(r"[+−]?\b\d+\.\d+\b", " ".join(tables)))
    assert numbers <= on_page
    assert bool(numbers) == (report.test is not None)


def test_the_markdown_shows_anybodys_text_as_it_is() -> None:
    report = sample_report.minimal().model_copy(update={"verdict": "<script>x</script> | `a` *b*\n# c [d](e)"})
    first = to_markdown(report).splitlines()[0]
    assert first == r"# \<script\>x\</script\> \| \`a\` \*b\* \# c \[d\](e)"
    assert plain("a  b\n\nc") == "a b c"


def test_a_command_with_backticks_stays_in_its_fence() -> None:
    run = sample_report.minimal().run.model_copy(update={"command": "a\n```\nb"})
    assert "````\na\n```\nb\n````" in to_markdown(sample_report.minimal().model_copy(update={"run": run}))
