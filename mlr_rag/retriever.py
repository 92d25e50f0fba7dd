"""Retriever: a model and a store, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mlr_rag import comparison, frameworks, migration
from mlr_rag.admission import Pair, collection_id
from mlr_rag.comparison import Queries
from mlr_rag.copying import Copy, copy
from mlr_rag.documents import Document, Hit, check_ids
from mlr_rag.encoders import name_of, open_encoder, vectors_per_document
from mlr_rag.errors import (
    InvalidInputError,
    InvalidQueryError,
    StoreError,
    StoreNotFoundError,
)
from mlr_rag.filters import Filter, constant, parse
from mlr_rag.gate import gate_of
from mlr_rag.ingest import Ingestion, Report, as_documents
from mlr_rag.migration import Migration
from mlr_rag.passport import TOLERANCE
from mlr_rag.readymade import check_document_vectors, unit_rows
from mlr_rag.searching import Query, Readymade, Search
from mlr_rag.stores import Vector, VectorStore, check_one_of, open_store

if TYPE_CHECKING:
    from mlr_rag_langchain import MLRRetriever as LangChainRetriever
    from mlr_rag_llama_index import MLRRetriever as LlamaIndexRetriever


@dataclass(frozen=True)
class Info:
    """What a collection is.

    Attributes:
        url: Where it is.
        id: A random name, which tells it from any other that is or was at this place; a `reindex` does not change it.
        count: How many documents it holds.
        model: The name of the model that made its vectors.
        fingerprint: That model's sha256.
        recipe: Its layers and poolings.
        dimension: Length of the vectors.
        generation: Which generation of the collection this retriever uses: 1, until a `reindex`.
        note: What was said when a model that is not quite the same was accepted; "" otherwise.
    """

    url: str
    id: str
    count: int
    model: str
    fingerprint: str
    recipe: dict[str, Any]
    dimension: int
    generation: int
    note: str


class Retriever:
    """Add documents, search them, keep them in step with their source.

    The store's passport is checked against the model when it is opened, and the model against itself at every call,
    so a collection never holds vectors of two models. Safe to use from any thread; every method that works for long
    has a twin that starts with `a` and does not block the event loop.

    Args:
        model: An MLRModel, any SentenceTransformer, or LangChain Embeddings; None for the one that `open` would find.
        store: Where the vectors live.
        tolerance: The canary cosine from which on a model with another fingerprint is accepted (see passport.py);
            written into the passport of a new collection.

    Raises:
        ModelMismatchError: the collection was made with another model.
    """

    def __init__(self, model: Any, store: VectorStore, *, tolerance: float = TOLERANCE) -> None:
        self._pair = Pair(None if model is None else open_encoder(model), store, tolerance)
        self._left: list[VectorStore] = []  # what migrations moved away from: a search may still be under way there
        self._gate = gate_of(store)

    @classmethod
    def open(cls, url: str | Path, model: Any = None, *, tolerance: float = TOLERANCE) -> Retriever:
        """Open a collection, or make it where there is none.

        Args:
            url: `./kb` or `edge:./kb` (a folder), `memory:`, `qdrant://host:6333/name`, `chroma:./dir/name`,
                `chroma://host:8000/name` and others (see the README); a Path is a folder.
            model: As above, or a name or folder. By default the model in the collection's passport (embeddings of
                another library must be passed again, and so must a model that was adapted and not saved), and for a new
                collection sentence-transformers/all-MiniLM-L6-v2.
            tolerance: As above.
        """
        if not isinstance(url, (str, Path)) or not str(url):
            raise InvalidInputError("not a place for a collection", found=repr(url)[:80], expected="a folder or a URL")
        store: VectorStore | None
        url = f"edge:{url}" if isinstance(url, Path) else url
        try:
            store = open_store(url)
        except StoreNotFoundError:
            store = None
        try:
            if store is None:
                model = encoder = open_encoder(model)
                several = vectors_per_document(encoder)
                store = open_store(url, dimension=encoder.dimension, vectors_per_document=several)
            return cls(model, store, tolerance=tolerance)
        except BaseException:
            if store is not None:
                store.close()
            raise

    @classmethod
    async def aopen(cls, url: str | Path, model: Any = None, *, tolerance: float = TOLERANCE) -> Retriever:
        """`open`, without blocking the event loop."""
        return await asyncio.to_thread(cls.open, url, model, tolerance=tolerance)

    @classmethod
    def from_documents(
        cls, documents: Iterable[str | Document], url: str | Path = "memory:", model: Any = None
    ) -> Retriever:
        """Open a collection and add documents to it, or close it again; see `open` and `add`."""
        checked = list(as_documents(documents))
        retriever = cls.open(url, model)
        try:
            retriever.add(checked)
        except BaseException:
            retriever.close()
            raise
        return retriever

    @classmethod
    def from_langchain_documents(
        cls, documents: Iterable[Any], url: str | Path = "memory:", model: Any = None
    ) -> Retriever:
        """Open a collection and add LangChain's Documents to it; see `open` and `add`."""
        return cls.from_documents(frameworks.adapter("langchain").from_langchain(documents), url, model)

    @classmethod
    def from_llama_index_nodes(cls, nodes: Iterable[Any], url: str | Path = "memory:", model: Any = None) -> Retriever:
        """Open a collection and add LlamaIndex's nodes to it; see `open` and `add`."""
        return cls.from_documents(frameworks.adapter("llama-index").from_llama_index(nodes), url, model)

    @property
    def model(self) -> Any:
        """The encoder."""
        return self._pair.encoder

    @property
    def store(self) -> VectorStore:
        """The store."""
        return self._pair.store

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

    def add_vectors(
        self, documents: Iterable[str | Document], vectors: Any, *, show_progress: bool | None = None
    ) -> Report:
        """`add` with the documents' vectors, which this collection's model has made elsewhere.

        The first and the last document are encoded again, to see that it has.

        Args:
            documents: Texts or Documents.
            vectors: `(n, D)`, or `(n, m, D)` for several vectors a document; of any length but zero. Of a document that
                comes twice, the first one counts.
            show_progress: As for `add`.

        Raises:
            ModelMismatchError: another model, or this one's query side, made the vectors.
        """
        listed = list(as_documents(documents))
        pair = self._pair
        pair.check_model()
        several = (pair.store.vectors_per_document,) if pair.store.vectors_per_document > 1 else ()
        rows = unit_rows(vectors, (len(listed), *several, pair.store.dimension))
        first: dict[str, tuple[Document, Vector]] = {}  # of a document that comes twice
        for document, row in zip(listed, rows, strict=True):
            first.setdefault(document.id, (document, row))
        check_document_vectors(pair, list(first.values()))
        return self._ingest(listed, show_progress, (pair, {id: row for id, (_, row) in first.items()}))[1]

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
            for batch in self.store.scan(condition, batch=2048)
            for record in batch
            if record.document.id not in run.seen and not (keep and keep(record.document))
        ]
        deleted = self._delete(gone, None) if gone else 0
        return replace(report, deleted=deleted, seconds=time.perf_counter() - started)

    def search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        diversity: float | None = None,
        candidates: int | None = None,
        mode: str = "dense",
        ids: str | Sequence[str] | None = None,
    ) -> list[Hit]:
        """The k documents nearest to a query, best first.

        Args:
            query: A question or any text.
            k: How many, at the most.
            filter: Which documents may be found (see mlr_rag.filters).
            min_score: Leave out hits with a lower score than this; scores are cosines in [-1, 1].
            diversity: From 0, the nearest ones as ever, to 1: choose hits that differ from each other, in the order
                in which they were chosen (see mlr_rag.diversity); scores stay cosines to the query.
            candidates: How many of the nearest to choose from with `diversity`; by default 5 k, at least 20.
            mode: How to search; "dense", by vectors, is what there is.
            ids: Only these documents may be found.

        Raises:
            InvalidQueryError, InvalidFilterError, ModelMismatchError.
        """
        search = Search.checked(k, filter, min_score, diversity, candidates, mode, ids)
        return self._search([_query(query)], search)[0]

    def search_many(self, queries: Sequence[str], k: int = 4, **options: Any) -> list[list[Hit]]:
        """`search` for several queries, encoded together; one list of hits for each. Same options."""
        return self._search(_queries(queries), Search.checked(k, **options))

    def search_by_vector(self, vector: Any, k: int = 4, *, text: str | None = None, **options: Any) -> list[Hit]:
        """`search` with a query's vector that was made elsewhere.

        Args:
            vector: `(D,)` numbers, of any length but zero.
            k: How many, at the most.
            text: What the vector stands for. It is encoded, and the two must agree; without it the vector is trusted.
            options: Those of `search`.

        Raises:
            ModelMismatchError: another model, or this one's document side, made the vector.
        """
        return self._search([Readymade(vector, text)], Search.checked(k, **options))[0]

    def get(self, ids: str | Sequence[str]) -> list[Document]:
        """The documents with these ids, in this order; missing ones are left out."""
        return [record.document for record in self.store.get(check_ids(ids))]

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
        return self._delete(None if ids is None else check_ids(ids), condition)

    def count(self, filter: Mapping[str, Any] | None = None) -> int:
        """How many documents there are, or match a filter."""
        return self.store.count(parse(filter))

    def info(self) -> Info:
        """What this collection is, and which model made it."""
        pair = self._pair
        passport = pair.passport
        return Info(
            url=pair.store.url,
            id=collection_id(pair.store),
            count=pair.store.count(),
            model=passport.model,
            fingerprint=passport.digest,
            recipe=passport.recipe,
            dimension=passport.dimension,
            generation=pair.store.generation,
            note=pair.note,
        )

    def reindex(
        self,
        model: Any,
        *,
        compare: Queries | None = None,
        switch: bool = True,
        show_progress: bool | None = None,
    ) -> Migration:
        """Move the collection to another model: beside the old vectors, then switch at once, for searches and writes.

        Searches and writes go on meanwhile, and documents added meanwhile reach both; writes wait for a last pass over
        the collection, just before the switch. Interrupted at any instant, it goes on where it was when it is called
        again. The old vectors stay until `prune`, for `rollback`. Other open
        retrievers of the collection go on searching the old ones, and are told to open it again when they write.

        Args:
            model: The new model, or its name or folder.
            compare: Queries, or judgments (query → document id → grade), to ask both models before the switch.
            switch: False stops before the switch, to look at the comparison; calling again then takes little time.
            show_progress: As for `add`.

        Raises:
            StoreLockedError: another migration of this collection is running.
        """
        old = self._pair
        if compare is not None:
            comparison.check_queries(compare)
            old.check_model()
        return migration.reindex(
            old.store,
            open_encoder(model),
            compare=None if compare is None else lambda new: comparison.compare(old, new, compare),
            switch=switch,
            adopt=self._adopt,
            show_progress=show_progress,
        )

    def rollback(self, model: Any = None, *, show_progress: bool | None = None) -> Migration:
        """Undo the last `reindex`: the vectors from before it are current again.

        What was added or deleted since is brought over first, so that no document is lost; if nothing was, every
        answer is what it was before. Going forward again is `reindex` with the newer model. A `reindex` that changed
        the query side alone left no older vectors, and `reindex` with the older model undoes it.

        Args:
            model: The older model; by default the one in the passport of its vectors.
            show_progress: As for `add`.

        Raises:
            StoreNotFoundError: there was no `reindex`, or its old vectors were pruned.
        """
        return migration.rollback(self.store, model, adopt=self._adopt, show_progress=show_progress)

    def prune(self) -> int:
        """Delete the vectors that migrations left behind, finished or not; returns how many generations there were."""
        deleted = migration.prune(self.store)
        while self._left:
            self._left.pop().close()
        return deleted

    def copy_to(self, target: str | Path | VectorStore, *, show_progress: bool | None = None) -> Copy:
        """Copy the collection to another store, passport and vectors as they are, and compare every record.

        Nothing is encoded. Interrupted, it goes on where it was when it is called again.

        Args:
            target: A URL, or a store, where there is no collection yet, or an unfinished copy of this one.
            show_progress: As for `add`.

        Raises:
            StoreError: there is another collection, or the records still differ after a few passes.
        """
        return copy(self.store, target, show_progress)

    def as_langchain(self, k: int = 4, **options: Any) -> LangChainRetriever:
        """This as a retriever of LangChain's: a Runnable, for chains and agents.

        Args:
            k: How many documents.
            options: Others of `search`, and the fields that every retriever of LangChain's has.

        Raises:
            MissingExtraError: langchain-core is not installed.
        """
        retriever: LangChainRetriever = frameworks.adapter("langchain").MLRRetriever(retriever=self, k=k, **options)
        return retriever

    def as_llama_index(self, similarity_top_k: int = 4, **options: Any) -> LlamaIndexRetriever:
        """This as a retriever of LlamaIndex's, for query engines and agents.

        Args:
            similarity_top_k: How many nodes.
            options: Others of mlr_rag_llama_index.MLRRetriever.

        Raises:
            MissingExtraError: llama-index-core is not installed.
        """
        retriever: LlamaIndexRetriever = frameworks.adapter("llama-index").MLRRetriever(
            self, similarity_top_k=similarity_top_k, **options
        )
        return retriever

    def close(self) -> None:
        """Release the store's files and locks; calling it again does nothing."""
        for store in (*self._left, self.store):
            store.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Retriever({self.store.url!r}, model={name_of(self.model)!r})"

    async def aadd(
        self, documents: str | Document | Iterable[str | Document], *, show_progress: bool | None = None
    ) -> Report:
        """`add`, without blocking the event loop; a thread reads and writes, and goes on when this is cancelled."""
        return await asyncio.to_thread(self.add, documents, show_progress=show_progress)

    async def aadd_vectors(
        self, documents: Iterable[str | Document], vectors: Any, *, show_progress: bool | None = None
    ) -> Report:
        """`add_vectors`, without blocking the event loop."""
        return await asyncio.to_thread(self.add_vectors, documents, vectors, show_progress=show_progress)

    async def async_(self, documents: Iterable[str | Document], **options: Any) -> Report:
        """`sync`, without blocking the event loop; `async` itself is a word of Python."""
        return await asyncio.to_thread(self.sync, documents, **options)

    async def asearch(self, query: str, k: int = 4, **options: Any) -> list[Hit]:
        """`search`, without blocking the event loop."""
        return (await self._asearch([_query(query)], Search.checked(k, **options)))[0]

    async def asearch_many(self, queries: Sequence[str], k: int = 4, **options: Any) -> list[list[Hit]]:
        """`search_many`, without blocking the event loop."""
        return await self._asearch(_queries(queries), Search.checked(k, **options))

    async def asearch_by_vector(self, vector: Any, k: int = 4, *, text: str | None = None, **options: Any) -> list[Hit]:
        """`search_by_vector`, without blocking the event loop."""
        return (await self._asearch([Readymade(vector, text)], Search.checked(k, **options)))[0]

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

    async def areindex(self, model: Any, **options: Any) -> Migration:
        """`reindex`, without blocking the event loop; its thread goes on, and switches, when this is cancelled."""
        return await asyncio.to_thread(self.reindex, model, **options)

    async def arollback(self, model: Any = None, **options: Any) -> Migration:
        """`rollback`, without blocking the event loop."""
        return await asyncio.to_thread(self.rollback, model, **options)

    async def aprune(self) -> int:
        """`prune`, without blocking the event loop."""
        return await asyncio.to_thread(self.prune)

    async def acopy_to(self, target: str | Path | VectorStore, **options: Any) -> Copy:
        """`copy_to`, without blocking the event loop."""
        return await asyncio.to_thread(self.copy_to, target, **options)

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Retriever:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def _ingest(
        self, documents: Any, show_progress: bool | None, readymade: tuple[Pair, Mapping[str, Vector]] | None = None
    ) -> tuple[Ingestion, Report]:
        started = time.perf_counter()
        checked = as_documents(documents)
        self._pair.check_model()
        run = Ingestion(lambda: self._pair, self._gate, show_progress, readymade=readymade)
        run.run(checked)
        total = run.added + run.updated
        log_cut = getattr(self.model, "log_cut", None)
        if run.cut and log_cut is not None:
            log_cut(run.cut, total)
        return run, Report(run.added, run.updated, run.skipped, 0, run.cut, time.perf_counter() - started)

    def _delete(self, ids: list[str] | None, condition: Filter | None) -> int:
        with self._gate.shared():
            pair = self._pair
            deleted = pair.store.delete(ids, condition)
            pair.check_written()
            return deleted

    def _search(self, queries: Sequence[Query], search: Search) -> list[list[Hit]]:
        while True:
            pair = self._pair
            try:
                return search.run(pair, queries)
            except StoreError:
                if pair is self._pair:
                    raise
                # A migration came between, and what it left was pruned: search what is current now.

    async def _asearch(self, queries: Sequence[Query], search: Search) -> list[list[Hit]]:
        while True:
            pair = self._pair
            try:
                return await search.arun(pair, queries)
            except StoreError:
                if pair is self._pair:
                    raise

    def _adopt(self, pair: Pair) -> None:
        if pair.store is not self.store:
            self._left.append(self.store)
        self._pair = pair


def _query(query: Any) -> str:
    if not isinstance(query, str):
        remedy = "Use search_many for several." if isinstance(query, Sequence) else ""
        found = f"{type(query).__name__} {query!r:.80}"
        raise InvalidQueryError("a query is not a string", found=found, expected="str", remedy=remedy)
    return query


def _queries(queries: Any) -> list[str]:
    if isinstance(queries, (str, bytes)) or not isinstance(queries, Iterable):
        raise InvalidQueryError("no list of queries", found=queries, expected="a list", remedy="Use search for one.")
    return list(queries)
