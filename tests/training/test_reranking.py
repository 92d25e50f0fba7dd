"""rerank: the best candidates in the teacher's order."""

from __future__ import annotations

import pytest

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.teachers.reranking import rerank
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import CallableTeacher

CORPUS = {"a": "1", "b": "22", "c": "333", "d": "4444"}
QUERIES = {"q": "query", "r": "other"}
LONGEST = CallableTeacher(lambda pairs: [len(passage) for _, passage in pairs], "longest")


def test_the_best_candidates_are_put_in_the_teacher_s_order_whatever_order_they_came_in() -> None:
    run = {"q": {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.2}, "r": {"a": 1.0}}
    found = rerank(run, QUERIES, CORPUS, LONGEST, depth=3)
    assert found == {"q": {"d": 4.0, "c": 3.0, "b": 2.0}, "r": {"a": 1.0}}
    assert list(found["q"]) == ["d", "c", "b"]


def test_equal_candidates_are_chosen_by_id() -> None:
    run = {"q": dict.fromkeys(("d", "c", "b", "a"), 1.0)}
    assert list(rerank(run, QUERIES, CORPUS, LONGEST, depth=2)["q"]) == ["b", "a"]


def test_scores_that_are_known_are_not_asked_for() -> None:
    cache = ScoreCache()
    for _ in range(2):
        rerank({"q": {"a": 1.0, "b": 2.0}}, QUERIES, CORPUS, LONGEST, cache)
    assert (cache.asked, cache.hits) == (2, 2)


def test_a_depth_of_none_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="depth=0"):
        rerank({"q": {"a": 1.0}}, QUERIES, CORPUS, LONGEST, depth=0)
