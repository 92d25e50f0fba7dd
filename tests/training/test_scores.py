"""ScoreCache: what a teacher is asked for, what is kept when it or the process fails, and what is never kept."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlr_rag import progress
from mlr_rag.errors import InvalidInputError, StoreCorruptError, TeacherError
from mlr_rag.training.cache import ContentCache, content_key
from mlr_rag.training.teachers.scores import ScoreCache
from tests.training.scoring import BATCH, HashTeacher, pairs_of, true_score


def truth(pairs: list[tuple[str, str]], fingerprint: str = "hash") -> list[float]:
    return [true_score(fingerprint, *pair) for pair in pairs]


class Failing(HashTeacher):
    """Fails at its third call."""

    def score(self, pairs: Any) -> np.ndarray:
        scores = super().score(pairs)
        if len(self.calls) == 3:
            raise RuntimeError("out of memory")
        return scores


def test_scores_are_in_the_order_of_the_pairs_and_each_is_asked_for_once(tmp_path: Path) -> None:
    pairs = pairs_of(50)
    random.Random(0).shuffle(pairs)
    teacher = HashTeacher()
    with ScoreCache(tmp_path / "scores.db") as cache:
        scores = cache.score(teacher, [*pairs, *pairs[:20]], batch=8)
        assert scores.dtype == np.float64
        assert scores.tolist() == truth([*pairs, *pairs[:20]])
        assert sorted(pair for call in teacher.calls for pair in call) == sorted(pairs)
        assert (cache.asked, cache.hits, cache.count()) == (50, 0, 50)


def test_a_second_run_asks_for_nothing(tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "scores.db") as cache:
        first = cache.score(HashTeacher(), pairs_of(30))
    teacher = HashTeacher()
    with ScoreCache(tmp_path / "scores.db") as cache:
        assert cache.score(teacher, pairs_of(30)).tolist() == first.tolist()
        assert (teacher.calls, cache.asked, cache.hits) == ([], 0, 30)


def test_long_texts_are_asked_for_first() -> None:
    teacher = HashTeacher()
    ScoreCache().score(teacher, pairs_of(40), batch=10)
    lengths = [len(query) + len(passage) for call in teacher.calls for query, passage in call]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(call) for call in teacher.calls] == [10] * 4


def test_a_teacher_may_say_how_many_it_is_asked_for_at_once() -> None:
    teacher = HashTeacher()
    teacher.batch = 7
    ScoreCache().score(teacher, pairs_of(15))
    assert [len(call) for call in teacher.calls] == [7, 7, 1]


def test_no_pairs_have_no_scores() -> None:
    assert ScoreCache().score(HashTeacher(), []).shape == (0,)


@pytest.mark.parametrize("changed", ["fingerprint", "truncation"])
def test_scores_of_another_teacher_are_not_taken_for_its_own(changed: str) -> None:
    cache, other = ScoreCache(), HashTeacher()
    cache.score(HashTeacher(), pairs_of(5))
    setattr(other, changed, "other")
    assert not cache.known(other, pairs_of(5)).any()
    cache.score(other, pairs_of(5))
    assert cache.asked == 10


def test_known_tells_which_pairs_need_no_asking() -> None:
    cache = ScoreCache()
    cache.score(HashTeacher(), pairs_of(6)[::2])
    assert cache.known(HashTeacher(), pairs_of(6)).tolist() == [True, False] * 3
    assert cache.asked == 3


def test_a_teacher_that_fails_midway_loses_only_the_batch_that_it_failed_at() -> None:
    cache = ScoreCache()
    with pytest.raises(TeacherError, match=r"RuntimeError out of memory\. 20 of 50 are kept") as caught:
        cache.score(Failing(), pairs_of(50), batch=10)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert cache.known(HashTeacher(), pairs_of(50)).sum() == 20
    assert cache.score(HashTeacher(), pairs_of(50)).tolist() == truth(pairs_of(50))
    assert cache.asked == 50


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_named_and_its_batch_not_kept(bad: float) -> None:
    class Bad(HashTeacher):
        def score(self, pairs: Any) -> np.ndarray:
            scores = super().score(pairs)
            scores[[pair[0] == "query 1" for pair in pairs]] = bad
            return scores

    cache = ScoreCache()
    with pytest.raises(TeacherError, match="'query 1', 'passage 1"):
        cache.score(Bad(), pairs_of(20), batch=20)
    assert cache.count() == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1.0, 2.0], "another number of scores"),
        ([[1.0], [2.0], [3.0]], "another number of scores"),
        (["a", "b", "c"], "no numbers"),
        (None, "another number|no number"),
    ],
)
def test_scores_of_another_shape_are_refused(given: Any, said: str) -> None:
    teacher = HashTeacher()
    teacher.score = lambda pairs: given
    cache = ScoreCache()
    with pytest.raises(TeacherError, match=said):
        cache.score(teacher, pairs_of(3))
    assert cache.count() == 0


def test_a_teacher_without_a_fingerprint_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInputError, match="Pass fingerprint="):
        ScoreCache().score(HashTeacher(fingerprint=""), pairs_of(2))


@pytest.mark.parametrize("bad", ["ab", ("a",), ("a", None), ("a", "b", "c"), 3])
def test_a_pair_that_is_not_two_texts_is_named(bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="pair 1 is not two texts"):
        ScoreCache().score(HashTeacher(), [("a", "b"), bad])


@pytest.mark.parametrize("bad", [0, -1])
def test_a_batch_of_none_is_refused(bad: int) -> None:
    with pytest.raises(InvalidInputError, match="batch"):
        ScoreCache().score(HashTeacher(), pairs_of(2), batch=bad)


def test_what_is_no_score_in_the_file_is_never_given_as_one(tmp_path: Path) -> None:
    key = content_key("score", "hash", "none", "query", "passage")
    with ContentCache(tmp_path / "scores.db") as content:
        content.put_many({key: b"123"})
    with ScoreCache(tmp_path / "scores.db") as cache, pytest.raises(StoreCorruptError, match="no score"):
        cache.score(HashTeacher(), [("query", "passage")])


def test_what_another_process_scored_meanwhile_is_not_asked_for_again(tmp_path: Path) -> None:
    class Slow(HashTeacher):
        def score(self, pairs: Any) -> np.ndarray:
            if not self.calls:  # while it scores its first batch, somebody else scores all
                with ScoreCache(tmp_path / "scores.db") as other:
                    other.score(HashTeacher(), pairs_of(30))
            return super().score(pairs) + 1  # as another machine's rounding might

    slow = Slow()
    with ScoreCache(tmp_path / "scores.db") as cache:
        assert cache.score(slow, pairs_of(30), batch=10).tolist() == truth(pairs_of(30))
    assert [len(call) for call in slow.calls] == [10]


def test_progress_is_told_for_the_pairs_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Bar:
        def update(self, n: int) -> None:
            told.append(n)

        def close(self) -> None:
            told.append("closed")

    monkeypatch.setattr(progress, "start", lambda *given: (told.append(given), Bar())[1])
    cache = ScoreCache()
    cache.score(HashTeacher(), pairs_of(4))
    told.clear()
    with pytest.raises(TeacherError):
        cache.score(Failing(), pairs_of(34), batch=10)
    assert told == [("Scoring", 30, None), 10, 10, "closed"]


def test_twenty_kills_leave_no_wrong_or_torn_score_and_lose_at_most_one_batch(tmp_path: Path) -> None:
    moments, pairs, file = random.Random(5), pairs_of(12_000), tmp_path / "scores.db"
    command = [sys.executable, "-m", "tests.training.scoring", str(file), str(len(pairs))]
    for trial in range(20):
        with ScoreCache(file) as cache:
            before = cache.count()
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(1 + (trial % 3 == 0))]
        for process in running:
            process.stdout.readline()  # it has begun to score
        time.sleep(moments.uniform(0, 0.25))
        for process in running:
            process.kill()
        told = [process.communicate()[0].split() for process in running]
        assert all("done" not in lines for lines in told), "too late: give it more pairs"
        acknowledged = max(int(line) for lines in told for line in (lines or ["0"]))
        with ScoreCache(file) as cache:
            known = cache.known(HashTeacher(), pairs)
            assert cache.count() == known.sum(), "a score of no pair"
            if len(running) == 1:
                assert known.sum() in (before + acknowledged, before + acknowledged + BATCH)
            asked = HashTeacher()
            stored = [pair for pair, is_known in zip(pairs, known, strict=True) if is_known]
            assert cache.score(asked, stored).tolist() == truth(stored)
            assert asked.calls == []
    assert known.any()
    with ScoreCache(file) as cache:
        assert cache.score(HashTeacher(), pairs).tolist() == truth(pairs)
        assert cache.asked == len(pairs) - known.sum()
    again = HashTeacher()
    with ScoreCache(file) as cache:
        assert cache.score(again, pairs).tolist() == truth(pairs)
    assert again.calls == []
