"""The vector stores that LangChain's own suite is run over: pytest benchmarks/_langchain_stores.py.

A store is a class `Test…` here, and its package in `PACKAGES`; `benchmarks.langchain_suite` does the rest.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_chroma import Chroma
from langchain_core.vectorstores import VectorStore
from langchain_qdrant import QdrantVectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams

from mlr_rag_langchain import MLRVectorStore

PACKAGES = {
    "TestOurs": "mlr-rag",
    "TestLangChainQdrant": "langchain-qdrant",
    "TestLangChainChroma": "langchain-chroma",
}


class TestOurs(VectorStoreIntegrationTests):
    """Our adapter, over a collection in a folder."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        """An empty store."""
        store = MLRVectorStore.open(f"edge:{tmp_path}/kb", self.get_embeddings())
        yield store
        store.close()


class TestLangChainQdrant(VectorStoreIntegrationTests):
    """The shipped adapter, over local mode."""

    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        """An empty store."""
        client = QdrantClient(":memory:")
        client.create_collection("documents", VectorParams(size=6, distance=Distance.COSINE))
        yield QdrantVectorStore(client, "documents", self.get_embeddings())
        client.close()


class TestLangChainChroma(VectorStoreIntegrationTests):
    """The shipped adapter, over a client in memory."""

    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        """An empty store; all clients in memory share one, so each test has a name of its own."""
        cosine: Any = {"hnsw": {"space": "cosine"}}
        store = Chroma(uuid.uuid4().hex, self.get_embeddings(), collection_configuration=cosine)
        yield store
        store.delete_collection()
