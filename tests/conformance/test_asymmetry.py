"""Queries are encoded as queries and documents as documents, through every door of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document as LangChainDocument
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from typer.testing import CliRunner

from mlr_rag import MLRModel, Retriever
from mlr_rag.cli import app
from mlr_rag_edge import EdgeStore
from mlr_rag_langchain import MLREmbeddings
from mlr_rag_langchain import MLRVectorStore as LangChainStore
from mlr_rag_llama_index import MLREmbedding
from mlr_rag_llama_index import MLRVectorStore as LlamaIndexStore

QUESTION = "what is the capital of france?"
TEXT = "paris was the capital: a river, an old stone bridge"


class Seen:
    """The vectors that reach the store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queries: list[Any] = []
        self.records: list[Any] = []
        query, upsert = EdgeStore.query, EdgeStore.upsert

        def spy_query(store: EdgeStore, vector: Any, *rest: Any, **options: Any) -> Any:
            self.queries.append(vector)
            return query(store, vector, *rest, **options)

        def spy_upsert(store: EdgeStore, records: Any) -> None:
            self.records.extend(records)
            upsert(store, records)

        monkeypatch.setattr(EdgeStore, "query", spy_query)
        monkeypatch.setattr(EdgeStore, "upsert", spy_upsert)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


def index_of(kb: Retriever) -> VectorStoreIndex:
    store = LlamaIndexStore(kb)
    return VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)


def pipeline_of(kb: Retriever) -> IngestionPipeline:
    store = LlamaIndexStore(kb)
    return IngestionPipeline(transformations=[store.embed_model], vector_store=store)


ASKING: dict[str, Callable[[Retriever], Any]] = {
    "core": lambda kb: kb.search(QUESTION),
    "core async": lambda kb: asyncio.run(kb.asearch(QUESTION)),
    "core many": lambda kb: kb.search_many([QUESTION]),
    "langchain retriever": lambda kb: kb.as_langchain().invoke(QUESTION),
    "langchain retriever async": lambda kb: asyncio.run(kb.as_langchain().ainvoke(QUESTION)),
    "langchain store": lambda kb: LangChainStore(kb).similarity_search(QUESTION),
    "langchain store async": lambda kb: asyncio.run(LangChainStore(kb).asimilarity_search(QUESTION)),
    "langchain store, diverse": lambda kb: LangChainStore(kb).max_marginal_relevance_search(QUESTION),
    "langchain store as retriever": lambda kb: LangChainStore(kb).as_retriever().invoke(QUESTION),
    "llama_index retriever": lambda kb: kb.as_llama_index().retrieve(QUESTION),
    "llama_index retriever async": lambda kb: asyncio.run(kb.as_llama_index().aretrieve(QUESTION)),
    "llama_index store": lambda kb: LlamaIndexStore(kb).query(VectorStoreQuery(query_str=QUESTION)),
    "llama_index index": lambda kb: index_of(kb).as_retriever().retrieve(QUESTION),
    "llama_index index async": lambda kb: asyncio.run(index_of(kb).as_retriever().aretrieve(QUESTION)),
}

ADDING: dict[str, Callable[[Retriever], Any]] = {
    "core": lambda kb: kb.add([TEXT]),
    "core, with vectors": lambda kb: kb.add_vectors([TEXT], kb.model.encode_document([TEXT])),
    "langchain store": lambda kb: LangChainStore(kb).add_texts([TEXT]),
    "langchain store, documents": lambda kb: LangChainStore(kb).add_documents([LangChainDocument(TEXT)]),
    "langchain store, sync": lambda kb: LangChainStore(kb).sync([LangChainDocument(TEXT)]),
    "llama_index store": lambda kb: LlamaIndexStore(kb).add([TextNode(text=TEXT)]),
    "llama_index index": lambda kb: index_of(kb).insert_nodes([TextNode(text=TEXT)]),
    "llama_index pipeline": lambda kb: pipeline_of(kb).run(nodes=[TextNode(text=TEXT)]),
}


@pytest.mark.parametrize("door", ASKING)
def test_a_query_is_encoded_as_a_query(door: str, asymmetric_model: MLRModel, seen: Seen, tmp_path: Path) -> None:
    with Retriever.open(tmp_path / "kb", asymmetric_model) as kb:
        kb.add([TEXT])
        ASKING[door](kb)
    assert len(seen.queries) == 1
    np.testing.assert_allclose(seen.queries[0], asymmetric_model.encode_query([QUESTION])[0], atol=1e-6)


@pytest.mark.parametrize("door", ADDING)
def test_a_document_is_encoded_as_a_document(door: str, asymmetric_model: MLRModel, seen: Seen, tmp_path: Path) -> None:
    with Retriever.open(tmp_path / "kb", asymmetric_model) as kb:
        ADDING[door](kb)
    (record,) = seen.records
    np.testing.assert_allclose(record.vector, asymmetric_model.encode_document([record.document.text])[0], atol=1e-6)


def test_the_command_line_encodes_each_as_what_it_is(
    asymmetric_model: MLRModel, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asymmetric_model.save("model")
    Path("docs").mkdir()
    Path("docs/a.txt").write_text(TEXT)
    run = CliRunner().invoke
    assert run(app, ["index", "docs", "--into", "kb", "--model", "model"]).exit_code == 0
    assert run(app, ["search", "kb", QUESTION]).exit_code == 0
    (record,) = seen.records
    np.testing.assert_allclose(record.vector, asymmetric_model.encode_document([record.document.text])[0], atol=1e-6)
    np.testing.assert_allclose(seen.queries[-1], asymmetric_model.encode_query([QUESTION])[0], atol=1e-6)


@pytest.mark.parametrize("door", ["langchain", "langchain async", "llama_index", "llama_index async"])
def test_embeddings_tell_queries_from_documents(door: str, asymmetric_model: MLRModel) -> None:
    langchain, llama_index = MLREmbeddings(asymmetric_model), MLREmbedding(asymmetric_model)
    query, document = {
        "langchain": lambda: (langchain.embed_query(TEXT), langchain.embed_documents([TEXT])[0]),
        "langchain async": lambda: (
            asyncio.run(langchain.aembed_query(TEXT)),
            asyncio.run(langchain.aembed_documents([TEXT]))[0],
        ),
        "llama_index": lambda: (llama_index.get_query_embedding(TEXT), llama_index.get_text_embedding(TEXT)),
        "llama_index async": lambda: (
            asyncio.run(llama_index.aget_query_embedding(TEXT)),
            asyncio.run(llama_index.aget_text_embedding(TEXT)),
        ),
    }[door]()
    np.testing.assert_allclose(query, asymmetric_model.encode_query([TEXT])[0], atol=1e-6)
    np.testing.assert_allclose(document, asymmetric_model.encode_document([TEXT])[0], atol=1e-6)
