"""langchain-tests, unmodified, over every store: nothing overridden, nothing skipped, nothing expected to fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from mlr_rag import Retriever
from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLREmbeddings, MLRRetriever, MLRVectorStore


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, url: str) -> Iterator[VectorStore]:
        with MLRVectorStore.open(url, self.get_embeddings()) as store:
            yield store


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def kb(self, url: str) -> Iterator[None]:
        with Retriever.open(url, HashEncoder()) as self._kb:
            self._kb.add([f"text {i}" for i in range(5)])
            yield

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return MLRRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": self._kb}

    @property
    def retriever_query_example(self) -> str:
        return "text 1"


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return MLREmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": HashEncoder()}


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return MLREmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": HashEncoder()}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"HF_HUB_OFFLINE": "1"}, {"model": HashEncoder()}, {"model": "hash-encoder"}


SUITES = {
    TestVectorStore: (VectorStoreIntegrationTests, 25),
    TestRetriever: (RetrieversIntegrationTests, 5),
    TestEmbeddings: (EmbeddingsIntegrationTests, 5),
    TestEmbeddingsUnit: (EmbeddingsUnitTests, 3),
}


@pytest.mark.parametrize("suite", SUITES)
def test_the_suites_are_unmodified(suite: type) -> None:
    theirs, count = SUITES[suite]
    names = [name for name in dir(theirs) if name.startswith("test_")]
    assert len(names) >= count
    for name in names:
        assert getattr(suite, name) is getattr(theirs, name), f"{name} is overridden"
        assert not {"skip", "skipif", "xfail"} & {mark.name for mark in getattr(getattr(suite, name), "pytestmark", [])}
    assert not getattr(suite, "pytestmark", [])
    for flag in ("has_sync", "has_async", "has_get_by_ids"):  # with which the suite would skip by itself
        assert getattr(suite, flag, None) is getattr(theirs, flag, None)
