"""MLRRetriever: a Retriever as LangChain's BaseRetriever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import ConfigDict, model_validator

from mlr_rag.encoders import name_of
from mlr_rag.retriever import Retriever
from mlr_rag.searching import Search
from mlr_rag_langchain.documents import documents_of
from mlr_rag_langchain.options import FIELDS, searchable


class MLRRetriever(BaseRetriever):
    """The documents nearest to a query, by `Retriever.search`; a Runnable like every retriever of LangChain.

    Each field but `retriever` may be given to a call too, `invoke(query, k=2, filter={...})`, or be made configurable
    with `configurable_fields`. What goes wrong is raised, through the callbacks, and never an empty list.

    Args:
        retriever: The knowledge base.
        k, filter, min_score, diversity, candidates, mode: See `Retriever.search`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    retriever: Retriever
    k: int = 4
    filter: Mapping[str, Any] | None = None
    min_score: float | None = None
    diversity: float | None = None
    candidates: int | None = None
    mode: str = "dense"

    @model_validator(mode="after")
    def _check_options(self) -> MLRRetriever:
        Search.checked(**self._options({}))
        return self

    def _options(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS} | searchable(overrides)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **overrides: Any
    ) -> list[Document]:
        return documents_of(self.retriever.search(query, **self._options(overrides)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **overrides: Any
    ) -> list[Document]:
        return documents_of(await self.retriever.asearch(query, **self._options(overrides)))

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        named = super()._get_ls_params(**kwargs)
        model = self.retriever.model
        return LangSmithRetrieverParams(
            **named,
            ls_vector_store_provider=type(self.retriever.store).__name__,
            ls_embedding_provider=type(model).__name__,
            ls_embedding_model=name_of(model),
        )
