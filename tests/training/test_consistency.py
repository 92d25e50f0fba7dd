from __future__ import annotations

import pytest

from mlr_rag import InvalidInputError
from mlr_rag.training.mining.consistency import Kept, confident, consistent, teacher_agrees

SOURCES = {"q1": "a", "q2": "b", "q3": "c"}


def test_a_query_is_kept_if_it_finds_its_own_document_in_time() -> None:
    run = {"q1": {"x": 0.9, "a": 0.8, "y": 0.7}, "q2": {"b": 0.1}, "q3": {"x": 0.5}}
    assert consistent(SOURCES, run, rank=2) == Kept(("q1", "q2"), 1)
    assert consistent(SOURCES, run, rank=1) == Kept(("q2",), 2)


def test_the_order_in_which_a_run_is_written_does_not_count() -> None:
    assert consistent({"q1": "a"}, {"q1": {"a": 0.1, "x": 0.9}}, rank=1).ids == ()


def test_a_query_that_found_nothing_is_dropped() -> None:
    assert consistent(SOURCES, {}) == Kept((), 3)
    assert teacher_agrees(SOURCES, {}, scored=0) == Kept((), 3)


def test_the_teacher_must_score_the_own_document_highest_among_enough() -> None:
    scores = {"q1": {"a": 3.0, "x": 2.0}, "q2": {"b": 1.0, "x": 2.0}, "q3": {"c": 5.0}}
    assert teacher_agrees(SOURCES, scores, scored=1) == Kept(("q1", "q3"), 1)
    assert teacher_agrees(SOURCES, scores, scored=2) == Kept(("q1",), 2)


def test_a_draw_for_the_first_place_is_a_first_place() -> None:
    assert teacher_agrees({"q1": "a"}, {"q1": {"x": 3.0, "a": 3.0}}, scored=2) == Kept(("q1",), 0)


def test_queries_with_a_low_best_score_are_dropped() -> None:
    scores = {"q1": {"a": 4.0, "x": 3.0}, "q2": {"b": 0.0}, "q3": {}, "q4": {"c": 1.0, "d": 1.0}}
    assert confident(scores, 0.25) == Kept(("q1", "q4"), 2)  # the quartile of 0, 1, 1, 3, 4 is 1
    assert confident(scores, 0.0) == Kept(("q1", "q2", "q4"), 1)


@pytest.mark.parametrize(("scores", "quantile"), [({"q": {}}, 0.25), ({"q": {"a": 1.0}}, 25)])
def test_no_scores_or_no_quantile_is_an_error(scores: dict[str, dict[str, float]], quantile: float) -> None:
    with pytest.raises(InvalidInputError, match="no quantile of scores"):
        confident(scores, quantile)
