"""Retriever: a model and a store, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mlr_rag.admission import admit, recorded_model
from mlr_rag.documents import Document, Hit, check_id, check_text
from mlr_rag.encoders import Encoder, name_of, open_encoder, vectors_per_document
from mlr_rag.errors import (
    InvalidDocumentError,
    InvalidInputError,
    InvalidQueryError,
    StoreNotFoundError,
)
from mlr_rag.filters import Filter, constant, is_number, parse
from mlr_rag.ingest import Ingestion, Report, as_documents
from mlr_rag.passport import TOLERANCE
from mlr_rag.stores import VectorStore, check_one_of, open_store

logger = logging.getLogger(__name__)

_MANY = 10_000  # hits: above it k is compared with the count, as an engine sets room aside for so many


@dataclass(frozen=True)
class Info:
    """What a collection is.

    Attributes:
        url: Where it is.
        count: How many documents it holds.
        model: The name of the model that made its vectors.
        fingerprint: That model's sha256.
        recipe: Its layers and poolings.
        dimension: Length of the vectors.
        note: What was said when a model that is not quite the same was accepted; "" otherwise.
    """

    url: str
    count: int
    model: str
    fingerprint: str
    recipe: dict[str, Any]
    dimension: int
    note: str


class Retriever:
    """Add documents, search them, keep them in step with their source.

    The store's passport is checked against the model when it is opened, and the model against itself at every call,
    so a collection never holds vectors of two models. Safe to use from any thread; every method that works for long
    has a twin that starts with `a` and does not block the event loop.

    Args:
        model: An MLRModel, any SentenceTransformer, or LangChain Embeddings.
        store: Where the vectors live.
        tolerance: The canary cosine from which on a model with another fingerprint is accepted (see passport.py);
            written into the passport of a new collection.

    Raises:
        ModelMismatchError: the collection was made with another model.
    """

    def __init__(self, model: Any, store: VectorStore, *, tolerance: float = TOLERANCE) -> None:
        self._encoder: Encoder = open_encoder(model)
        self._store = store
        self._passport, self._note = admit(self._encoder, store, tolerance)
        self._fingerprint = self._encoder.fingerprint
        if self._note:
            logger.warning("%s: %s", store.url, self._note)

    @classmethod
    def open(cls, url: str | Path, model: Any = None, *, tolerance: float = TOLERANCE) -> Retriever:
        """Open a collection, or make it where there is none.

        Args:
            url: `./kb` or `edge:./kb` (a folder), `memory:`.
            model: As above, or a name or folder. By default the model in the collection's passport, and for a new
                collection sentence-transformers/all-MiniLM-L6-v2.
            tolerance: As above.
        """
        if not isinstance(url, (str, Path)) or not str(url):
            raise InvalidInputError("not a place for a collection", found=repr(url)[:80], expected="a folder or a URL")
        store: VectorStore | None
        try:
            store = open_store(str(url))
        except StoreNotFoundError:
            store = None
        try:
            encoder = open_encoder(*((model,) if model is not None else recorded_model(store)))
            if store is None:
                several = vectors_per_document(encoder)
                store = open_store(str(url), dimension=encoder.dimension, vectors_per_document=several)
            return cls(encoder, store, tolerance=tolerance)
        except BaseException:
            if store is not None:
                store.close()
            raise

    @classmethod
    async def aopen(cls, url: str | Path, model: Any = None, *, tolerance: float = TOLERANCE) -> Retriever:
        """`open`, without blocking the event loop."""
        return await asyncio.to_thread(cls.open, url, model, tolerance=tolerance)

    @property
    def model(self) -> Any:
        """The encoder."""
        return self._encoder

    @property
    def store(self) -> VectorStore:
        """The store."""
        return self._store

    def add(self, documents: str | Document | Iterable[str | Document], *, show_progress: bool | None = None) -> Report:
        """Add documents; those that are there unchanged are skipped before encoding, changed ones replaced.

        A list is checked whole before anything is written. An iterable is streamed in windows: it may be endless, and
        whatever stops it, each written batch is durable and will be skipped when the same is added again.

        Args:
            documents: Texts or Documents.
            show_progress: Show a progress bar; by default on a terminal.

        Raises:
            InvalidDocumentError: a document cannot be stored (DuplicateIdError: two share an id).
            ModelMismatchError: the model has changed since the collection was opened.
        """
        return self._ingest(documents, show_progress)[1]

    def sync(
        self,
        documents: Iterable[str | Document],
        *,
        within: Mapping[str, Any] | None = None,
        keep: Callable[[Document], bool] | None = None,
        show_progress: bool | None = None,
    ) -> Report:
        """`add`, then delete the documents that did not come: afterwards the collection is what was passed.

        Args:
            documents: All of them. If reading them fails nothing is deleted.
            within: A filter: only documents that match it are deleted, such as one folder's.
            keep: Asked of each document that did not come: True keeps it, such as what a file held that cannot be read.
            show_progress: As for `add`.

        Raises:
            InvalidInputError: no documents came; that would delete everything.
        """
        condition = parse(within)
        started = time.perf_counter()
        run, report = self._ingest(documents, show_progress)
        if report.added + report.updated + report.skipped == 0:
            raise InvalidInputError(
                "sync of no documents would delete all of them",
                found="an empty source",
                expected="at least one document",
                remedy="Check the source; to empty a collection use delete().",
            )
        gone = [
            record.document.id
            for batch in self._store.scan(condition, batch=2048)
            for record in batch
            if record.document.id not in run.seen and not (keep and keep(record.document))
        ]
        deleted = self._store.delete(ids=gone) if gone else 0
        return replace(report, deleted=deleted, seconds=time.perf_counter() - started)

    def search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
    ) -> list[Hit]:
        """The k documents nearest to a query, best first.

        Args:
            query: A question or any text.
            k: How many, at the most.
            filter: Which documents may be found (see mlr_rag.filters).
            min_score: Leave out hits with a lower score than this; scores are cosines in [-1, 1].

        Raises:
            InvalidQueryError, InvalidFilterError, ModelMismatchError.
        """
        if not isinstance(query, str):
            raise InvalidQueryError("a query is not a string", found=query, expected="str", remedy="Use search_many.")
        return self.search_many([query], k, filter=filter, min_score=min_score)[0]

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
    ) -> list[list[Hit]]:
        """`search` for several queries, encoded together; one list of hits for each."""
        if isinstance(queries, (str, bytes)) or not isinstance(queries, Iterable):
            raise InvalidQueryError(
                "no list of queries", found=queries, expected="a list", remedy="Use search for one."
            )
        texts = list(queries)
        for text in texts:
            check_text(text, "a query", InvalidQueryError)
        condition = _check_search(k, filter, min_score)
        self._check_model()
        if not texts:
            return []
        vectors = np.asarray(self._encoder.encode_query(texts), np.float32)
        k = min(int(k), max(1, self._store.count())) if k > _MANY else int(k)
        return [self._find(vector, k, condition, min_score) for vector in vectors]

    def get(self, ids: str | Sequence[str]) -> list[Document]:
        """The documents with these ids, in this order; missing ones are left out."""
        return [record.document for record in self._store.get(_ids(ids))]

    def delete(self, ids: str | Sequence[str] | None = None, *, filter: Mapping[str, Any] | None = None) -> int:
        """Delete by ids or by filter, exactly one of them; returns how many documents there were.

        Raises:
            InvalidInputError: neither, both, or a filter that matches everything.
        """
        condition = parse(filter)
        if filter is not None and constant(condition):
            raise InvalidInputError(
                "this filter matches every document", found=filter, expected="a condition", remedy="Delete by ids."
            )
        check_one_of(ids, condition)
        return self._store.delete(None if ids is None else _ids(ids), condition)

    def count(self, filter: Mapping[str, Any] | None = None) -> int:
        """How many documents there are, or match a filter."""
        return self._store.count(parse(filter))

    def info(self) -> Info:
        """What this collection is, and which model made it."""
        passport = self._passport
        return Info(
            url=self._store.url,
            count=self._store.count(),
            model=passport.model,
            fingerprint=passport.digest,
            recipe=passport.recipe,
            dimension=passport.dimension,
            note=self._note,
        )

    def close(self) -> None:
        """Release the store's files and locks; calling it again does nothing."""
        self._store.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Retriever({self._store.url!r}, model={name_of(self._encoder)!r})"

    async def aadd(
        self, documents: str | Document | Iterable[str | Document], *, show_progress: bool | None = None
    ) -> Report:
        """`add`, without blocking the event loop; the documents are read in a worker thread."""
        return await asyncio.to_thread(self.add, documents, show_progress=show_progress)

    async def async_(self, documents: Iterable[str | Document], **options: Any) -> Report:
        """`sync`, without blocking the event loop; `async` itself is a word of Python."""
        return await asyncio.to_thread(self.sync, documents, **options)

    async def asearch(self, query: str, k: int = 4, **options: Any) -> list[Hit]:
        """`search`, without blocking the event loop."""
        return await asyncio.to_thread(self.search, query, k, **options)

    async def asearch_many(self, queries: Sequence[str], k: int = 4, **options: Any) -> list[list[Hit]]:
        """`search_many`, without blocking the event loop."""
        return await asyncio.to_thread(self.search_many, queries, k, **options)

    async def aget(self, ids: str | Sequence[str]) -> list[Document]:
        """`get`, without blocking the event loop."""
        return await asyncio.to_thread(self.get, ids)

    async def adelete(self, ids: str | Sequence[str] | None = None, *, filter: Mapping[str, Any] | None = None) -> int:
        """`delete`, without blocking the event loop."""
        return await asyncio.to_thread(self.delete, ids, filter=filter)

    async def ainfo(self) -> Info:
        """`info`, without blocking the event loop."""
        return await asyncio.to_thread(self.info)

    async def acount(self, filter: Mapping[str, Any] | None = None) -> int:
        """`count`, without blocking the event loop."""
        return await asyncio.to_thread(self.count, filter)

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Retriever:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def _ingest(self, documents: Any, show_progress: bool | None) -> tuple[Ingestion, Report]:
        started = time.perf_counter()
        checked = as_documents(documents)
        self._check_model()
        run = Ingestion(self._encoder, self._store, show_progress)
        run.run(checked)
        total = run.added + run.updated
        log_cut = getattr(self._encoder, "log_cut", None)
        if run.cut and log_cut is not None:
            log_cut(run.cut, total)
        return run, Report(run.added, run.updated, run.skipped, 0, run.cut, time.perf_counter() - started)

    def _find(self, vector: Any, k: int, condition: Filter | None, min_score: float | None) -> list[Hit]:
        found = self._store.query(vector, k, condition)
        return [
            Hit(match.record.document, match.score) for match in found if min_score is None or match.score >= min_score
        ]

    def _check_model(self) -> None:
        """Refuse to go on with a model whose weights or settings have changed since the last check."""
        if self._encoder.fingerprint == self._fingerprint:
            return
        self._note = self._passport.admit(self._encoder, self._store.url)
        self._fingerprint = self._encoder.fingerprint
        if self._note:
            logger.warning("%s: %s", self._store.url, self._note)


def _ids(ids: Any) -> list[str]:
    if not isinstance(ids, Iterable) or isinstance(ids, (bytes, Mapping)):
        raise InvalidDocumentError("no ids", found=f"{type(ids).__name__} {ids!r:.80}", expected="an id, or a list")
    listed = [ids] if isinstance(ids, str) else list(ids)
    for id in listed:
        check_id(id)
    return listed


def _check_search(k: Any, filter: Mapping[str, Any] | None, min_score: Any) -> Filter | None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InvalidQueryError("k is not a number of documents", found=k, expected="an int of 1 or more")
    if min_score is not None and not (is_number(min_score) and -1 <= min_score <= 1):
        raise InvalidQueryError("min_score is not a cosine", found=min_score, expected="a number in [-1, 1]")
    return parse(filter)
