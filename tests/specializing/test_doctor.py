from __future__ import annotations

import random

import pytest

from mlr_rag.specializing.doctor import examine
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import CallableTeacher

N = 40
QUERIES = {f"q{n}": f"question {n}" for n in range(N)}
CORPUS = {f"d{n}": f"answer {n}" for n in range(N)}
QRELS = {f"q{n}": {f"d{n}": 1} for n in range(N)}


def _run(rank):
    """Each query finds ten documents, its own one at this rank."""
    run = {}
    for n in range(N):
        others = [f"d{(n + k) % N}" for k in range(1, 10)]
        others.insert(rank - 1, f"d{n}")
        run[f"q{n}"] = {id: 0.9 - place / 50 for place, id in enumerate(others)}
    return run


def _knows(pairs):
    return [float(query.split()[1] == text.split()[1]) for query, text in pairs]


def _guesses(pairs):
    return [random.Random(query + text).random() for query, text in pairs]


def _examined(score, student=3, bm25=5):
    teacher = CallableTeacher(score, score.__name__)
    return examine(teacher, QUERIES, QRELS, CORPUS, _run(student), _run(bm25), ScoreCache())


def test_a_teacher_that_knows_more_is_better():
    found = _examined(_knows)
    assert (found.finding, found.teacher) == ("better", 1.0)
    assert found.student == pytest.approx(0.5), "1 / log2(1 + 3)"
    assert found.bm25 == pytest.approx(0.387, abs=1e-3)
    assert found.difference.mean == pytest.approx(0.5)
    assert "clearly better" in found.verdict


def test_a_teacher_that_guesses_is_worse_and_the_verdict_says_what_can_be_done():
    found = _examined(_guesses, student=1)
    assert found.finding == "worse"
    assert "train_cross_encoder" in found.verdict


def test_a_teacher_that_is_worse_than_bm25_may_still_be_learned_from_and_that_is_said():
    found = _examined(_guesses, student=9, bm25=1)
    assert found.finding == "better"
    assert found.words_better
    assert "BM25 ranks better" in found.verdict


def test_bm25_is_no_rival_where_the_queries_were_made_of_the_documents():
    teacher = CallableTeacher(_guesses, "guesses")
    found = examine(teacher, QUERIES, QRELS, CORPUS, _run(9), _run(1), ScoreCache(), generated=True)
    assert found.bm25 == 1
    assert not found.words_better
    assert "BM25" not in found.verdict


def test_of_general_queries_it_is_said_that_they_are():
    found = examine(
        CallableTeacher(_knows, "knows"), QUERIES, QRELS, CORPUS, _run(3), _run(1), ScoreCache(), general=True
    )
    assert found.general
    assert "(1.000 against 0.500, on general queries)" in found.verdict


def test_no_more_queries_are_asked_than_are_allowed():
    asked = []

    def score(pairs):
        asked.extend(query for query, _ in pairs)
        return _knows(pairs)

    teacher = CallableTeacher(score, "counts")
    found = examine(teacher, QUERIES, QRELS, CORPUS, _run(3), _run(5), ScoreCache(), most=7)
    assert found.queries == len(set(asked)) == 7


def test_the_temperature_brings_the_teachers_spread_to_the_students():
    def steps(pairs):  # the cosines of _run fall by 0.02 a rank, and so does this, times a thousand
        place = [(int(text.split()[1]) - int(query.split()[1])) % N for query, text in pairs]
        return [-20.0 * each for each in place]

    found = examine(CallableTeacher(steps, "steps"), QUERIES, QRELS, CORPUS, _run(1), _run(1), ScoreCache())
    assert found.temperature == pytest.approx(0.05 / (9 * 0.02), abs=1e-3), "the scores are brought to 0..1 first"
