"""What a ranker finds for every query."""

from __future__ import annotations

from mlr_rag.specializing.finding import find, pooled
from mlr_rag.specializing.material import Judged
from mlr_rag.training.mining.bm25 import BM25

CORPUS = {"1": "the old stone bridge", "2": "the stone kettle", "3": "a stone road"}
QUERIES = {"1": "stone bridge", "2": "stone road"}


def test_a_query_finds_the_document_with_its_id_only_where_that_is_judged_relevant() -> None:
    run = find(BM25(), Judged(QUERIES, {"1": {"1": 1}, "2": {"3": 1, "2": 0}}), CORPUS, 3)
    assert {query: set(found) for query, found in run.items()} == {"1": {"1", "2", "3"}, "2": {"1", "3"}}
    assert next(iter(run["1"])) == "1"


def test_depth_is_kept_where_the_query_itself_is_left_out() -> None:
    assert [len(found) for found in find(BM25(), Judged(QUERIES, {}), CORPUS, 2).values()] == [2, 2]


def test_a_pool_is_what_is_among_the_first_of_some_query() -> None:
    run = {"a": {"x": 2.0, "y": 1.0}, "b": {"z": 2.0, "x": 1.0}}
    assert pooled(run, 1) == ["x", "z"]
