"""One search: what to ask of the client, and when its answer is complete."""

from __future__ import annotations

from typing import Any

import numpy as np
from qdrant_client import models

from mlr_rag.stores import Match, Vector, sorted_matches
from mlr_rag_qdrant.points import SHOWN, record

_TIES = 1  # hits to ask for beyond k, to see whether the k-th ties with the next


class Search:
    """The k points nearest to a vector, ties by id.

    Which of equal scores an engine leaves out is its choice; the contract says by id, so all of them must be seen.
    """

    def __init__(
        self, vector: Vector, several: bool, k: int, condition: models.Filter | None, with_vectors: bool
    ) -> None:
        row = vector.tolist()
        self._k, self._limit = k, k + _TIES
        self._fixed = {
            "query": [row] if several else row,
            "query_filter": condition,
            "with_payload": SHOWN,
            "with_vectors": with_vectors,
        }

    def arguments(self) -> dict[str, Any]:
        """Of `query_points`."""
        return self._fixed | {"limit": self._limit}

    def matches(self, answer: models.QueryResponse) -> list[Match] | None:
        """The k matches, or None where more must be asked for, with other `arguments`."""
        # Local mode's 64-bit sums of equal vectors differ in their last bits; as 32-bit numbers they are equal again.
        scores = np.array([point.score for point in answer.points], np.float32).tolist()
        if len(scores) < self._limit or scores[self._k - 1] > scores[-1]:
            found = [Match(record(point), score) for point, score in zip(answer.points, scores, strict=True)]
            return sorted_matches(found)[: self._k]
        self._limit *= 4
        return None
