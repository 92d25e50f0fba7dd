"""Records as rows of a Chroma collection, and back, exactly.

A row's document is the text; its metadata are the content hash and the exact metadata as one JSON string, and the
fields that filters look at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mlr_rag.documents import Document
from mlr_rag.stores import Record, Vector, stacked
from mlr_rag_chroma.conditions import fields

_RECORD = "record"


def batches(records: Sequence[Record], count: int, size: int) -> Iterator[list[Record]]:
    """Parts of some records, of at most so many and about so many bytes; of one id only the last."""
    last = list({record.document.id: record for record in records}.values())
    batch: list[Record] = []
    taken = 0
    for record in last:
        document = record.document
        needed = 3 * len(document.text) + 4 * len(str(document.metadata)) + 6 * stacked([record]).size
        if batch and (len(batch) == count or taken + needed > size):
            yield batch
            batch, taken = [], 0
        batch.append(record)
        taken += needed
    if batch:
        yield batch


def columns(batch: Sequence[Record], stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments of `upsert`.

    Args:
        batch: What to write.
        stored: The metadata of those rows that are there already: Chroma keeps each key that is not set to None.
    """
    metadatas = []
    for document in (record.document for record in batch):
        content = json.dumps([document.content_hash, document.metadata])
        vanished = dict.fromkeys(stored.get(document.id, ()))
        metadatas.append({**vanished, _RECORD: content, **fields(document.metadata)})
    return {
        "ids": [record.document.id for record in batch],
        "documents": [record.document.text for record in batch],
        "embeddings": [np.asarray(record.vector, np.float32) for record in batch],
        "metadatas": metadatas,
    }


def rows(found: Mapping[str, Any]) -> list[Record]:
    """The records in what `get` returned, or in a part of what `query` did."""
    vectors: Sequence[Any] = [None] * len(found["ids"]) if found["embeddings"] is None else found["embeddings"]
    return [
        Record(Document.stored(text, id, json.loads(metadata[_RECORD])[1]), _vector(vector))
        for id, text, metadata, vector in zip(
            found["ids"], found["documents"], found["metadatas"], vectors, strict=True
        )
    ]


def content_hash(metadata: Mapping[str, Any]) -> str:
    """The content hash of the record that has this metadata in Chroma."""
    hash: str = json.loads(metadata[_RECORD])[0]
    return hash


def _vector(values: Any) -> Vector | None:
    return None if values is None else np.array(values, np.float32)
