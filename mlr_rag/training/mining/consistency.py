"""Which generated queries to trust: filters of pairs of a query and the document that it was made from.

They are those of arXiv 2502.19712 (its code; see `percentiles` for the scores' scale).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlr_rag.errors import InvalidInputError

Scores = Mapping[str, Mapping[str, float]]  # query id → document id → score


@dataclass(frozen=True)
class Kept:
    """The ids of the queries that a filter keeps, in their order, and how many it drops."""

    ids: tuple[str, ...]
    dropped: int


def consistent(sources: Mapping[str, str], run: Scores, rank: int = 20) -> Kept:
    """Keep a query if its own document is among the `rank` best that it finds (round-trip consistency).

    Args:
        sources: Query id → the id of the document that it was made from.
        run: What each query found.
        rank: The last rank that counts, from 1.
    """
    found = {id: _rank(document, run.get(id, {})) for id, document in sources.items()}
    return _kept({id: place is not None and place <= rank for id, place in found.items()})


def teacher_agrees(sources: Mapping[str, str], scores: Scores, scored: int = 20) -> Kept:
    """Keep a query if the teacher scores its own document highest, among `scored` documents or more.

    Args:
        sources: Query id → the id of the document that it was made from.
        scores: The teacher's scores of what each query found.
        scored: How many documents must have a score, for the first place to mean something.
    """
    known = {id: scores.get(id, {}) for id in sources}
    return _kept({id: len(known[id]) >= scored and _rank(document, known[id]) == 1 for id, document in sources.items()})


def confident(scores: Scores, quantile: float = 0.25) -> Kept:
    """Keep a query if its highest score is no lower than this quantile of all queries' scores.

    Raises:
        InvalidInputError: there are no scores, or it is no quantile.
    """
    values = [value for of_query in scores.values() for value in of_query.values()]
    if not values or not 0 <= quantile <= 1:
        raise InvalidInputError(
            "no quantile of scores", found=f"{quantile} of {len(values)}", expected="0 to 1, of one score or more"
        )
    least = float(np.quantile(values, quantile))
    return _kept({id: max(of_query.values(), default=-np.inf) >= least for id, of_query in scores.items()})


def _rank(document: str, scores: Mapping[str, float]) -> int | None:
    """From 1; documents with the same score share the better rank."""
    if document not in scores:
        return None
    return 1 + sum(score > scores[document] for score in scores.values())


def _kept(verdicts: Mapping[str, bool]) -> Kept:
    ids = tuple(id for id, keep in verdicts.items() if keep)
    return Kept(ids, len(verdicts) - len(ids))
