"""Maximal marginal relevance: hits that are near to the query and not too near to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlr_rag.stores import Match


def diversify(matches: Sequence[Match], k: int, diversity: float) -> list[Match]:
    """The k matches that maximal marginal relevance picks, in the order in which it picks them.

    Each pick is the match with the highest (1 - diversity) * score - diversity * (its largest cosine to those picked
    before); the first is the best match (Carbonell and Goldstein, 1998, with lambda = 1 - diversity). 0 keeps the
    order of the scores; 1 heeds only how far a match is from those before it. Of several vectors a document, the
    nearest two count.

    Args:
        matches: With vectors, best first: the candidates.
        k: How many to pick.
        diversity: From 0 to 1.
    """
    if not matches:
        return []
    rows = np.stack([np.atleast_2d(np.asarray(match.record.vector, np.float32)) for match in matches])
    scores = np.array([match.score for match in matches])
    picked = [0]
    nearest = _cosines(rows, 0)
    while len(picked) < min(k, len(matches)):
        marginal = (1 - diversity) * scores - diversity * nearest
        marginal[picked] = -np.inf
        best = int(marginal.argmax())
        picked.append(best)
        nearest = np.maximum(nearest, _cosines(rows, best))
    return [matches[index] for index in picked]


def _cosines(rows: np.ndarray, index: int) -> np.ndarray:
    """Of every candidate to one of them: rows are `(n, m, D)`, m vectors a document."""
    cosines: np.ndarray = np.einsum("nmd,kd->nmk", rows, rows[index]).max(axis=(1, 2))
    return cosines
