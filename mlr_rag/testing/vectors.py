"""Vectors and records to test stores with."""

from __future__ import annotations

import numpy as np

from mlr_rag.documents import Document
from mlr_rag.stores import Record, Vector


def unit_rows(n: int, dimension: int = 8, seed: int = 0, centres: int = 5) -> Vector:
    """Random unit rows `(n, dimension)` around a few centres, as texts are, and not Gaussian noise."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(centres, dimension))
    rows = middles[rng.integers(0, centres, n)] + 0.3 * rng.normal(size=(n, dimension))
    unit: Vector = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def records(n: int = 20, seed: int = 0) -> list[Record]:
    """Records with ids "id 0", "id 1" and so on, and 8 dimensions."""
    rows = unit_rows(n, seed=seed)
    return [Record(Document(f"text {i}", f"id {i}", {"n": i, "even": i % 2 == 0}), rows[i]) for i in range(n)]


def vector_of(record: Record) -> Vector:
    """The vector of a record that must have come with one."""
    if record.vector is None:
        raise AssertionError(f"{record.document.id!r} came without its vector")
    return record.vector
