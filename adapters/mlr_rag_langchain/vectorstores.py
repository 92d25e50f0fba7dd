"""MLRVectorStore: a Retriever as LangChain's VectorStore."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from mlr_rag import documents as own
from mlr_rag.documents import Hit
from mlr_rag.encoders import EmbeddingsEncoder, vectors_per_document
from mlr_rag.errors import InvalidDocumentError, InvalidQueryError
from mlr_rag.filters import is_number
from mlr_rag.frameworks import check_options, check_retriever
from mlr_rag.ingest import Report
from mlr_rag.retriever import Retriever
from mlr_rag_langchain.documents import documents_of, from_langchain, id_of, ids_of, to_langchain
from mlr_rag_langchain.embeddings import MLREmbeddings
from mlr_rag_langchain.options import searchable


class MLRVectorStore(VectorStore):
    """A collection on any store of ours, with LangChain's methods.

    Filters are the dicts of mlr_rag.filters, the same on every store. A score is a cosine in [-1, 1] and a relevance
    score (1 + cosine) / 2. Ids may be any strings, ints or UUIDs; documents without one get a hash of their content,
    and unchanged documents are not encoded again. Searches take the options of `Retriever.search`, and no others.

    Args:
        retriever: The collection and its model.
    """

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = check_retriever(retriever)
        self._embeddings: Embeddings | None = None

    @classmethod
    def open(cls, url: str | Path, embedding: Any = None) -> MLRVectorStore:
        """Open a collection, or make it where there is none.

        Args:
            url: As for `Retriever.open`: `./kb`, `memory:`, `qdrant://host:6333/name`, `chroma:./dir/name` and others.
            embedding: Any Embeddings of LangChain, a model, or its name; by default the collection's own.

        Raises:
            ModelMismatchError: the collection was made with another model.
        """
        return cls(Retriever.open(url, embedding))

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Any,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[Any] | None = None,
        url: str | Path = "memory:",
        **kwargs: Any,
    ) -> MLRVectorStore:
        """Open a collection and add texts; see `open` and `add_texts`."""
        check_options(kwargs, (), "from_texts", "texts, embedding, metadatas, ids, url")
        return cls(Retriever.from_documents(_documents(texts, metadatas, ids), url, embedding))

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        embedding: Any,
        *,
        ids: Iterable[Any] | None = None,
        url: str | Path = "memory:",
        **kwargs: Any,
    ) -> MLRVectorStore:
        """Open a collection and add documents; see `open` and `add_documents`."""
        check_options(kwargs, (), "from_documents", "documents, embedding, ids, url")
        return cls(Retriever.from_documents(_with_ids(documents, ids), url, embedding))

    @classmethod
    async def afrom_documents(cls, documents: Iterable[Document], embedding: Any, **options: Any) -> MLRVectorStore:
        """`from_documents`, without blocking the event loop."""
        return await asyncio.to_thread(cls.from_documents, documents, embedding, **options)

    @property
    def embeddings(self) -> Embeddings | None:
        """The collection's model as Embeddings; None for one with several vectors a document."""
        encoder = self.retriever.model
        if isinstance(encoder, EmbeddingsEncoder) and isinstance(encoder.embeddings, Embeddings):
            return encoder.embeddings
        if vectors_per_document(encoder) > 1:
            return None
        if getattr(self._embeddings, "encoder", None) is not encoder:  # a `reindex` came between
            self._embeddings = MLREmbeddings(encoder)
        return self._embeddings

    @property
    def namespace(self) -> str:
        """For a RecordManager of LangChain's: the collection's random id, so that no records of another one apply here.

        A collection that was deleted and made again, or made with another model, is another one; `reindex` moves all
        documents to another model, and leaves the records true.
        """
        return self.retriever.info().id

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, with as many metadatas and ids as there are texts, or none; returns their ids."""
        return self._add(_documents(texts, metadatas, ids), kwargs)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """`add_texts`, without blocking the event loop."""
        return await asyncio.to_thread(self.add_texts, texts, metadatas, ids=ids, **kwargs)

    def add_documents(
        self, documents: Iterable[Document], *, ids: Iterable[Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """Add documents, or replace those with the same ids; returns their ids.

        All are checked before anything is written; unchanged ones are not encoded.

        Args:
            documents: Any number.
            ids: One for each, before the documents' own; None where a document has none.
            kwargs: `batch_size`, which `index()` passes, has no effect: documents are encoded in batches of their own.

        Raises:
            InvalidDocumentError: one cannot be stored (DuplicateIdError: two different ones share an id).
        """
        return self._add(_with_ids(documents, ids), kwargs)

    async def aadd_documents(
        self, documents: Iterable[Document], *, ids: Iterable[Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """`add_documents`, without blocking the event loop."""
        return await asyncio.to_thread(self.add_documents, documents, ids=ids, **kwargs)

    def sync(
        self,
        documents: Iterable[Document],
        *,
        within: Mapping[str, Any] | None = None,
        keep: Callable[[own.Document], bool] | None = None,
    ) -> Report:
        """`add_documents`, then delete what did not come: `index(cleanup="full")` with no record manager.

        What is stored is compared by content, so that it may be killed and run again. See `Retriever.sync`.
        """
        return self.retriever.sync(from_langchain(documents), within=within, keep=keep)

    async def async_(self, documents: Iterable[Document], **options: Any) -> Report:
        """`sync`, without blocking the event loop; `async` itself is a word of Python."""
        return await self.retriever.async_(from_langchain(documents), **options)

    def delete(
        self, ids: Iterable[Any] | None = None, *, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> bool:
        """Delete by ids or by filter, exactly one of them: never everything by omission. Missing ids are no error."""
        check_options(kwargs, (), "delete", "ids or filter")
        self.retriever.delete(None if ids is None else ids_of(ids), filter=filter)
        return True

    async def adelete(
        self, ids: Iterable[Any] | None = None, *, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> bool:
        """`delete`, without blocking the event loop."""
        check_options(kwargs, (), "delete", "ids or filter")
        await self.retriever.adelete(None if ids is None else ids_of(ids), filter=filter)
        return True

    def get_by_ids(self, ids: Iterable[Any], /) -> list[Document]:
        """The documents with these ids, in this order; missing ones are left out."""
        return [to_langchain(document) for document in self.retriever.get(ids_of(ids))]

    async def aget_by_ids(self, ids: Iterable[Any], /) -> list[Document]:
        """`get_by_ids`, without blocking the event loop."""
        return [to_langchain(document) for document in await self.retriever.aget(ids_of(ids))]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k documents nearest to a query, best first.

        Args:
            query: A question or any text.
            k: How many, at the most.
            kwargs: `filter`, `min_score` and the other options of `Retriever.search`.
        """
        return documents_of(self.retriever.search(query, k, **searchable(kwargs)))

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """`similarity_search`, without blocking the event loop."""
        return documents_of(await self.retriever.asearch(query, k, **searchable(kwargs)))

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The same, each with its cosine to the query, in [-1, 1], higher is better."""
        return _scored(self.retriever.search(query, k, **searchable(kwargs)))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_with_score`, without blocking the event loop."""
        return _scored(await self.retriever.asearch(query, k, **searchable(kwargs)))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The documents nearest to a query's vector, which this collection's `embeddings` must have made."""
        return documents_of(self.retriever.search_by_vector(embedding, k, **searchable(kwargs)))

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """`similarity_search_by_vector`, without blocking the event loop."""
        return documents_of(await self.retriever.asearch_by_vector(embedding, k, **searchable(kwargs)))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Documents near to the query and not too near to each other (see mlr_rag.diversity).

        Args:
            query: A question or any text.
            k: How many, at the most.
            fetch_k: How many of the nearest to choose from.
            lambda_mult: 1 heeds nearness to the query only, 0 only the difference from those picked before.
            kwargs: As for `similarity_search`.
        """
        return documents_of(self.retriever.search(query, k, **_marginal(k, fetch_k, lambda_mult, kwargs)))

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search`, without blocking the event loop."""
        return documents_of(await self.retriever.asearch(query, k, **_marginal(k, fetch_k, lambda_mult, kwargs)))

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """The same, for a query's vector."""
        options = _marginal(k, fetch_k, lambda_mult, kwargs)
        return documents_of(self.retriever.search_by_vector(embedding, k, **options))

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search_by_vector`, without blocking the event loop."""
        options = _marginal(k, fetch_k, lambda_mult, kwargs)
        return documents_of(await self.retriever.asearch_by_vector(embedding, k, **options))

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """LangChain's own retriever over this store; `kb.as_langchain()` gives ours, which takes options as they are.

        Args:
            kwargs: `search_type` ("similarity", "mmr" or "similarity_score_threshold"), `search_kwargs` (a dict of
                options of that search), and the fields that every retriever has. LangChain would drop others silently.
        """
        check_options(kwargs, tuple(VectorStoreRetriever.model_fields), "as_retriever", "search_kwargs={...}")
        return super().as_retriever(**kwargs)

    def close(self) -> None:
        """Release the collection's files and locks."""
        self.retriever.close()

    def __enter__(self) -> MLRVectorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (1 + cosine) / 2

    def _add(self, documents: list[own.Document], options: Mapping[str, Any]) -> list[str]:
        check_options(options, ("batch_size",), "add", "ids")
        self.retriever.add(documents)
        return [document.id for document in documents]


def _documents(texts: Any, metadatas: Any, ids: Any) -> list[own.Document]:
    """Our documents of parallel lists."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise InvalidDocumentError("no texts", found=texts, expected="a list of texts")
    listed = list(texts)
    columns = [
        _parallel(metadatas, len(listed), "metadatas", lambda: {}),
        _parallel(ids, len(listed), "ids", lambda: None),
    ]
    made = []
    for place, (text, metadata, id) in enumerate(zip(listed, *columns, strict=True)):
        try:
            made.append(own.Document(text, "" if id is None else id_of(id), {} if metadata is None else metadata))
        except InvalidDocumentError as problem:
            raise problem.at(f"text {place:,}") from None
    return made


def _with_ids(documents: Any, ids: Any) -> list[own.Document]:
    made = list(from_langchain(documents))
    given = _parallel(ids, len(made), "ids", lambda: None)
    return [
        document if id is None else own.Document(document.text, id_of(id), document.metadata)
        for document, id in zip(made, given, strict=True)
    ]


def _parallel(values: Any, count: int, what: str, default: Callable[[], Any]) -> list[Any]:
    if values is None or values == []:  # as LangChain's own stores have it
        return [default() for _ in range(count)]
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidDocumentError(f"no {what}", found=values, expected=f"a list of {count:,}")
    listed = list(values)
    if len(listed) != count:
        raise InvalidDocumentError(f"not as many {what} as texts", found=len(listed), expected=count)
    return listed


def _scored(hits: Sequence[Hit]) -> list[tuple[Document, float]]:
    return [(to_langchain(hit.document), hit.score) for hit in hits]


def _marginal(k: Any, fetch_k: Any, lambda_mult: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """LangChain's words for maximal marginal relevance in ours."""
    if not (is_number(lambda_mult) and 0 <= lambda_mult <= 1):
        raise InvalidQueryError("lambda_mult is out of range", found=lambda_mult, expected="a number in [0, 1]")
    return {"diversity": 1 - lambda_mult, "candidates": fetch_k} | searchable(options)
