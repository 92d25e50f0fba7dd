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
from mlr_rag_llama_index.embeddings import made_by_another, text_to_check
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
        found: list[NodeWithScore] = _inner(BaseRetriever.retrieve)(self, _checked(str_or_query_bundle))
        return found

    async def aretrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """`retrieve`, without blocking the event loop."""
        found: list[NodeWithScore] = await _inner(BaseRetriever.aretrieve)(self, _checked(str_or_query_bundle))
        return found

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        arguments = self._arguments(query_bundle)
        search = self.retriever.search_by_vector if "vector" in arguments else self.retriever.search
        return _nodes(search(**arguments))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        arguments = await self._aarguments(query_bundle)
        search = self.retriever.asearch_by_vector if "vector" in arguments else self.retriever.asearch
        return _nodes(await search(**arguments))

    async def _aarguments(self, query_bundle: QueryBundle) -> dict[str, Any]:
        """The arguments of a search; what may take long is done in a thread."""
        quick = not query_bundle.custom_embedding_strs and not isinstance(self.filters, MetadataFilters)
        return self._arguments(query_bundle) if quick else await asyncio.to_thread(self._arguments, query_bundle)

    def _arguments(self, query_bundle: QueryBundle) -> dict[str, Any]:
        return self._asked(query_bundle) | self._options()

    def _options(self) -> dict[str, Any]:
        return {"k": self.similarity_top_k} | self._fixed | search_options(self.retriever, self.filters)

    def _asked(self, query: QueryBundle) -> dict[str, Any]:
        """What to search for: the arguments of `search`, or of `search_by_vector`."""
        model, vector = self.retriever.model, query.embedding
        if vector is not None and made_by_another(vector, model) and query.query_str.strip():
            vector = None  # another retriever of the same query has left it there
        if vector is not None:
            text = None if query.custom_embedding_strs else query.query_str
            return {"vector": vector, "text": text_to_check(vector, text, model)}
        if query.custom_embedding_strs:
            return {"vector": np.mean(query_vectors(model, query.custom_embedding_strs), axis=0)}
        return {"query": query.query_str}


def _nodes(hits: list[Hit]) -> list[NodeWithScore]:
    return [NodeWithScore(node=to_llama_index(hit.document), score=hit.score) for hit in hits]


def _checked(query: Any) -> QueryType:
    if not isinstance(query, (str, QueryBundle)):
        raise InvalidQueryError("not a query", found=type(query).__name__, expected="a str or a QueryBundle")
    return query


def _inner(method: Any) -> Any:
    """A method of the base without its span, as LlamaIndex gives ours one: else each call would be traced twice."""
    return getattr(method, "__wrapped__", method)
