"""The scores of teachers, each asked for once."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlr_rag import progress
from mlr_rag.errors import InvalidInputError, StoreCorruptError, TeacherError
from mlr_rag.training.cache import ContentCache, content_key

if TYPE_CHECKING:
    from mlr_rag.training.teachers.teacher import Teacher

logger = logging.getLogger(__name__)

Pair = tuple[str, str]
Scores = npt.NDArray[np.float64]


class ScoreCache:
    """A teacher's scores of (query, passage) pairs: asked for once, then known.

    The key is made of the teacher's fingerprint and truncation and of both texts, whole.

    Args:
        path: See ContentCache, whose file it is; other values may lie in the same file.

    Attributes:
        asked: Pairs that teachers were asked for, and scored.
        hits: Pairs that were known.
        skipped: Pairs that a teacher with `skip_failures` could not score. They are not kept: another run asks for them
            again.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._content = ContentCache(path)
        self.asked = self.hits = self.skipped = 0

    def score(
        self, teacher: Teacher, pairs: Sequence[Pair], batch: int | None = None, show_progress: bool | None = None
    ) -> Scores:
        """The teacher's scores, `(n,)` float64 in the order of the pairs; it is asked for the unknown ones only.

        Long texts come first, and each batch is kept as soon as it is scored: run again what was killed, and at most
        one batch is scored twice. Pairs that a teacher with `skip_failures` cannot score are NaN.

        Args:
            teacher: Who is asked.
            pairs: (query, passage), any number of times.
            batch: Pairs that it is asked for at once; by default the teacher's own `batch`, or 256.
            show_progress: By default in a terminal.

        Raises:
            InvalidInputError: a pair is not two texts, or the teacher has no fingerprint.
            TeacherError: the teacher failed, or gave scores that are not finite, or too few; what it gave before is
                kept, and what the error carries in `scores`.
        """
        keys = _keys(teacher, pairs)
        scores = self._read(keys)
        unknown = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in scores}
        self.hits += len(keys) - sum(key in unknown for key in keys)
        order = sorted(unknown, key=lambda key: -sum(map(len, unknown[key])))
        if batch is not None and batch < 1:
            raise InvalidInputError("batch is not a number of pairs", found=batch, expected="1 or more, or None")
        size = batch if batch is not None else int(getattr(teacher, "batch", 256))
        bar = progress.start("Scoring", len(order), show_progress if order else False)
        try:
            for start in range(0, len(order), size):
                part = order[start : start + size]
                scores.update(self._ask(teacher, {key: unknown[key] for key in part}, start, len(order)))
                bar.update(len(part))
        finally:
            bar.close()
        missing = sum(key not in scores for key in order)
        if missing:
            self.skipped += missing
            logger.warning("%d of %d pairs could not be scored, and are left out", missing, len(order))
        return np.array([scores.get(key, math.nan) for key in keys], np.float64)

    def known(self, teacher: Teacher, pairs: Sequence[Pair]) -> npt.NDArray[np.bool_]:
        """Which pairs need no asking, `(n,)`."""
        keys = _keys(teacher, pairs)
        found = self._content.get_many(keys)
        return np.array([key in found for key in keys], np.bool_)

    def count(self) -> int:
        """How many scores there are, of all teachers."""
        return self._content.count()

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self._content.close()

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, teacher: Teacher, pairs: dict[bytes, Pair], done: int, total: int) -> dict[bytes, float]:
        """Scores of a batch, kept; those that another process kept meanwhile are taken over."""
        scores = self._read(pairs)
        asked = {key: pair for key, pair in pairs.items() if key not in scores}
        if not asked:
            return scores
        remedy = _remedy(done + len(scores), total)
        try:
            given = teacher.score(list(asked.values()))
        except TeacherError as problem:
            kept = 0 if problem.scores is None else self._keep(asked, problem.scores)
            problem.remedy = f"{problem.remedy} {_remedy(done + len(scores) + kept, total)}".strip()
            raise problem.at("a teacher failed") from problem
        except Exception as problem:
            raise TeacherError(
                f"the teacher failed: {type(problem).__name__} {problem!s:.200}".rstrip(" ."), remedy=remedy
            ) from problem
        checked = _check_scores(given, list(asked.values()), remedy, getattr(teacher, "skip_failures", False))
        self._keep(asked, checked)
        return scores | self._read(asked)

    def _keep(self, asked: Iterable[bytes], scores: Iterable[float]) -> int:
        """Keep those scores that there are, and tell how many."""
        known = {
            key: struct.pack("<d", value) for key, value in zip(asked, scores, strict=True) if math.isfinite(value)
        }
        self._content.put_many(known)
        self.asked += len(known)
        return len(known)

    def _read(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        return {key: _number(value, self._content.path) for key, value in self._content.get_many(keys).items()}


def _keys(teacher: Teacher, pairs: Sequence[Pair]) -> list[bytes]:
    if not teacher.fingerprint:
        raise InvalidInputError(
            "the teacher has no fingerprint, so nobody could tell its scores from another's",
            found=type(teacher).__name__,
            expected="a fingerprint that changes whenever its scores do",
            remedy='Pass fingerprint="...".',
        )
    said = "score", teacher.fingerprint, teacher.truncation
    for place, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InvalidInputError(f"pair {place:,} is not two texts", found=pair, expected="(query, passage)")
    return [content_key(*said, query, passage) for query, passage in pairs]


def _remedy(kept: int, total: int) -> str:
    return f"{kept:,} of {total:,} are kept; run it again to go on from there."


def _check_scores(given: Any, pairs: Sequence[Pair], remedy: str, may_skip: bool) -> list[float]:
    try:
        scores = np.asarray(given, np.float64)
    except (TypeError, ValueError) as problem:
        raise TeacherError(
            "the teacher gave no numbers", found=given, expected="one number a pair", remedy=remedy
        ) from problem
    if scores.shape != (len(pairs),):
        raise TeacherError(
            "the teacher gave another number of scores than of pairs",
            found=scores.shape,
            expected=(len(pairs),),
            remedy=remedy,
        )
    for score, (query, passage) in zip(scores.tolist(), pairs, strict=True):
        if not math.isfinite(score) and not (may_skip and math.isnan(score)):
            raise TeacherError(
                f"the teacher's score of ({query!r:.80}, {passage!r:.80}) is not a number",
                found=score,
                expected="a finite number",
                remedy=remedy,
            )
    checked: list[float] = scores.tolist()
    return checked


def _number(value: bytes, path: Path | None) -> float:
    if len(value) != 8 or not math.isfinite(number := struct.unpack("<d", value)[0]):
        raise StoreCorruptError(f"{path} holds something that is no score", found=value, expected="a finite float64")
    return float(number)
