"""A teacher that needs no model, and a process that asks it, to be killed: python -m tests.training.scoring FILE N."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np

from mlr_rag.training.cache import content_key
from mlr_rag.training.teachers.scores import ScoreCache

BATCH = 20


class HashTeacher:
    """A score from the hash of both texts, after a pause."""

    truncation = "none"

    def __init__(self, fingerprint: str = "hash", pause: float = 0.0, tell: bool = False) -> None:
        self.fingerprint, self._pause, self._tell = fingerprint, pause, tell
        self.calls: list[list[tuple[str, str]]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        if self._tell:  # by now all earlier batches are acknowledged
            print(len(self.calls) * BATCH, flush=True)  # noqa: T201
        self.calls.append(list(pairs))
        time.sleep(self._pause * len(pairs))
        return np.array([true_score(self.fingerprint, *pair) for pair in pairs])


def true_score(fingerprint: str, query: str, passage: str) -> float:
    return int.from_bytes(content_key(fingerprint, query, passage)[:6], "little") / 2**40 - 100


def pairs_of(count: int) -> list[tuple[str, str]]:
    return [(f"query {n // 10}", f"passage {n} " * (1 + n % 7)) for n in range(count)]


if __name__ == "__main__":
    with ScoreCache(sys.argv[1]) as cache:
        cache.score(HashTeacher(pause=0.0005, tell=True), pairs_of(int(sys.argv[2])), batch=BATCH)
    print("done", flush=True)  # noqa: T201
