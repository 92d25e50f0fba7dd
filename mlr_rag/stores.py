"""Where vectors live: the VectorStore protocol, the registry that finds stores by URL, and MemoryStore."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidInputError, StoreClosedError, StoreNotFoundError
from mlr_rag.filters import Filter, matches

Vector: TypeAlias = npt.NDArray[np.float32]
Info: TypeAlias = dict[str, Any]

ENTRY_POINTS = "mlr_rag.stores"


@dataclass(frozen=True)
class Record:
    """A stored document. `vector` is a unit vector `(D,)`, or unit rows `(m, D)`, or None where it was not asked for."""

    document: Document
    vector: Vector | None = None


@dataclass(frozen=True)
class Match:
    """A record that a query found, and its score: the cosine, in [-1, 1]."""

    record: Record
    score: float


@runtime_checkable
class VectorStore(Protocol):
    """What a retriever needs of a store. Every store passes the same conformance suite.

    Vectors are unit vectors and a score is their dot product; with several vectors a document, the largest one.
    All methods may be called from any thread. All raise `StoreClosedError` after `close`.
    """

    url: str
    dimension: int
    vectors_per_document: int

    @property
    def info(self) -> Info | None:
        """What `write_info` last wrote: the collection's own description, passport included."""

    def write_info(self, info: Info) -> None:
        """Replace the description, durably."""

    def upsert(self, records: Sequence[Record]) -> None:
        """Write all of the records or none, durably; a record with a known id replaces the old one whole."""

    def get(self, ids: Sequence[str], with_vectors: bool = False) -> list[Record]:
        """The records with these ids, in the order asked for; missing ones are left out."""

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """The content hash of each of these ids that is present."""

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None) -> int:
        """Delete by ids or by filter, exactly one of them; returns how many there were."""

    def query(self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False) -> list[Match]:
        """The k records nearest to a `(D,)` unit vector, sorted by (-score, id)."""

    def count(self, filter: Filter | None = None) -> int:
        """How many records there are."""

    def scan(
        self, filter: Filter | None = None, batch: int = 256, with_vectors: bool = False
    ) -> Iterator[list[Record]]:
        """Every record once, in batches, in no promised order."""

    def drop(self) -> None:
        """Delete the collection and everything in it, and close."""

    def close(self) -> None:
        """Release files and locks; calling it again does nothing."""


class StoreFactory(Protocol):
    """What an entry point in `mlr_rag.stores` names: the scheme is the entry point's name."""

    def open(self, location: str, *, dimension: int | None, vectors_per_document: int = 1) -> VectorStore:
        """Open, or create where `dimension` is given, the collection at the part of the URL after `scheme:`."""


def open_store(url: str, *, dimension: int | None = None, vectors_per_document: int = 1) -> VectorStore:
    """The store that a URL names: `./kb` or `edge:./kb`, `memory:`.

    Without a `dimension` the collection must exist.

    Raises:
        InvalidInputError: no installed store has this scheme.
    """
    scheme, _, location = url.partition(":")
    if not _ or len(scheme) == 1 or "/" in scheme or "\\" in scheme:  # a path, or a Windows drive
        scheme, location = "edge", url
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if scheme not in found:
        raise InvalidInputError(
            "no store for this URL", found=url, expected=f"a path, or one of {', '.join(sorted(found))} before a colon"
        )
    factory: StoreFactory = found[scheme].load()
    return factory.open(location, dimension=dimension, vectors_per_document=vectors_per_document)


class MemoryStore:
    """Exact search over numpy arrays, in this process only: the reference that other stores are tested against."""

    def __init__(self, dimension: int, vectors_per_document: int = 1) -> None:
        self.url = "memory:"
        self.dimension, self.vectors_per_document = dimension, vectors_per_document
        self._info: str | None = None
        self._records: dict[str, Record] = {}
        self._matrix: tuple[list[Record], Vector] | None = None
        self._lock = threading.RLock()
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
        return None if self._info is None else json.loads(self._info)

    def write_info(self, info: Info) -> None:
        """See VectorStore."""
        self._check_open()
        self._info = json.dumps(info)

    def upsert(self, records: Sequence[Record]) -> None:
        """See VectorStore."""
        check_vectors(records, self.dimension, self.vectors_per_document)
        with self._lock:
            self._check_open()
            self._records.update({record.document.id: record for record in records})
            self._matrix = None

    def get(self, ids: Sequence[str], with_vectors: bool = False) -> list[Record]:
        """See VectorStore."""
        with self._lock:
            self._check_open()
            found = [self._records[id] for id in ids if id in self._records]
        return [_trimmed(record, with_vectors) for record in found]

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """See VectorStore."""
        return {record.document.id: record.document.content_hash for record in self.get(ids)}

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None) -> int:
        """See VectorStore."""
        check_one_of(ids, filter)
        with self._lock:
            self._check_open()
            doomed = (
                {id for id in ids if id in self._records}
                if ids is not None
                else {r.document.id for r in self._select(filter)}
            )
            for id in doomed:
                del self._records[id]
            self._matrix = None
            return len(doomed)

    def query(self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False) -> list[Match]:
        """See VectorStore."""
        check_query(vector, self.dimension)
        with self._lock:
            self._check_open()
            if self._matrix is None:
                rows = list(self._records.values())
                shape = (len(rows), self.vectors_per_document, self.dimension)
                matrix = (
                    np.stack([record.vector for record in rows]).reshape(shape) if rows else np.empty(shape, np.float32)
                )  # type: ignore[misc]
                self._matrix = rows, matrix
            rows, matrix = self._matrix
        scores = (matrix @ vector).max(axis=1, initial=-1.0)
        kept = (
            [i for i, record in enumerate(rows) if matches(filter, record.document.metadata)]
            if filter
            else range(len(rows))
        )
        best = sorted(kept, key=lambda i: (-scores[i], rows[i].document.id))[:k]
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

    def drop(self) -> None:
        """See VectorStore."""
        self._check_open()
        self.close()

    def close(self) -> None:
        """See VectorStore."""
        with self._lock:
            self._closed, self._records, self._matrix = True, {}, None

    def _select(self, filter: Filter | None) -> list[Record]:
        return [record for record in self._records.values() if matches(filter, record.document.metadata)]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("this store was closed", found=self.url, remedy="Open it again.")


def check_vectors(records: Sequence[Record], dimension: int, vectors_per_document: int = 1) -> None:
    """Refuse records whose vectors are not unit vectors of the store's shape."""
    expected = (dimension,) if vectors_per_document == 1 else (vectors_per_document, dimension)
    for record in records:
        if record.vector is None or record.vector.shape != expected:
            raise InvalidInputError(
                f"the vector of document {record.document.id!r:.60} has another shape than the collection",
                found=None if record.vector is None else record.vector.shape,
                expected=expected,
            )
    if records:
        norms = np.linalg.norm(np.stack([record.vector for record in records]), axis=-1).reshape(len(records), -1)  # type: ignore[misc]
        wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-3).all(axis=1))
        if len(wrong):
            raise InvalidInputError(
                f"the vector of document {records[wrong[0]].document.id!r:.60} is not a unit vector",
                found=f"norm {norms[wrong[0]].tolist()}",
                expected="norm 1",
                remedy="The model gave zero or NaN for this text; check its weights and the text.",
            )


def check_query(vector: Vector, dimension: int) -> None:
    """Refuse a query vector of another shape than the store's."""
    if vector.shape != (dimension,) or not np.isfinite(vector).all():
        raise InvalidInputError("not a query vector", found=vector.shape, expected=f"({dimension},), finite")


def check_one_of(ids: Sequence[str] | None, filter: Filter | None) -> None:
    """Refuse a delete that names nothing, or ids and a filter at once: never delete all by omission."""
    if (ids is None) == (filter is None):
        raise InvalidInputError(
            "delete needs ids or a filter, exactly one",
            found="neither" if ids is None else "both",
            expected="one",
            remedy="To delete everything, drop() the collection.",
        )


def sorted_matches(found: list[Match]) -> list[Match]:
    """Scores clipped to [-1, 1], best first, ties by id."""
    clipped = [Match(match.record, min(1.0, max(-1.0, match.score))) for match in found]
    return sorted(clipped, key=lambda match: (-match.score, match.record.document.id))


def _trimmed(record: Record, with_vectors: bool) -> Record:
    return record if with_vectors else Record(record.document)
