"""An encoder without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


class HashEncoder:
    """Unit vectors seeded by the text; a query has the vector of the document with the same text."""

    name = "hash-encoder"

    def __init__(self, dimension: int = 16, version: str = "1") -> None:
        self.dimension = dimension
        self.fingerprint = f"hash-encoder-{version}"
        self.version = version
        self.encoded: list[str] = []

    def encode_query(self, inputs: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector(text) for text in inputs]) if inputs else np.empty((0, self.dimension))

    def encode_document(self, inputs: Sequence[str]) -> np.ndarray:
        self.encoded.extend(inputs)
        return np.stack([self._vector(text) for text in inputs]) if inputs else np.empty((0, self.dimension))

    def _vector(self, text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256((self.version + text).encode()).digest()[:8], "big")
        row = np.random.default_rng(seed).normal(size=self.dimension)
        unit: np.ndarray = (row / np.linalg.norm(row)).astype(np.float32)
        return unit
