"""The suite over Qdrant's local mode, and over the client that talks to a server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from mlr_rag.testing import Make, PersistentStoreSuite, StoreSuite
from mlr_rag_qdrant import QdrantStore
from tests.fake_qdrant import FakeQdrant

pytestmark = pytest.mark.filterwarnings("ignore:Qdrant's local mode:UserWarning")


class TestQdrantMemory(StoreSuite):
    @pytest.fixture
    def make(self) -> Make:
        client = QdrantClient(":memory:")
        return lambda dimension, vectors=1: QdrantStore(client, "documents", dimension, vectors)


class TestQdrantFolder(PersistentStoreSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[Make]:
        shared_memory = Path("/dev/shm")  # local mode waits for the disk at every point
        folder = Path(tempfile.mkdtemp(dir=shared_memory)) if shared_memory.is_dir() else tmp_path
        location = str(folder / "kb" / "documents")
        yield lambda dimension, vectors=1: QdrantStore.open(location, dimension=dimension, vectors_per_document=vectors)
        shutil.rmtree(folder)


class TestQdrantFakeServer(PersistentStoreSuite):
    @pytest.fixture
    def make(self) -> Iterator[Make]:
        with FakeQdrant() as fake:
            yield lambda dimension, vectors=1: QdrantStore.open(
                f"{fake.place}/documents", dimension=dimension, vectors_per_document=vectors
            )
