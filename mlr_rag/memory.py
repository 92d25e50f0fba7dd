"""MemoryStore: exact search over numpy arrays, the reference that every other store is tested against."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidInputError, StoreClosedError, StoreNotFoundError
from mlr_rag.filters import Filter, matches
from mlr_rag.stores import (
    Info,
    Match,
    Record,
    Vector,
    check_dimension,
    check_one_of,
    check_query,
    check_shape,
    check_vectors,
    no_such_generation,
    sorted_matches,
    stacked,
)


class _Generation:
    """What one generation holds; the handles on it share it."""

    def __init__(self, dimension: int, vectors_per_document: int) -> None:
        check_dimension(dimension, vectors_per_document)
        self.dimension, self.vectors_per_document = dimension, vectors_per_document
        self.info: str | None = None
        self.records: dict[str, Record] = {}
        self.matrix: tuple[list[Record], Vector] | None = None
        self.dropped = False


class _Collection:
    """The generations of one collection, and which is current."""

    def __init__(self, first: _Generation) -> None:
        self.lock = threading.RLock()
        self.generations = {1: first}
        self.current = 1


class MemoryStore:
    """Exact search over numpy arrays, in this process only: the reference that other stores are tested against."""

    def __init__(self, dimension: int, vectors_per_document: int = 1) -> None:
        self._attach(_Collection(_Generation(dimension, vectors_per_document)), 1)

    def _attach(self, collection: _Collection, generation: int) -> None:
        self.url, self.generation, self.identity = "memory:", generation, id(collection)
        self._collection, self._lock = collection, collection.lock
        self._data = collection.generations[generation]
        self.dimension, self.vectors_per_document = self._data.dimension, self._data.vectors_per_document
        self._closed = False

    @classmethod
    def open(cls, location: str, *, dimension: int | None, vectors_per_document: int = 1) -> MemoryStore:
        """An empty store: nothing of a memory store outlives it."""
        if location:
            raise InvalidInputError("a memory store has no name", found=f"memory:{location}", expected="memory:")
        if dimension is None:
            raise StoreNotFoundError("a memory store is always new", remedy="Open it with a model.")
        return cls(dimension, vectors_per_document)

    @property
    def info(self) -> Info | None:
        """See VectorStore."""
        self._check_open()
        info: Info | None = None if self._data.info is None else json.loads(self._data.info)
        return info

    def write_info(self, info: Info) -> None:
        """See VectorStore."""
        self._check_open()
        self._data.info = json.dumps(info)

    def upsert(self, records: Sequence[Record]) -> None:
        """See VectorStore."""
        check_vectors(records, self.dimension, self.vectors_per_document)
        with self._lock:
            self._check_open()
            self._data.records.update({record.document.id: _trimmed(record, True) for record in records})
            self._data.matrix = None

    def get(self, ids: Sequence[str], with_vectors: bool = False) -> list[Record]:
        """See VectorStore."""
        with self._lock:
            self._check_open()
            found = [self._data.records[id] for id in ids if id in self._data.records]
        return [_trimmed(record, with_vectors) for record in found]

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """See VectorStore."""
        with self._lock:
            self._check_open()
            return {id: self._data.records[id].document.content_hash for id in ids if id in self._data.records}

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None) -> int:
        """See VectorStore."""
        check_one_of(ids, filter)
        with self._lock:
            self._check_open()
            doomed = (
                {id for id in ids if id in self._data.records}
                if ids is not None
                else {r.document.id for r in self._select(filter)}
            )
            for id in doomed:
                del self._data.records[id]
            self._data.matrix = None
            return len(doomed)

    def query(self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False) -> list[Match]:
        """See VectorStore."""
        check_query(vector, self.dimension)
        with self._lock:
            self._check_open()
            if self._data.matrix is None:
                rows = list(self._data.records.values())
                shape = (len(rows), self.vectors_per_document, self.dimension)
                self._data.matrix = rows, stacked(rows).reshape(shape) if rows else np.empty(shape, np.float32)
            rows, matrix = self._data.matrix
        scores = (matrix @ vector).max(axis=1, initial=-1.0)
        allowed = np.arange(len(rows))
        if filter is not None:
            allowed = np.array([i for i in allowed if matches(filter, rows[i].document.metadata)], int)
        if len(allowed) > k:  # only what scores no less than the k-th is worth sorting
            allowed = allowed[scores[allowed] >= np.partition(scores[allowed], -k)[-k]]
        best = sorted(allowed.tolist(), key=lambda i: (-scores[i], rows[i].document.id))[:k]
        return sorted_matches([Match(_trimmed(rows[i], with_vectors), float(scores[i])) for i in best])

    def count(self, filter: Filter | None = None) -> int:
        """See VectorStore."""
        with self._lock:
            self._check_open()
            return len(self._select(filter))

    def scan(
        self, filter: Filter | None = None, batch: int = 256, with_vectors: bool = False
    ) -> Iterator[list[Record]]:
        """See VectorStore."""
        with self._lock:
            self._check_open()
            rows = self._select(filter)
        for start in range(0, len(rows), batch):
            yield [_trimmed(record, with_vectors) for record in rows[start : start + batch]]

    def generations(self) -> list[int]:
        """See VectorStore."""
        self._check_open()
        return sorted(self._collection.generations)

    def current(self) -> int:
        """See VectorStore."""
        self._check_open()
        return self._collection.current

    def beside(self, generation: int, dimension: int | None = None, vectors_per_document: int = 1) -> MemoryStore:
        """See VectorStore."""
        with self._lock:
            self._check_open()
            found = self._collection.generations.get(generation)
            if found is None and dimension is None:
                raise no_such_generation(self, generation)
            if found is None:
                found = _Generation(dimension or 0, vectors_per_document)
                self._collection.generations[generation] = found
            check_shape(
                f"generation {generation} of {self.url}",
                (found.dimension, found.vectors_per_document),
                (dimension, vectors_per_document),
            )
            handle = object.__new__(MemoryStore)
            handle._attach(self._collection, generation)
            return handle

    def switch(self, generation: int) -> None:
        """See VectorStore."""
        with self._lock:
            if generation not in self.generations():
                raise no_such_generation(self, generation)
            self._collection.current = generation

    def drop(self) -> None:
        """See VectorStore."""
        with self._lock:
            self._check_open()
            generations = self._collection.generations
            doomed = list(generations) if self.generation == self._collection.current else [self.generation]
            for generation in doomed:
                dropped = generations.pop(generation)
                dropped.dropped, dropped.records, dropped.matrix = True, {}, None
            self._closed = True

    def close(self) -> None:
        """See VectorStore."""
        self._closed = True

    def _select(self, filter: Filter | None) -> list[Record]:
        return [record for record in self._data.records.values() if matches(filter, record.document.metadata)]

    def _check_open(self) -> None:
        if self._closed or self._data.dropped:
            raise StoreClosedError("this store was closed", found=self.url, remedy="Open it again.")


def _trimmed(record: Record, with_vectors: bool) -> Record:
    """A copy, so that what is done to a result is not done to the store."""
    document = record.document
    copied = Document.stored(document.text, document.id, copy.deepcopy(document.metadata))
    return Record(copied, np.array(record.vector, np.float32) if with_vectors else None)
