"""The suite over Chroma: in memory, in a folder, and on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlr_rag.testing import Make, PersistentStoreSuite, StoreSuite
from mlr_rag_chroma import ChromaStore
from tests.chroma_server import ChromaServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    with ChromaServer(tmp_path_factory.mktemp("chroma")) as server:
        yield server


def opening(location: str) -> Make:
    return lambda dimension, vectors=1: ChromaStore.open(location, dimension=dimension, vectors_per_document=vectors)


class TestChromaMemory(StoreSuite):
    several = False

    @pytest.fixture
    def make(self) -> Make:
        return opening(f":memory:/kb-{uuid.uuid4()}")


class TestChromaFolder(PersistentStoreSuite):
    several = False

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return opening(f"{tmp_path}/chroma/documents")


class TestChromaServer(PersistentStoreSuite):
    several = False

    @pytest.fixture
    def make(self, server: ChromaServer) -> Make:
        return opening(f"{server.location}/kb-{uuid.uuid4()}")
