"""How fast a teacher is, by a clock that only it moves on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from mlr_rag.specializing.speed import TeacherSpeed, measure_teacher
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import CallableTeacher

CORPUS = {f"d{n}": f"text {n}" for n in range(200)}
QUERIES = [f"query {n}" for n in range(50)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("mlr_rag.specializing.speed.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def _embedder(now: list[float]) -> Callable[[list[tuple[str, str]]], list[float]]:
    read = set[str]()

    def score(pairs: list[tuple[str, str]]) -> list[float]:
        for _, text in pairs:
            now[0] += 0.01 if text in read else 0.5
            read.add(text)
        return [0.0] * len(pairs)

    return score


def test_an_embedder_reads_a_document_once(clock: list[float]) -> None:
    with ScoreCache() as cache:
        found = measure_teacher(CallableTeacher(_embedder(clock), "embedder"), CORPUS, QUERIES, cache)
    assert (found.new, found.read) == (pytest.approx(2), pytest.approx(100))
    assert found.seconds(pairs=1300, documents=200) == pytest.approx(200 * 0.5 + 1100 * 0.01)


def test_of_what_is_known_nothing_is_asked_again(clock: list[float]) -> None:
    asked: list[int] = []

    def score(pairs: list[tuple[str, str]]) -> list[float]:
        asked.append(len(pairs))
        return [0.0] * len(pairs)

    with ScoreCache() as cache:
        for _ in range(2):
            found = measure_teacher(CallableTeacher(score, "known"), CORPUS, QUERIES, cache)
    assert sum(asked) == 64
    assert found.seconds(pairs=10**6, documents=10**5) < 0.01


def test_one_query_and_two_documents_are_enough(clock: list[float]) -> None:
    with ScoreCache() as cache:
        found = measure_teacher(CallableTeacher(_embedder(clock), "few"), {"a": "a", "b": "b"}, ["query"], cache)
    assert isinstance(found, TeacherSpeed)
    assert found.new == pytest.approx(2)
