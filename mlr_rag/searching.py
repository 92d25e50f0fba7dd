"""One search: its parameters, checked, and how it is run over a model and a store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

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
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

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
        """The same, in threads that take turns; waiting for a server needs no turn."""
        aquery = _asked(pair.store) if self.ids is None else None
        found: list[list[Hit]] = []
        for start in range(0, max(1, len(queries)), _TURN):
            some = queries[start : start + _TURN]
            if aquery is None:
                async with _turn():
                    found += await asyncio.to_thread(self.run, pair, some)
                continue
            async with _turn():
                vectors, limit = await asyncio.to_thread(self._encoded, pair, some)
            asked = [aquery(vector, limit, self.filter, self.diversity is not None) for vector in vectors]
            found += [self._hits(matches) for matches in await asyncio.gather(*asked)]
        return found

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
        among = MemoryStore(store.dimension, store.vectors_per_document)  # exact, and they are few
        among.upsert(store.get(self.ids, with_vectors=True))
        return among.query(vector, limit, self.filter, with_vectors)

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


def _turn() -> asyncio.Lock:
    """Held by the one search of an event loop that runs: several would compete with it for the interpreter's lock.

    With 200 searches at once, threads that do compete keep the loop waiting 6 to 170 ms, and finish no sooner.
    """
    return _TURNS.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def _asked(store: VectorStore) -> Callable[..., Awaitable[list[Match]]] | None:
    """How a store that is `remote` is asked: by its `aquery`, or in a thread; None for one in this process."""
    if not getattr(store, "remote", False):
        return None
    return getattr(store, "aquery", None) or (lambda *asked: asyncio.to_thread(store.query, *asked))


def _given(pair: Pair, query: Readymade) -> Vector:
    vector = unit_rows(query.vector, (pair.store.dimension,))
    if query.text is not None:
        check_query_vector(pair, vector, query.text)
    return vector
