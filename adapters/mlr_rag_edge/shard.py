"""The engine's own files: making and loading them, and what the engine raises."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as qdrant

from mlr_rag.errors import RESTORE, MlrRagError, StoreCorruptError, StoreLockedError
from mlr_rag_edge.conditions import TOKENS

_NUMBERS = 16  # fields that have an index for ranges; a range on another one is as right, and slow


def config(dimension: int, vectors_per_document: int, hnsw: Any = None, optimizers: Any = None) -> Any:
    """What a shard holds, and how it is indexed."""
    several = qdrant.MultiVectorConfig(qdrant.MultiVectorComparator.MaxSim) if vectors_per_document > 1 else None
    vectors = qdrant.EdgeVectorParams(size=dimension, distance=qdrant.Distance.Dot, multivector_config=several)
    return qdrant.EdgeConfig(vectors=vectors, hnsw_config=hnsw, optimizers=optimizers)


def make_shard(path: Path, dimension: int, vectors_per_document: int) -> None:
    """An empty shard on disk, closed, in place of whatever a killed process left there.

    Raises:
        StoreCorruptError: the engine cannot make it.
    """
    with engine_errors(path):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        shard = qdrant.EdgeShard.create(str(path), config(dimension, vectors_per_document))
        add_fields(shard, [TOKENS])
        shard.flush()
        shard.close()


def load_shard(path: Path) -> Any:
    """The open shard.

    Raises:
        StoreCorruptError: the engine cannot read it, or there is nothing to read.
        StoreLockedError: a process that was forked while it was open still has it.
    """
    with engine_errors(path):
        if not any((path / "segments").glob("*/segment.json")):
            raise FileNotFoundError(f"no segments in {path}")  # the engine would make an empty one, without a word
        return qdrant.EdgeShard.load(str(path))


def add_fields(shard: Any, names: Iterable[str]) -> None:
    """Index these fields of the payload, a few numbers at the most: each costs every write some time, and some MB."""
    present = fields(shard)
    for name in names:
        if name not in present and len(present) <= _NUMBERS:
            kind = qdrant.PayloadSchemaType.Keyword if name == TOKENS else qdrant.PayloadSchemaType.Float
            shard.update(qdrant.UpdateOperation.create_field_index(name, kind))
            present.add(name)


def fields(shard: Any) -> set[str]:
    """The indexed ones."""
    return set(shard.info().payload_schema)


@contextmanager
def engine_errors(path: Path) -> Iterator[None]:
    """Turn what the engine raises, its panics included, into StoreCorruptError, or StoreLockedError."""
    try:
        yield
    except (MlrRagError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as problem:  # a panic does not derive from Exception
        if "WouldBlock" in str(problem):  # the engine's own lock, on its log, which a forked child inherits
            raise StoreLockedError(
                f"a process that was forked while {path} was open still has it",
                expected="one process at a time",
                remedy="End that process, or let it be started in another way than by a fork; nothing is damaged.",
            ) from problem
        raise StoreCorruptError(
            f"the engine cannot read or write {path}",
            found=f"{problem!s:.200}",
            remedy=RESTORE,
        ) from problem
