"""The suite over every store of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlr_rag.memory import MemoryStore
from mlr_rag.testing import Make, PersistentStoreSuite, StoreSuite
from mlr_rag_edge import EdgeStore


class TestMemory(StoreSuite):
    @pytest.fixture
    def make(self) -> Make:
        return MemoryStore


class TestEdge(PersistentStoreSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda dimension, vectors=1: EdgeStore(tmp_path / "kb", dimension, vectors)
