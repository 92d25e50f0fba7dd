"""What benchmarks.frameworks measures: ways to ask a collection, and what the frameworks cost by themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever as LangChainRetriever
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever as LlamaIndexRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryResult

from mlr_rag import Document, MLRModel, Retriever
from mlr_rag.stores import Vector
from mlr_rag_langchain import MLRVectorStore as LangChainStore
from mlr_rag_llama_index import MLREmbedding
from mlr_rag_llama_index import MLRVectorStore as LlamaIndexStore

K = 4
CORE = "Retriever.search"
LC_RETRIEVER, LC_STORE, LC_STORE_RETRIEVER = (
    "LangChain: MLRRetriever",
    "LangChain: MLRVectorStore.similarity_search",
    "LangChain: MLRVectorStore.as_retriever()",
)
LI_RETRIEVER, LI_INDEX = "LlamaIndex: MLRRetriever", "LlamaIndex: VectorStoreIndex.as_retriever()"


class Known:
    """A model, with the vectors of some texts known beforehand: encoding those costs a look-up.

    Args:
        model: What encodes the others.
        documents: Vectors of texts, as documents.
        queries: Vectors of texts, as queries.
        checked: Whether its fingerprint is the model's at the moment, which takes time, or what it was.
    """

    def __init__(
        self, model: MLRModel, documents: Mapping[str, Vector], queries: Mapping[str, Vector], checked: bool = False
    ) -> None:
        self.name, self.recipe, self.dimension = model.name, model.recipe, int(model.get_embedding_dimension() or 0)
        self._model, self._documents, self._queries = model, documents, queries
        self._fingerprint = None if checked else model.fingerprint

    @property
    def fingerprint(self) -> str:
        """See Encoder."""
        return self._fingerprint or self._model.fingerprint

    def encode_query(self, inputs: Sequence[str]) -> Vector:
        """See Encoder."""
        return _known(inputs, self._queries, self._model.encode_query)

    def encode_document(self, inputs: Sequence[str]) -> Vector:
        """See Encoder."""
        return _known(inputs, self._documents, self._model.encode_document)


def _known(texts: Sequence[str], vectors: Mapping[str, Vector], encode: Callable[[list[str]], Vector]) -> Vector:
    found = [vectors.get(text) for text in texts]
    return encode(list(texts)) if any(row is None for row in found) else np.stack(found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Door:
    """A way to ask a collection, blocking and not."""

    ask: Callable[[str], Any]
    aask: Callable[[str], Awaitable[Any]]

    @classmethod
    def of(cls, retriever: Any) -> Door:
        """A retriever of LangChain or LlamaIndex."""
        if isinstance(retriever, LangChainRetriever):
            return cls(retriever.invoke, retriever.ainvoke)
        return cls(retriever.retrieve, retriever.aretrieve)


def langchain_doors(kb: Retriever) -> dict[str, Door]:
    """Those of LangChain."""
    store = LangChainStore(kb)
    return {
        LC_RETRIEVER: Door.of(kb.as_langchain(k=K)),
        LC_STORE: Door(
            lambda query: store.similarity_search(query, k=K), lambda query: store.asimilarity_search(query, k=K)
        ),
        LC_STORE_RETRIEVER: Door.of(store.as_retriever(search_kwargs={"k": K})),
    }


def llama_index_doors(kb: Retriever) -> dict[str, Door]:
    """Those of LlamaIndex."""
    store = LlamaIndexStore(kb)
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    return {
        LI_RETRIEVER: Door.of(kb.as_llama_index(similarity_top_k=K)),
        LI_INDEX: Door.of(index.as_retriever(similarity_top_k=K)),
    }


def nodes_of(documents: Iterable[Document]) -> list[TextNode]:
    """The same as nodes of LlamaIndex, which encodes the metadata with the text."""
    return [TextNode(id_=each.id, text=each.text, metadata=each.metadata) for each in documents]


def encoded(node: TextNode) -> str:
    """What of a node is encoded."""
    return str(node.get_content(MetadataMode.EMBED))


def add_nodes(kb: Retriever, nodes: list[TextNode]) -> None:
    """Add nodes as LlamaIndex does."""
    store = LlamaIndexStore(kb)
    VectorStoreIndex(
        nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=store.embed_model
    )


def seen(found: Sequence[Any]) -> list[tuple[Any, ...]]:
    """What a door gave, to compare: texts with metadata or ids, and scores where there are any."""
    if found and isinstance(found[0], NodeWithScore):
        return [(each.node.node_id, each.node.text, each.score) for each in found]
    return [(each.page_content, each.metadata) for each in found]


def readymade(kb: Retriever, query: str) -> dict[str, Door]:
    """The frameworks alone: for every door of ours, theirs over what it once gave, ready-made."""
    langchain, llama_index = langchain_doors(kb), llama_index_doors(kb)
    lone = Door.of(_LangChainReady(given=langchain[LC_RETRIEVER].ask(query)))
    nodes: list[NodeWithScore] = llama_index[LI_INDEX].ask(query)
    embedding = _ReadyEmbedding(given=MLREmbedding(kb.model).get_query_embedding(query))
    index = VectorStoreIndex.from_vector_store(_ReadyStore(given=nodes), embed_model=embedding)
    return {
        LC_RETRIEVER: lone,
        LC_STORE_RETRIEVER: lone,
        LI_RETRIEVER: Door.of(_LlamaIndexReady(nodes)),
        LI_INDEX: Door.of(index.as_retriever(similarity_top_k=K)),
    }


class _LangChainReady(LangChainRetriever):
    given: list[LangChainDocument]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[LangChainDocument]:
        return list(self.given)

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[LangChainDocument]:
        return list(self.given)


class _LlamaIndexReady(LlamaIndexRetriever):
    def __init__(self, given: list[NodeWithScore]) -> None:
        super().__init__()
        self._given = given

    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return list(self._given)

    async def _aretrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return list(self._given)


class _ReadyEmbedding(BaseEmbedding):
    given: list[float]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.given

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self.given

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.given


class _ReadyStore(BasePydanticVectorStore):
    given: list[NodeWithScore]
    stores_text: bool = True

    @property
    def client(self) -> Any:
        return None

    def add(self, nodes: Any, **options: Any) -> list[str]:
        raise NotImplementedError

    def delete(self, ref_doc_id: str, **options: Any) -> None:
        raise NotImplementedError

    def query(self, query: Any, **options: Any) -> VectorStoreQueryResult:
        return VectorStoreQueryResult(
            nodes=[each.node for each in self.given],
            similarities=[each.score or 0.0 for each in self.given],
            ids=[each.node.node_id for each in self.given],
        )
