"""Records as Qdrant points, and back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from mlr_rag.documents import Document
from mlr_rag.stores import Record
from mlr_rag.tokens import numbers, tokens
from mlr_rag_qdrant.conditions import NUMBERS, TENANT, TOKENS

SHOWN = ["id", "text", "metadata"]  # of the payload: what makes a document

_IDS = uuid.UUID("6b0a3c55-9d0c-5c83-9f0e-6a1f6d1b7a10")  # namespace of the uuid5 that stands for a document's id
_POINTS = 256  # of a request
_BYTES = 16 << 20  # of a request; servers refuse more than 32 MiB
_FLOAT, _CHARACTER, _REST = 24, 6, 512  # bytes in JSON, at most: of a number, of a character, of ids and punctuation


def namespace(tenant: str | None) -> uuid.UUID:
    """Of point ids; a tenant's is its own, so that tenants may use the same document ids."""
    return _IDS if tenant is None else uuid.uuid5(_IDS, tenant)


def point_id(id: str, space: uuid.UUID) -> str:
    """The point id that stands for a document's id."""
    return str(uuid.uuid5(space, id))


def point(record: Record, space: uuid.UUID, tenant: str | None) -> models.PointStruct:
    """The point of a record; not validated again, as that would copy every number of its vector."""
    document = record.document
    payload: dict[str, Any] = {
        "id": document.id,
        "text": document.text,
        "metadata": json.dumps(document.metadata),
        "hash": document.content_hash,
        TOKENS: tokens(document.metadata),
        NUMBERS: numbers(document.metadata),
    }
    if tenant is not None:
        payload[TENANT] = tenant
    return models.PointStruct.model_construct(
        id=point_id(document.id, space), vector=np.asarray(record.vector).tolist(), payload=payload
    )


def record(point: models.Record | models.ScoredPoint) -> Record:
    """The record of a point that was read with the `SHOWN` part of its payload."""
    payload = point.payload or {}
    document = Document.stored(payload["text"], payload["id"], json.loads(payload["metadata"]))
    return Record(document, None if point.vector is None else np.asarray(point.vector, np.float32))


def batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Lists that a server takes in one request, each without repeated ids: the last of them wins."""
    batch: dict[str, Record] = {}
    size = 0
    for record in records:
        needed = _size(record)
        if len(batch) == _POINTS or (batch and size + needed > _BYTES):
            yield list(batch.values())
            batch, size = {}, 0
        batch[record.document.id] = record
        size += needed
    if batch:
        yield list(batch.values())


def _size(record: Record) -> int:
    document = record.document
    metadata = sum(len(key) + len(str(value)) for key, value in document.metadata.items())
    vector = 0 if record.vector is None else record.vector.size
    return _FLOAT * vector + _CHARACTER * (len(document.text) + len(document.id) + 2 * metadata) + _REST
