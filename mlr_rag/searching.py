"""One search: its parameters, checked, and how it is run over a model and a store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mlr_rag.admission import Pair
from mlr_rag.diversity import diversify
from mlr_rag.documents import Hit, check_ids, check_text
from mlr_rag.errors import InvalidQueryError
from mlr_rag.filters import Filter, is_number, parse
from mlr_rag.memory import MemoryStore
from mlr_rag.readymade import check_query_vector, unit_rows
from mlr_rag.stores import Match, Vector, VectorStore

MODES = ("dense",)  # "hybrid" belongs here, and where it asks the store is Search._matches

_TURN = 64  # queries of one call, before another call's have their turn
_TURNS = threading.local()

_FEW = 256  # ids: so many records are fetched and compared; above it the store is asked for more than k

_MANY = 10_000  # hits: above it k is compared with the count, as an engine sets room aside for so many


@dataclass(frozen=True)
class Readymade:
    """A query's vector that comes from outside, and the text it stands for where that is known."""

    vector: Any
    text: str | None = None


Query: TypeAlias = "str | Readymade"


@dataclass(frozen=True)
class Search:
    """The parameters of `Retriever.search`; see there."""

    k: int
    filter: Filter | None
    min_score: float | None
    diversity: float | None
    candidates: int
    ids: list[str] | None

    @classmethod
    def checked(
        cls,
        k: Any,
        filter: Mapping[str, Any] | None = None,
        min_score: Any = None,
        diversity: Any = None,
        candidates: Any = None,
        mode: Any = "dense",
        ids: Any = None,
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
        return cls(k, parse(filter), min_score, diversity, candidates, None if ids is None else check_ids(ids))

    def run(self, pair: Pair, queries: Sequence[Query]) -> list[list[Hit]]:
        """The hits of each query."""
        vectors, limit = self._encoded(pair, queries)
        return [self._hits(self._matches(pair.store, vector, limit)) for vector in vectors]

    async def arun(self, pair: Pair, queries: Sequence[Query]) -> list[list[Hit]]:
        """The same, in threads that take turns; what waits for a server needs no turn."""
        found: list[list[Hit]] = []
        for start in range(0, max(1, len(queries)), _TURN):
            found += await self._arun(pair, queries[start : start + _TURN])
        return found

    async def _arun(self, pair: Pair, queries: Sequence[Query]) -> list[list[Hit]]:
        encoding, searching = turn_for(pair.encoder), turn_for(pair.store)
        if encoding is searching:
            async with encoding:
                return await asyncio.to_thread(self.run, pair, queries)
        async with encoding:
            vectors, limit = await asyncio.to_thread(self._encoded, pair, queries)
        async with searching:
            matches = await asyncio.gather(*(self._amatches(pair.store, vector, limit) for vector in vectors))
        return [self._hits(each) for each in matches]

    def _encoded(self, pair: Pair, queries: Sequence[Query]) -> tuple[list[Vector], int]:
        """The queries' vectors, and how many matches to ask for."""
        texts = [query for query in queries if not isinstance(query, Readymade)]
        for text in texts:
            check_text(text, "a query", InvalidQueryError)
        pair.check_model()
        limit = self.k if self.diversity is None else self.candidates
        if limit > _MANY:
            limit = min(limit, max(1, pair.store.count()))
        encoded = iter(np.asarray(pair.encoder.encode_query(texts), np.float32) if texts else ())
        return [_given(pair, query) if isinstance(query, Readymade) else next(encoded) for query in queries], limit

    def _matches(self, store: VectorStore, vector: Vector, limit: int) -> list[Match]:
        with_vectors = self.diversity is not None
        if self.ids is None:
            return store.query(vector, limit, self.filter, with_vectors)
        if len(self.ids) > _FEW:
            return self._among_many(store, vector, limit)
        among = MemoryStore(store.dimension, store.vectors_per_document)
        among.upsert(store.get(self.ids, with_vectors=True))
        return among.query(vector, limit, self.filter, with_vectors)

    def _among_many(self, store: VectorStore, vector: Vector, limit: int) -> list[Match]:
        """Of more and more of the nearest, those with one of the ids, until they are enough."""
        ids, asked = set(self.ids or ()), 2 * limit
        while True:
            nearest = store.query(vector, asked, self.filter, self.diversity is not None)
            found = [match for match in nearest if match.record.document.id in ids]
            if len(found) >= min(limit, len(ids)) or len(nearest) < asked:
                return found[:limit]
            asked *= 4

    async def _amatches(self, store: VectorStore, vector: Vector, limit: int) -> list[Match]:
        aquery = getattr(store, "aquery", None)
        if aquery is None or self.ids is not None:
            return await asyncio.to_thread(self._matches, store, vector, limit)
        found: list[Match] = await aquery(vector, limit, self.filter, self.diversity is not None)
        return found

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


def turn_for(part: object) -> AbstractAsyncContextManager[object]:
    """The turn that a model or a store must have to work in this process; none for one that waits for a server.

    One search of an event loop runs at a time. Of 200 at once, threads that compete for the interpreter's lock keep the
    loop waiting 6 to 170 ms, and finish no sooner.
    """
    if getattr(part, "remote", False):
        return nullcontext()
    loop = asyncio.get_running_loop()
    if getattr(_TURNS, "loop", None) is not loop:  # the last of its thread, and not a word of those before it
        _TURNS.loop, _TURNS.lock = loop, asyncio.Lock()
    turn: asyncio.Lock = _TURNS.lock
    return turn


def _given(pair: Pair, query: Readymade) -> Vector:
    vector = unit_rows(query.vector, (pair.store.dimension,))
    if query.text is not None:
        check_text(query.text, "a query", InvalidQueryError)
        check_query_vector(pair, vector, query.text)
    return vector
