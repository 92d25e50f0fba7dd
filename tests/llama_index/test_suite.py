"""Our suite of LlamaIndex vector stores, over every store of ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from mlr_rag_llama_index import MLRVectorStore
from mlr_rag_llama_index.testing import VectorStoreSuite


def opened(url: str) -> Iterator[BasePydanticVectorStore]:
    store = MLRVectorStore.open(url, VectorStoreSuite.embed_model)
    yield store
    store.close()


class TestMemory(VectorStoreSuite):
    @pytest.fixture
    def store(self) -> Iterator[BasePydanticVectorStore]:
        yield from opened("memory:")


class TestEdge(VectorStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[BasePydanticVectorStore]:
        yield from opened(f"edge:{tmp_path}/kb")


class TestQdrant(VectorStoreSuite):
    @pytest.fixture
    def store(self) -> Iterator[BasePydanticVectorStore]:
        yield from opened("qdrant::memory:")


class TestChroma(VectorStoreSuite):
    @pytest.fixture
    def store(self) -> Iterator[BasePydanticVectorStore]:
        yield from opened(f"chroma::memory:/kb-{uuid.uuid4()}")  # all clients in memory share one
