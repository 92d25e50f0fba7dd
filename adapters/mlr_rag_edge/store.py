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
from mlr_rag.errors import InvalidInputError, StoreClosedError, StoreLockedError
from mlr_rag.filters import Filter
from mlr_rag.stores import Info, Match, Record, Vector, check_one_of, check_query, check_vectors, sorted_matches
from mlr_rag.tokens import numbers, tokens
from mlr_rag_edge.conditions import NUMBERS, TOKENS, translate
from mlr_rag_edge.folder import Folder, check_space, engine_errors

_IDS = uuid.UUID("6b0a3c55-9d0c-5c83-9f0e-6a1f6d1b7a10")  # namespace of the uuid5 that stands for a document's id
_UPSERT = 256
_TIES = 4  # hits to ask for beyond k, to see whether the k-th ties with the next


class EdgeStore:
    """Embedded Qdrant in one folder: exact search, durable and atomic batches, one process at a time.

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
        self._folder = Folder.open(Path(path), dimension, vectors_per_document)
        self._closed = False
        self._lock: threading.RLock = self._folder.lock
        self.url = f"edge:{self._folder.path}"
        self.dimension, self.vectors_per_document = self._folder.dimension, self._folder.vectors_per_document

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
        with self._lock:
            self._shard()
            self._folder.write_info(info)

    def upsert(self, records: Sequence[Record]) -> None:
        """See VectorStore. A batch of up to 256 records is written whole or not at all."""
        check_vectors(records, self.dimension, self.vectors_per_document)
        for start in range(0, len(records), _UPSERT):
            batch = list({record.document.id: record for record in records[start : start + _UPSERT]}.values())
            points = [_point(record) for record in batch]
            with self._lock, self._engine() as shard:
                check_space(self._folder.path, self._size(batch))
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
        with self._lock:
            if ids is not None:
                points = [point.id for point in self._retrieve(ids, False, False)]
                deleted, operation = len(points), qdrant.UpdateOperation.delete_points(points)
            else:
                deleted = self.count(filter)
                operation = qdrant.UpdateOperation.delete_points_by_filter(translate(filter))
            if deleted:
                with self._engine() as shard:
                    shard.update(operation)
                    shard.flush()
            return deleted

    def query(self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False) -> list[Match]:
        """See VectorStore."""
        check_query(vector, self.dimension)
        row = vector.tolist()
        query, condition = qdrant.Query.Nearest(row if self.vectors_per_document == 1 else [row]), translate(filter)
        limit = k + _TIES
        while True:
            request = qdrant.QueryRequest(
                query=query,
                filter=condition,
                limit=limit,
                with_payload=["id", "text", "metadata"],
                with_vector=with_vectors,
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

    def drop(self) -> None:
        """See VectorStore."""
        with self._lock:
            self._shard()
            self._closed = True
            self._folder.drop()

    def close(self) -> None:
        """See VectorStore."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._folder.release()

    @contextmanager
    def _engine(self) -> Iterator[Any]:
        """The open shard, for one call; what it raises comes out as ours."""
        shard = self._shard()
        with engine_errors(self._folder.path):
            yield shard

    def _shard(self) -> Any:
        shard = None if self._closed else self._folder.shard
        if shard is None:
            raise StoreClosedError("this store was closed", found=self.url, remedy="Open it again.")
        if self._folder.process != os.getpid():
            raise StoreLockedError(
                f"{self._folder.path} was opened by the process that this one was forked from",
                expected="one process at a time",
                remedy="Open it after the fork, in one of the processes.",
            )
        return shard

    def _size(self, batch: list[Record]) -> int:
        """A generous guess of the bytes that a batch needs, write-ahead log included."""
        vectors = 4 * self.dimension * self.vectors_per_document * len(batch)
        return 4 * (vectors + sum(len(record.document.text) for record in batch))

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
