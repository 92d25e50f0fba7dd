"""One search: its parameters, checked, and how it is run over a model and a store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlr_rag.admission import Pair
from mlr_rag.diversity import diversify
from mlr_rag.documents import Hit, check_text
from mlr_rag.errors import InvalidQueryError
from mlr_rag.filters import Filter, is_number, parse
from mlr_rag.stores import Match, Vector

MODES = ("dense",)  # "hybrid" belongs here, and where it asks the store is Search.run

_MANY = 10_000  # hits: above it k is compared with the count, as an engine sets room aside for so many


@dataclass(frozen=True)
class Search:
    """The parameters of `Retriever.search`; see there."""

    k: int
    filter: Filter | None
    min_score: float | None
    diversity: float | None
    candidates: int

    @classmethod
    def checked(
        cls,
        k: Any,
        filter: Mapping[str, Any] | None = None,
        min_score: Any = None,
        diversity: Any = None,
        candidates: Any = None,
        mode: Any = "dense",
    ) -> Search:
        """The parameters, refused where they make no sense.

        Raises:
            InvalidQueryError, InvalidFilterError.
        """
        k = _count(k, "k is not a number of documents")
        if min_score is not None and not (is_number(min_score) and -1 <= min_score <= 1):
            raise InvalidQueryError("min_score is not a cosine", found=min_score, expected="a number in [-1, 1]")
        if diversity is not None and not (is_number(diversity) and 0 <= diversity <= 1):
            raise InvalidQueryError("diversity is out of range", found=diversity, expected="a number in [0, 1]")
        if mode not in MODES:
            raise InvalidQueryError("no such mode of search", found=mode, expected=" or ".join(MODES))
        if candidates is None:
            candidates = max(20, 5 * k)
        elif diversity is None:
            raise InvalidQueryError("candidates without diversity", found=candidates, expected="both, or neither")
        candidates = max(k, _count(candidates, "candidates is not a number of documents"))
        return cls(k, parse(filter), min_score, diversity, candidates)

    def run(self, pair: Pair, queries: list[str]) -> list[list[Hit]]:
        """The hits of each query."""
        vectors, limit = self._encoded(pair, queries)
        with_vectors = self.diversity is not None
        return [self._hits(pair.store.query(vector, limit, self.filter, with_vectors)) for vector in vectors]

    async def arun(self, pair: Pair, queries: list[str]) -> list[list[Hit]]:
        """The same; a store with an `aquery` of its own is asked by that, any other in a thread."""
        aquery = getattr(pair.store, "aquery", None)
        if aquery is None:
            return await asyncio.to_thread(self.run, pair, queries)
        vectors, limit = await asyncio.to_thread(self._encoded, pair, queries)
        asked = [aquery(vector, limit, self.filter, self.diversity is not None) for vector in vectors]
        return [self._hits(found) for found in await asyncio.gather(*asked)]

    def _encoded(self, pair: Pair, queries: list[str]) -> tuple[list[Vector], int]:
        """The queries' vectors, and how many matches to ask for."""
        for text in queries:
            check_text(text, "a query", InvalidQueryError)
        pair.check_model()
        limit = self.k if self.diversity is None else self.candidates
        if limit > _MANY:
            limit = min(limit, max(1, pair.store.count()))
        return list(np.asarray(pair.encoder.encode_query(queries), np.float32)) if queries else [], limit

    def _hits(self, found: list[Match]) -> list[Hit]:
        if self.min_score is not None:
            found = [match for match in found if match.score >= self.min_score]
        if self.diversity is not None:
            found = diversify(found, self.k, self.diversity)
        return [Hit(match.record.document, match.score) for match in found]


def _count(value: Any, problem: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidQueryError(problem, found=value, expected="an int of 1 or more")
    return int(value)
