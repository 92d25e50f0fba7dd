"""Copying a collection from one store to another, vectors and all, and comparing both record by record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from mlr_rag import progress
from mlr_rag.admission import COLLECTION, COPYING
from mlr_rag.errors import InvalidInputError, StoreError, StoreNotFoundError
from mlr_rag.stores import Info, Record, VectorStore, check_current, identity_of, is_in_memory, open_store

_BATCH = 256
_PASSES = 5  # over a collection that is being written to meanwhile
_CLOSE = 1e-6  # by how much an element of a vector may differ


@dataclass(frozen=True)
class Copy:
    """What `copy_to` did.

    Attributes:
        url: Where the copy is.
        documents: How many it holds; each was compared with its original.
        written: How many were written in this call; the others were there.
        seconds: Wall-clock time.
    """

    url: str
    documents: int
    written: int
    seconds: float


def copy(source: VectorStore, place: str | Path | VectorStore, show_progress: bool | None = None) -> Copy:
    """See `Retriever.copy_to`; a store that is passed stays open."""
    check_current(source)
    started, info = time.perf_counter(), _description(source)
    target = _open(source, place) if isinstance(place, (str, Path)) else place
    try:
        _check(source, target, info)
        info[COLLECTION] = (target.info or {}).get(COLLECTION) or uuid4().hex
        target.write_info({**info, COPYING: True})
        written = _bring_in_line(source, target, show_progress)
        check_current(source)
        target.write_info(info)
        return Copy(target.url, target.count(), written, time.perf_counter() - started)
    finally:
        if target is not place:
            target.close()


def _description(source: VectorStore) -> Info:
    info = source.info
    if info is None or "passport" not in info:
        raise InvalidInputError(f"{source.url} has no passport", expected="a collection that a retriever has opened")
    return {"passport": info["passport"]}


def _open(source: VectorStore, place: str | Path) -> VectorStore:
    url = f"edge:{place}" if isinstance(place, Path) else place
    if is_in_memory(url):
        raise InvalidInputError(
            "a copy in memory would be gone at once", found=url, expected="a place that lasts, or a store object"
        )
    try:
        return open_store(url)
    except StoreNotFoundError:
        return open_store(url, dimension=source.dimension, vectors_per_document=source.vectors_per_document)


def _check(source: VectorStore, target: VectorStore, info: Info) -> None:
    if identity_of(target) == identity_of(source):
        raise InvalidInputError("a collection cannot be copied onto itself", found=target.url, expected="another place")
    same_shape = (target.dimension, target.vectors_per_document) == (source.dimension, source.vectors_per_document)
    found = target.info
    if not same_shape or (found or info).get("passport") != info["passport"] or (found is None and target.count()):
        why = "of another model"
    elif found is not None and COPYING not in found and any(_others(source, target)):
        why = "that are not in this collection"
    else:
        return
    raise StoreError(
        f"{target.url} holds another collection",
        found=f"{target.count():,} documents, {why}",
        expected="nothing, or a copy of this collection",
        remedy="Choose another place, or drop() what is there. Nothing was changed.",
    )


def _bring_in_line(source: VectorStore, target: VectorStore, show_progress: bool | None) -> int:
    """Pass over both until nothing differs; returns how many records were written."""
    written = changed = removed = 0
    for _ in range(_PASSES):
        bar = progress.start("Copying", source.count(), show_progress)
        changed = sum(_bring(source, target, bar))
        bar.close()
        removed = _remove_others(source, target)
        written += changed
        if not changed and not removed:
            return written
    raise StoreError(
        f"{target.url} is not yet the same as {source.url}",
        found=f"{changed:,} records that differ, {removed:,} too many, after {_PASSES} passes",
        expected="none",
        remedy="Pause the writers, and run the same command again; what was copied is kept.",
    )


def _bring(source: VectorStore, target: VectorStore, bar: progress.Progress) -> Iterator[int]:
    """Write what the target lacks or has otherwise; yields how many records, batch by batch."""
    for batch in source.scan(batch=_BATCH, with_vectors=True):
        there = {r.document.id: r for r in target.get([r.document.id for r in batch], with_vectors=True)}
        missing = [record for record in batch if not _same(record, there.get(record.document.id))]
        target.upsert(missing)
        bar.update(len(batch))
        yield len(missing)


def _remove_others(source: VectorStore, target: VectorStore) -> int:
    return target.delete(ids=[id for ids in _others(source, target) for id in ids])


def _others(source: VectorStore, target: VectorStore) -> Iterator[list[str]]:
    """Ids that the target holds and the source does not, batch by batch."""
    for batch in target.scan(batch=_BATCH):
        ids = [record.document.id for record in batch]
        here = source.hashes(ids)
        yield [id for id in ids if id not in here]


def _same(one: Record, other: Record | None) -> bool:
    if other is None or one.vector is None or other.vector is None:
        return False
    if one.document.content_hash != other.document.content_hash:
        return False
    return one.vector.shape == other.vector.shape and float(np.abs(one.vector - other.vector).max()) <= _CLOSE
