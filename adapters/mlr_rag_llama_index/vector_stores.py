"""MLRVectorStore: a Retriever as LlamaIndex's vector store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from pydantic import PrivateAttr

from mlr_rag.documents import Document, Hit, check_id
from mlr_rag.errors import InvalidInputError, InvalidQueryError
from mlr_rag.filters import is_number, parse
from mlr_rag.frameworks import check_options, check_retriever, several
from mlr_rag.ingest import as_documents
from mlr_rag.retriever import Retriever
from mlr_rag.searching import Search
from mlr_rag_llama_index.conditions import everything, predicate, search_options
from mlr_rag_llama_index.embeddings import MLREmbedding, text_to_check
from mlr_rag_llama_index.nodes import SOURCE, from_llama_index, to_llama_index

_MARGINAL = ("mmr_threshold", "mmr_prefetch_k", "mmr_prefetch_factor")


class MLRVectorStore(BasePydanticVectorStore):
    """A collection on any store of ours, with LlamaIndex's methods.

    Nodes that come with a vector are compared with the collection's model: the first and the last of a call are encoded
    again. Nodes without one are encoded. A query's vector is compared too, unless this collection's `embed_model` made
    it, so give that to an index: `VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)`.

    Args:
        retriever: The collection and its model.
    """

    stores_text: bool = True
    is_embedding_query: bool = True

    _retriever: Retriever = PrivateAttr()

    def __init__(self, retriever: Retriever) -> None:
        super().__init__(stores_text=True, is_embedding_query=True)
        self._retriever = check_retriever(retriever)

    @classmethod
    def open(cls, url: str | Path, embed_model: Any = None) -> MLRVectorStore:
        """Open a collection, or make it where there is none.

        Args:
            url: As for `Retriever.open`: `./kb`, `memory:`, `qdrant://host:6333/name`, `chroma:./dir/name` and others.
            embed_model: Any embedding of LlamaIndex, a model, or its name; by default the collection's own.

        Raises:
            ModelMismatchError: the collection was made with another model.
        """
        return cls(Retriever.open(url, embed_model))

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows it."""
        return "MLRVectorStore"

    @property
    def client(self) -> Any:
        """The store beneath."""
        return self._retriever.store

    @property
    def retriever(self) -> Retriever:
        """The collection and its model."""
        return self._retriever

    @property
    def embed_model(self) -> MLREmbedding:
        """The collection's model, for indices and pipelines."""
        return MLREmbedding(self._retriever.model)

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes, or replace those with the same ids; returns their ids. All are checked before any is written.

        Raises:
            InvalidDocumentError: one cannot be stored (DuplicateIdError: two different ones share an id).
            ModelMismatchError: another model made their vectors.
        """
        check_options(kwargs, (), "add")
        nodes = list(several(nodes, BaseNode, "node"))
        documents = list(as_documents(list(from_llama_index(nodes))))
        encoded = [
            (document, node.embedding) for document, node in zip(documents, nodes, strict=True) if node.embedding
        ]
        if encoded:
            self._retriever.add_vectors([document for document, _ in encoded], [vector for _, vector in encoded])
        plain = [document for document, node in zip(documents, nodes, strict=True) if not node.embedding]
        if plain:
            self._retriever.add(plain)
        return [document.id for document in documents]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add`, without blocking the event loop."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document; a node without a source is its own document."""
        check_options(delete_kwargs, (), "delete")
        check_id(ref_doc_id)
        self._retriever.delete(filter={SOURCE: ref_doc_id})
        if any(SOURCE not in document.metadata for document in self._retriever.get(ref_doc_id)):
            self._retriever.delete(ref_doc_id)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete`, without blocking the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes that have one of the ids and satisfy the filters; all nodes where neither is given."""
        return [to_llama_index(document) for document in self._found(node_ids, filters)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes`, without blocking the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete the nodes that have one of the ids and satisfy the filters.

        Raises:
            InvalidInputError: there are no ids, and no filters or such as every node satisfies: that is `clear`.
        """
        check_options(delete_kwargs, (), "delete_nodes")
        if node_ids is None and everything(filters):
            raise InvalidInputError(
                "delete_nodes would delete every node",
                found=f"no ids, and the filters {filters}",
                expected="ids, or filters that some nodes do not satisfy",
                remedy="Or use clear().",
            )
        self._retriever.delete([document.id for document in self._found(node_ids, filters)])

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes`, without blocking the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Delete every node; the collection stays."""
        self._retriever.delete([document.id for document in self._found(None, None)])

    async def aclear(self) -> None:
        """`clear`, without blocking the event loop."""
        await asyncio.to_thread(self.clear)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to a query, with their cosines, best first.

        Args:
            query: Its vector is searched for, or its text where it has none; `filters`, `node_ids` and `doc_ids` must
                all hold, an empty list being none, as indices pass one. The modes are DEFAULT, and MMR with
                `mmr_threshold` from 1, for nearness only, to 0, for difference only.
            kwargs: `mmr_threshold`; `mmr_prefetch_k`, how many to choose from, or `mmr_prefetch_factor`, how many for
                each asked for.

        Raises:
            InvalidQueryError: another mode was asked for, or neither vector nor text was given.
            ModelMismatchError: another model made the vector.
        """
        arguments = self._arguments(query, kwargs)
        search = self._retriever.search_by_vector if "vector" in arguments else self._retriever.search
        return _result(search(**arguments))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query`, without blocking the event loop."""
        if query.filters is None:
            arguments = self._arguments(query, kwargs)
        else:  # some read every document
            arguments = await asyncio.to_thread(self._arguments, query, kwargs)
        search = self._retriever.asearch_by_vector if "vector" in arguments else self._retriever.asearch
        return _result(await search(**arguments))

    def close(self) -> None:
        """Release the collection's files and locks."""
        self._retriever.close()

    def _arguments(self, query: VectorStoreQuery, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `Retriever.search`, or of `search_by_vector` where the query has a vector."""
        arguments = {"k": Search.checked(query.similarity_top_k).k} | _diversity(query, options)
        arguments |= search_options(self._retriever, query.filters, query.node_ids or None)
        if query.doc_ids:
            of_documents = {SOURCE: {"$in": query.doc_ids}}
            parts = [part for part in (arguments["filter"], of_documents) if part is not None]
            arguments["filter"] = {"$and": parts}
        if query.query_embedding is not None:
            text = text_to_check(query.query_embedding, query.query_str, self._retriever.model)
            return arguments | {"vector": query.query_embedding, "text": text}
        if query.query_str is None:
            raise InvalidQueryError("a query without a vector and without a text", found=None, expected="one of them")
        return arguments | {"query": query.query_str}

    def _found(self, ids: list[str] | None, filters: MetadataFilters | None) -> list[Document]:
        """The documents that have one of the ids and satisfy the filters."""
        if ids is not None:
            found = self._retriever.get(ids)
            satisfies = predicate(filters)
            return [each for each in found if satisfies(each.metadata)]
        options = search_options(self._retriever, filters)
        if options["ids"] is not None:
            return self._retriever.get(options["ids"])
        records = self._retriever.store.scan(parse(options["filter"]), batch=2048)
        return [record.document for batch in records for record in batch]


def _diversity(query: VectorStoreQuery, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of maximal marginal relevance, in our words."""
    if query.mode == VectorStoreQueryMode.DEFAULT:
        check_options(options, (), "query")
        return {}
    if query.mode != VectorStoreQueryMode.MMR:
        raise InvalidQueryError("an unsupported query mode", found=query.mode, expected="default or mmr")
    check_options(options, _MARGINAL, "query")
    threshold = options.get("mmr_threshold", query.mmr_threshold)  # indices can pass it on as an option only
    threshold = 0.5 if threshold is None else threshold
    if not (is_number(threshold) and 0 <= threshold <= 1):
        raise InvalidQueryError("mmr_threshold is out of range", found=threshold, expected="a number in [0, 1]")
    candidates = options.get("mmr_prefetch_k")
    if "mmr_prefetch_factor" in options:
        factor = options["mmr_prefetch_factor"]
        if not (is_number(factor) and 0 < factor < math.inf):
            raise InvalidQueryError("mmr_prefetch_factor is out of range", found=factor, expected="a number above 0")
        candidates = math.ceil(query.similarity_top_k * factor)
    return {"diversity": 1 - threshold, "candidates": candidates}


def _result(hits: list[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[to_llama_index(hit.document) for hit in hits],
        similarities=[hit.score for hit in hits],
        ids=[hit.document.id for hit in hits],
    )
