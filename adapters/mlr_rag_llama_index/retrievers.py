"""MLRRetriever: a Retriever as LlamaIndex's BaseRetriever."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from llama_index.core.vector_stores.types import MetadataFilters

from mlr_rag.documents import Hit
from mlr_rag.encoders import query_vectors
from mlr_rag.errors import InvalidQueryError
from mlr_rag.frameworks import check_retriever
from mlr_rag.retriever import Retriever
from mlr_rag.searching import Search
from mlr_rag_llama_index.conditions import search_options
from mlr_rag_llama_index.embeddings import text_to_check
from mlr_rag_llama_index.nodes import to_llama_index


class MLRRetriever(BaseRetriever):
    """The nodes nearest to a query, by `Retriever.search`; what goes wrong is raised, and never an empty list.

    Of a QueryBundle, the vector is searched for where there is one; else the mean of its `custom_embedding_strs`, each
    encoded as a query; else its text.

    Args:
        retriever: The knowledge base.
        similarity_top_k: How many nodes, at the most.
        filters: LlamaIndex's MetadataFilters, or a dict of mlr_rag.filters.
        min_score, diversity, candidates, mode: See `Retriever.search`.
        options: Those of BaseRetriever: `callback_manager`, `object_map`, `objects`, `verbose`.
    """

    def __init__(
        self,
        retriever: Retriever,
        similarity_top_k: int = 4,
        filters: MetadataFilters | Mapping[str, Any] | None = None,
        *,
        min_score: float | None = None,
        diversity: float | None = None,
        candidates: int | None = None,
        mode: str = "dense",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.retriever, self.filters = check_retriever(retriever), filters
        self.similarity_top_k = similarity_top_k
        self._fixed = {"min_score": min_score, "diversity": diversity, "candidates": candidates, "mode": mode}
        Search.checked(similarity_top_k, filters if isinstance(filters, Mapping) else None, **self._fixed)

    def retrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """The nodes nearest to a query, with their cosines, best first."""
        return super().retrieve(_checked(str_or_query_bundle))

    async def aretrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """`retrieve`, without blocking the event loop."""
        return await super().aretrieve(_checked(str_or_query_bundle))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        options = self._options()
        vector = self._vector(query_bundle)
        if vector is None:
            return _nodes(self.retriever.search(query_bundle.query_str, **options))
        return _nodes(self.retriever.search_by_vector(vector, text=self._text(query_bundle), **options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        options = self._options() if self.filters is None else await asyncio.to_thread(self._options)
        vector = None if _plain(query_bundle) else await asyncio.to_thread(self._vector, query_bundle)
        if vector is None:
            return _nodes(await self.retriever.asearch(query_bundle.query_str, **options))
        return _nodes(await self.retriever.asearch_by_vector(vector, text=self._text(query_bundle), **options))

    def _options(self) -> dict[str, Any]:
        return {"k": self.similarity_top_k} | self._fixed | search_options(self.retriever, self.filters)

    def _vector(self, query_bundle: QueryBundle) -> Any:
        """What to search for, where it is not just the text."""
        if query_bundle.embedding is not None or _plain(query_bundle):
            return query_bundle.embedding
        return np.mean(query_vectors(self.retriever.model, query_bundle.embedding_strs), axis=0)

    def _text(self, query_bundle: QueryBundle) -> str | None:
        """What a vector that came with the query must agree with."""
        if query_bundle.embedding is None:
            return None
        text = None if query_bundle.custom_embedding_strs else query_bundle.query_str
        return text_to_check(query_bundle.embedding, text, self.retriever.model)


def _plain(query_bundle: QueryBundle) -> bool:
    return query_bundle.embedding is None and not query_bundle.custom_embedding_strs


def _nodes(hits: list[Hit]) -> list[NodeWithScore]:
    return [NodeWithScore(node=to_llama_index(hit.document), score=hit.score) for hit in hits]


def _checked(query: Any) -> QueryType:
    if not isinstance(query, (str, QueryBundle)):
        raise InvalidQueryError("not a query", found=query, expected="a str or a QueryBundle")
    return query
