"""Every store under test, made fresh in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlr_rag.memory import MemoryStore
from mlr_rag.stores import VectorStore
from mlr_rag_edge import EdgeStore

Make = Callable[..., VectorStore]

STORES: dict[str, Callable[[Path], Make]] = {
    "memory": lambda folder: MemoryStore,
    "edge": lambda folder: lambda dimension, vectors=1: EdgeStore(folder / "kb", dimension, vectors),
}
PERSISTENT = ("edge",)
