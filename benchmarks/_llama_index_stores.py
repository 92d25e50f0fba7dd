"""The vector stores that our suite for LlamaIndex is run over: pytest benchmarks/_llama_index_stores.py.

A store is a class `Test…` here, and its package in `PACKAGES`; `benchmarks.llama_index_suite` does the rest.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import pytest
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from mlr_rag_llama_index import MLRVectorStore
from mlr_rag_llama_index.testing import VectorStoreSuite

PACKAGES = {
    "TestOurs": "mlr-rag",
    "TestLlamaIndexQdrant": "llama-index-vector-stores-qdrant",
    "TestLlamaIndexChroma": "llama-index-vector-stores-chroma",
}


class TestOurs(VectorStoreSuite):
    """Our adapter, over a collection in a folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[BasePydanticVectorStore]:
        """An empty store."""
        store = MLRVectorStore.open(f"edge:{tmp_path}/kb", self.embed_model)
        yield store
        store.close()


class TestLlamaIndexQdrant(VectorStoreSuite):
    """The shipped adapter, over local mode."""

    @pytest.fixture
    def store(self) -> Iterator[BasePydanticVectorStore]:
        """An empty store."""
        client = QdrantClient(":memory:")
        aclient: Any = _AsyncFace(client)
        yield QdrantVectorStore("documents", client=client, aclient=aclient)
        client.close()


class TestLlamaIndexChroma(VectorStoreSuite):
    """The shipped adapter, over a client in memory."""

    @pytest.fixture
    def store(self) -> Iterator[BasePydanticVectorStore]:
        """An empty store; all clients in memory share one, so each test has a name of its own."""
        client, name = chromadb.EphemeralClient(), uuid.uuid4().hex
        yield ChromaVectorStore(client.create_collection(name, configuration={"hnsw": {"space": "cosine"}}))
        client.delete_collection(name)


class _AsyncFace:
    """An async client over the same memory, which local mode cannot give and a server would: each call in a thread."""

    def __init__(self, client: QdrantClient) -> None:
        self._sync = client

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(getattr(self._sync, name), *args, **kwargs)

        return call
