"""EdgeStore: a collection in a folder, searched in this process by Qdrant's own engine."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidInputError, StoreCorruptError, StoreLockedError
from mlr_rag.filters import Filter
from mlr_rag.stores import (
    Info,
    Match,
    Record,
    Vector,
    check_one_of,
    check_query,
    check_vectors,
    no_such_generation,
    sorted_matches,
)
from mlr_rag.tokens import numbers, tokens
from mlr_rag_edge.collection import Collection, closed
from mlr_rag_edge.conditions import NUMBERS, TOKENS, translate
from mlr_rag_edge.folder import Folder
from mlr_rag_edge.shard import add_fields, engine_errors

_IDS = uuid.UUID("6b0a3c55-9d0c-5c83-9f0e-6a1f6d1b7a10")  # namespace of the uuid5 that stands for a document's id
_UPSERT = 256
_SCROLL = 10_000
# How an index is searched; without one, search is exact. With filters that leave some tenths of the records, plain HNSW
# loses its way between clusters (recall 0.6 where ACORN, which looks two links ahead, has 1.0), and ACORN takes longer.
_SEARCH = qdrant.SearchParams(hnsw_ef=192)
_FILTERED = qdrant.SearchParams(hnsw_ef=256, acorn=qdrant.AcornSearchParams(enable=True, max_selectivity=0.7))
_TIES = 1  # hits to ask for beyond k, to see whether the k-th ties with the next


class EdgeStore:
    """Embedded Qdrant in one folder: durable and atomic batches, one process at a time.

    Search is exact; from 20,000 records on, an index is built in the background (see index.py), and finds nearly all.

    Opening the same folder twice in one process gives two handles on one collection.

    Args:
        path: The folder; made, with its parents, where `dimension` is given.
        dimension: Length of the vectors; None opens only what exists.
        vectors_per_document: More than one stores each document's layers and scores by the best of them.

    Raises:
        StoreNotFoundError: nothing there, and no dimension to make it with.
        StoreLockedError: another process has it open.
        StoreCorruptError: the folder holds something else, or damaged files.
        ModelMismatchError: it holds vectors of another shape.
    """

    def __init__(self, path: str | Path, dimension: int | None = None, vectors_per_document: int = 1) -> None:
        self._attach(*Collection.open(Path(path), dimension, vectors_per_document))

    def _attach(self, collection: Collection, folder: Folder) -> None:
        self._collection, self._folder = collection, folder
        self._closed = False
        self._lock: threading.RLock = collection.lock
        self.url, self.generation = f"edge:{collection.path}", folder.generation
        self.dimension, self.vectors_per_document = folder.dimension, folder.vectors_per_document

    @classmethod
    def open(cls, location: str, *, dimension: int | None, vectors_per_document: int = 1) -> EdgeStore:
        """The store at a folder's path: what `edge:./kb` opens."""
        if not location:
            raise InvalidInputError("an edge store needs a folder", found="edge:", expected="edge:./folder")
        return cls(location, dimension, vectors_per_document)

    @property
    def info(self) -> Info | None:
        """See VectorStore."""
        self._shard()
        return self._folder.info

    def write_info(self, info: Info) -> None:
        """See VectorStore."""
        self._shard()
        with self._lock:
            self._shard()
            self._folder.write_info(info)

    def upsert(self, records: Sequence[Record]) -> None:
        """See VectorStore. A batch of up to 256 records is written whole or not at all."""
        check_vectors(records, self.dimension, self.vectors_per_document)
        self._shard()
        for start in range(0, len(records), _UPSERT):
            batch = list({record.document.id: record for record in records[start : start + _UPSERT]}.values())
            points = [_point(record) for record in batch]
            with self._lock, self._engine() as shard:
                self._folder.check_space([record.document.text for record in batch])
                self._folder.index.wrote((point.id for point in points), len(points))
                add_fields(shard, {f"{NUMBERS}.{name}" for point in points for name in point.payload[NUMBERS]})
                shard.update(qdrant.UpdateOperation.upsert_points(points))
                shard.flush()

    def get(self, ids: Sequence[str], with_vectors: bool = False) -> list[Record]:
        """See VectorStore."""
        found = {record.document.id: record for record in map(_record, self._retrieve(ids, True, with_vectors))}
        return [found[id] for id in ids if id in found]

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """See VectorStore."""
        return {point.payload["id"]: point.payload["hash"] for point in self._retrieve(ids, ["id", "hash"], False)}

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None) -> int:
        """See VectorStore."""
        check_one_of(ids, filter)
        self._shard()
        with self._lock:
            if ids is not None:
                points = [point.id for point in self._retrieve(ids, False, False)]
                operation = qdrant.UpdateOperation.delete_points(points)
            else:
                points = list(self._point_ids(filter))
                operation = qdrant.UpdateOperation.delete_points_by_filter(translate(filter))
            if points:
                with self._engine() as shard:
                    self._folder.check_space()
                    self._folder.index.wrote(points)
                    shard.update(operation)
                    shard.flush()
            return len(points)

    def query(self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False) -> list[Match]:
        """See VectorStore."""
        check_query(vector, self.dimension)
        row = vector.tolist()
        query, condition = qdrant.Query.Nearest(row if self.vectors_per_document == 1 else [row]), translate(filter)
        limit = k + _TIES
        self._shard()
        self._folder.index.searched()
        while True:
            request = qdrant.QueryRequest(
                query=query,
                filter=condition,
                limit=limit,
                with_payload=["id", "text", "metadata"],
                with_vector=with_vectors,
                params=_SEARCH if condition is None else _FILTERED,
            )
            with self._engine() as shard:
                found = shard.query(request)
            # Which of equal scores the engine leaves out is its choice; the contract says by id, so all must be seen.
            if len(found) < limit or found[k - 1].score > found[-1].score:
                return sorted_matches([Match(_record(point), point.score) for point in found])[:k]
            limit *= 4

    def count(self, filter: Filter | None = None) -> int:
        """See VectorStore."""
        with self._engine() as shard:
            return int(shard.count(qdrant.CountRequest(filter=translate(filter), exact=True)))

    def scan(
        self, filter: Filter | None = None, batch: int = 256, with_vectors: bool = False
    ) -> Iterator[list[Record]]:
        """See VectorStore."""
        condition, offset = translate(filter), None
        while True:
            request = qdrant.ScrollRequest(
                offset=offset, limit=batch, filter=condition, with_payload=True, with_vector=with_vectors
            )
            with self._engine() as shard:
                points, offset = shard.scroll(request)
                records = [_record(point) for point in points]
            if records:
                yield records
            if offset is None:
                return

    def generations(self) -> list[int]:
        """See VectorStore."""
        self._shard()
        return self._collection.generations()

    def current(self) -> int:
        """See VectorStore."""
        self._shard()
        return self._collection.current

    def beside(self, generation: int, dimension: int | None = None, vectors_per_document: int = 1) -> EdgeStore:
        """See VectorStore."""
        self._shard()
        if dimension is None:
            self._check_generation(generation)
        handle = object.__new__(EdgeStore)
        handle._attach(self._collection, self._collection.attach(generation, dimension, vectors_per_document))
        return handle

    def switch(self, generation: int) -> None:
        """See VectorStore."""
        self._check_generation(generation)
        self._collection.switch(generation)

    @property
    def indexing(self) -> bool:
        """Whether an index is being built in the background, which closing the store would end."""
        return self._folder.index.running

    def optimize(self, wait: bool = True) -> None:
        """Build the index of a large collection now; it is built by itself, in the background, when it is time for it.

        Until there is one search is exact. Reads and writes go on meanwhile.

        Args:
            wait: Return when it is built.

        Raises:
            StoreError: where `wait`: why it could not be built; the collection is as it was.
        """
        self._shard()
        self._folder.index.build(wait)
        self._shard()  # closed meanwhile: there is no index

    def drop(self) -> None:
        """See VectorStore."""
        self._shard()
        self._collection.drop(self._folder)

    def close(self) -> None:
        """See VectorStore."""
        if self._collection.process != os.getpid():
            self._closed = True
            return
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._collection.release(self._folder)

    @contextmanager
    def _engine(self) -> Iterator[Any]:
        """The open shard, for one call; what it raises comes out as ours."""
        shard = self._shard()
        try:
            with engine_errors(self._folder.path):
                yield shard
        except StoreCorruptError:
            self._shard()  # closed by another thread meanwhile: that is all there is to it
            raise

    def _shard(self) -> Any:
        """The open shard; asked for before any lock is taken, as in a forked child nobody may be there to free it."""
        shard = None if self._closed else self._folder.shard
        if shard is None:
            raise closed(self._collection.path)
        if self._collection.process != os.getpid():
            raise StoreLockedError(
                f"{self._collection.path} was opened by the process that this one was forked from",
                expected="one process at a time",
                remedy="Open it after the fork, in one of the processes.",
            )
        return shard

    def _check_generation(self, generation: int) -> None:
        if generation not in self.generations():
            raise no_such_generation(self, generation)

    def _point_ids(self, filter: Filter | None) -> Iterator[uuid.UUID]:
        condition, offset = translate(filter), None
        while True:
            request = qdrant.ScrollRequest(offset=offset, limit=_SCROLL, filter=condition, with_payload=False)
            with self._engine() as shard:
                points, offset = shard.scroll(request)
            yield from (point.id for point in points)
            if offset is None:
                return

    def _retrieve(self, ids: Sequence[str], with_payload: bool | list[str], with_vectors: bool) -> list[Any]:
        points = [_point_id(id) for id in dict.fromkeys(ids)]
        with self._engine() as shard:
            return list(shard.retrieve(points, with_payload, with_vectors)) if points else []


def _point_id(id: str) -> uuid.UUID:
    return uuid.uuid5(_IDS, id)


def _point(record: Record) -> Any:
    document = record.document
    payload = {
        "id": document.id,
        "text": document.text,
        "metadata": json.dumps(document.metadata),
        "hash": document.content_hash,
        TOKENS: tokens(document.metadata),
        NUMBERS: numbers(document.metadata),
    }
    return qdrant.Point(_point_id(document.id), np.asarray(record.vector).tolist(), payload)


def _record(point: Any) -> Record:
    payload = point.payload
    document = Document.stored(payload["text"], payload["id"], json.loads(payload["metadata"]))
    return Record(document, None if point.vector is None else np.asarray(point.vector, np.float32))
