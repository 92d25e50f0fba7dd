from __future__ import annotations

import logging
import math
import subprocess
import sys

import pytest

from mlr_rag import InvalidInputError
from mlr_rag.errors import MissingExtraError
from mlr_rag.training.mining.bm25 import BM25

TEXTS = {"d1": "old stone bridge", "d2": "Stone bridge, stone road", "d3": "the river", "d4": "bridge of the river"}


def search(query: str, texts: dict[str, str] = TEXTS, k: int = 10, **options: object) -> list[tuple[str, float]]:
    return next(iter(BM25(**options).index(texts).search([query], k)))


def lucene(tf: int, df: int, length: int, mean: float, n: int, k1: float = 1.5, b: float = 0.75) -> float:
    idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
    return idf * tf / (tf + k1 * (1 - b + b * length / mean))


@pytest.mark.parametrize("options", [{}, {"k1": 0.9, "b": 0.4}, {"k1": 0}])
def test_scores_are_those_of_the_formula(options: dict[str, float]) -> None:
    # words that count: d1 3, d2 4, d3 1, d4 2
    expected = {
        "d2": lucene(2, 2, 4, 2.5, 4, **options) + lucene(1, 1, 4, 2.5, 4, **options),
        "d1": lucene(1, 2, 3, 2.5, 4, **options),
    }
    found = dict(search("stone road", **options))
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


def test_a_document_without_a_word_of_the_query_is_no_candidate() -> None:
    assert [id for id, _ in search("river")] == ["d3", "d4"]
    assert search("kettle") == []
    assert search("of the") == []


def test_ties_are_broken_by_id_even_where_the_list_is_cut() -> None:
    texts = {f"d{number}": "one stone" for number in (7, 3, 9, 1, 5)} | {"other": "river"}
    for k in range(1, 6):
        assert [id for id, _ in search("stone", texts, k)] == ["d1", "d3", "d5", "d7", "d9"][:k]


def test_results_do_not_depend_on_the_order_of_hashes() -> None:
    code = (
        "from mlr_rag.training.mining.bm25 import BM25\n"
        f"print(list(BM25().index({TEXTS!r}).search(['stone bridge river', 'old road bridge'], 4)))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(seen) == 1


def test_a_stemmer_joins_the_forms_of_a_word() -> None:
    def no_plural(words: list[str]) -> list[str]:
        return [word.removesuffix("s") for word in words]

    assert search("rivers") == []
    assert {id for id, _ in search("rivers", stemmer=no_plural)} == {"d3", "d4"}


def test_nothing_is_printed_or_logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    search("stone")
    search("")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_documents_without_words_are_never_found_and_alone_refused() -> None:
    assert [id for id, _ in search("river", {"d0": "- --", "d1": "the river"})] == ["d1"]
    with pytest.raises(InvalidInputError, match="no document has a word"):
        BM25().index({"d1": "- --", "d2": "of the"})


@pytest.mark.parametrize("options", [{"k1": -1}, {"b": 1.5}, {"k1": math.nan}, {"b": math.nan}])
def test_parameters_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="no parameters of BM25"):
        BM25(**options)


def test_without_bm25s_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"mlr-rag\[train\]"):
        BM25()
