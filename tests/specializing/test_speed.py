"""How fast a teacher is, by a clock that only it moves on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from mlr_rag.specializing.speed import measure_teacher
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import CallableTeacher

CORPUS = {f"d{n}": f"text {n}" for n in range(200)}
QUERIES = [f"query {n}" for n in range(50)]

Score = Callable[[Sequence[tuple[str, str]]], list[float]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("mlr_rag.specializing.speed.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def _working(now: list[float], document: float, pair: float) -> Score:
    read = set[str]()

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        now[0] += pair * len(pairs) + document * len({text for _, text in pairs} - read)
        read.update(text for _, text in pairs)
        return [0.0] * len(pairs)

    return score


@pytest.mark.parametrize(("document", "pair"), [(0.5, 0.0), (0.0, 0.1), (0.5, 0.01)])
def test_what_a_document_and_what_a_pair_costs(clock: list[float], document: float, pair: float) -> None:
    teacher = CallableTeacher(_working(clock, document, pair), "working")
    with ScoreCache() as cache:
        found = measure_teacher(teacher, CORPUS, QUERIES, cache)
    assert (found.document, found.pair) == (pytest.approx(document), pytest.approx(pair))
    assert found.seconds(pairs=1300, documents=200) == pytest.approx(200 * document + 1300 * pair)


def test_what_is_known_tells_nothing_so_others_are_asked(clock: list[float]) -> None:
    asked: list[int] = []
    work = _working(clock, 0.5, 0.1)

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        asked.append(len(pairs))
        return work(pairs)

    with ScoreCache() as cache:
        first, second = (measure_teacher(CallableTeacher(score, "known"), CORPUS, QUERIES, cache) for _ in range(2))
    assert asked == [48, 64, 48, 64]
    assert first.pair == pytest.approx(0.1)
    assert second.pair == pytest.approx(0.1, abs=0.05), "some documents were read before"


def test_one_query_and_two_documents_are_enough(clock: list[float]) -> None:
    with ScoreCache() as cache:
        teacher = CallableTeacher(_working(clock, 0.5, 0.1), "few")
        found = measure_teacher(teacher, {"a": "a", "b": "b"}, ["query"], cache)
    assert found.seconds(pairs=10, documents=10) == pytest.approx(6)


def test_where_all_is_known_it_takes_no_time(clock: list[float]) -> None:
    few = {"a": "a", "b": "b"}
    with ScoreCache() as cache:
        for _ in range(2):
            found = measure_teacher(CallableTeacher(_working(clock, 0.5, 0.1), "few"), few, ["query"], cache)
    assert found.seconds(pairs=10, documents=10) == 0
