"""ChromaStore: a collection of Chroma's, by any of its clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from mlr_rag.filters import Filter, constant
from mlr_rag.stores import (
    Info,
    Match,
    Record,
    Vector,
    check_dimension,
    check_name,
    check_one_of,
    check_query,
    check_vectors,
    no_such_generation,
    sorted_matches,
)
from mlr_rag_chroma.conditions import translate
from mlr_rag_chroma.connection import Connection
from mlr_rag_chroma.failures import closed, filter_too_large
from mlr_rag_chroma.generation import Generation
from mlr_rag_chroma.generations import Generations
from mlr_rag_chroma.locations import MEMORY, folder_location, memory_location, server_location
from mlr_rag_chroma.opening import by_client, to_folder, to_memory, to_server
from mlr_rag_chroma.rows import batches, columns, content_hash, rows

_UPSERT = 256
_BYTES = 8 << 20  # of a batch: a server takes 40 MiB at once
_GET = 1000
_TIES = 1  # hits to ask for beyond k, to see whether the k-th ties with the next


class ChromaStore:
    """A collection in Chroma: in a folder, in memory or on a server.

    Search is by Chroma's approximate index: a near record may be missed, more often where many vectors are equal. Of a
    model that gives several vectors a document Chroma can hold only one, and such a collection is refused: as points of
    their own they would be counted, filtered, limited and deleted by the vector, not by the document.

    A folder belongs to one process at a time; handles in one process share it.

    Args:
        client: A chromadb client; it is not closed.
        name: The collection's; it is made where `dimension` is given.
        dimension: Length of the vectors; None opens only what exists.
        vectors_per_document: 1.

    Raises:
        StoreNotFoundError: nothing there, and no dimension to make it with.
        StoreLockedError: another process has the folder open.
        StoreCorruptError: somebody else's collection, which is left as it is.
        StoreUnavailableError, StoreDeniedError: of a server.
        ModelMismatchError: it holds vectors of another shape.
        UnsupportedModelError: several vectors a document.
        InvalidInputError: not a shape of vectors, not a collection's name, or a client that cannot be used.
    """

    def __init__(self, client: Any, name: str, dimension: int | None = None, vectors_per_document: int = 1) -> None:
        check_name(name)
        check_dimension(dimension, vectors_per_document)
        self._open(by_client(client), name, dimension, vectors_per_document)

    @classmethod
    def open(cls, location: str, *, dimension: int | None, vectors_per_document: int = 1) -> ChromaStore:
        """The store at `./folder/name`, `//host:8000/name`, `:memory:/name` or `:memory:`."""
        check_dimension(dimension, vectors_per_document)
        if location.startswith("//"):
            server, name = server_location(location, secure=False)
            connection = to_server(server)
        elif location.startswith(MEMORY):
            name = memory_location(location) or f"memory-{uuid.uuid4().hex}"
            connection = to_memory()
        else:
            folder, name = folder_location(location)
            connection = to_folder(folder, must_exist=dimension is None)
        return cls.by(connection, name, dimension, vectors_per_document)

    @classmethod
    def by(cls, connection: Connection, name: str, dimension: int | None, vectors_per_document: int) -> ChromaStore:
        """The store of this name at a connection."""
        store = object.__new__(cls)
        store._open(connection, name, dimension, vectors_per_document)
        return store

    def _open(self, connection: Connection, name: str, dimension: int | None, vectors_per_document: int) -> None:
        try:
            generations = Generations(connection, name)
            self._attach(connection, generations, generations.open_current(dimension, vectors_per_document))
        finally:
            connection.release()

    def _attach(self, connection: Connection, generations: Generations, mine: Generation) -> None:
        self._connection, self._generations, self._mine = connection.hold(), generations, mine
        self._closed, self.remote = False, connection.remote
        self.url, self.generation = generations.url, mine.number
        self.dimension, self.vectors_per_document = mine.dimension, mine.vectors_per_document

    @property
    def info(self) -> Info | None:
        """See VectorStore."""
        self._check_open()
        return self._mine.read_info()

    def write_info(self, info: Info) -> None:
        """See VectorStore."""
        with self._connection.lock:
            self._check_open()
            self._mine.write_info(info)

    def upsert(self, records: Sequence[Record]) -> None:
        """See VectorStore. A batch of up to 256 records is written whole or not at all."""
        self._check_open()
        check_vectors(records, self.dimension, self.vectors_per_document)
        for batch in batches(records, min(_UPSERT, self._connection.max_batch), _BYTES):
            with self._connection.lock:  # what one writer finds there must be what it replaces
                self._connection.check_space()
                stored = self._get([record.document.id for record in batch], ["metadatas"])
                known = dict(zip(stored["ids"], stored["metadatas"], strict=True))
                self._call("upsert", **columns(batch, known))

    def get(self, ids: Sequence[str], with_vectors: bool = False) -> list[Record]:
        """See VectorStore."""
        found = {record.document.id: record for part in _parts(ids) for record in self._records(part, with_vectors)}
        return [found[id] for id in ids if id in found]

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """See VectorStore."""
        found = [self._get(part, ["metadatas"]) for part in _parts(ids)]
        return {
            id: content_hash(metadata)
            for part in found
            for id, metadata in zip(part["ids"], part["metadatas"], strict=True)
        }

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None) -> int:
        """See VectorStore."""
        check_one_of(ids, filter)
        with self._connection.lock:
            if ids is None:
                there = self._ids(filter)
            else:
                there = [id for part in _parts(ids) for id in self._get(part, [])["ids"]]
            for part in _parts(there):
                self._call("delete", ids=part)
            return len(there)

    def query(self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False) -> list[Match]:
        """See VectorStore."""
        self._check_open()
        check_query(vector, self.dimension)
        if constant(filter) is False:
            return []
        include = ["documents", "metadatas", "distances", *(["embeddings"] if with_vectors else [])]
        limit = k + _TIES
        while True:
            found = self._call(
                "query", query_embeddings=[vector], n_results=limit, where=_where(filter), include=include
            )
            (distances,) = found["distances"]
            # Which of equal scores the engine leaves out is its choice; the contract says by id, so all must be seen.
            if len(distances) < limit or distances[k - 1] < distances[-1]:
                (metadatas,) = found["metadatas"]
                there = [place for place, metadata in enumerate(metadatas) if metadata is not None]  # still, that is
                columns = {name: found[name] for name in ("ids", "documents", "metadatas", "embeddings")}
                records = rows(
                    {name: column and [column[0][place] for place in there] for name, column in columns.items()}
                )
                scored = zip(records, (distances[place] for place in there), strict=True)
                return sorted_matches([Match(record, 1 - distance) for record, distance in scored])[:k]
            limit *= 4

    def count(self, filter: Filter | None = None) -> int:
        """See VectorStore."""
        if constant(filter):
            return int(self._call("count"))
        return len(self._ids(filter))

    def scan(
        self, filter: Filter | None = None, batch: int = 256, with_vectors: bool = False
    ) -> Iterator[list[Record]]:
        """See VectorStore. What is deleted meanwhile is left out, what is added may be."""
        # Chroma's own pages are counted from the first record: they would skip some when one before is deleted.
        for part in _parts(self._ids(filter), batch):
            records = self._records(part, with_vectors)
            if records:
                yield records

    def generations(self) -> list[int]:
        """See VectorStore."""
        self._check_open()
        return self._generations.numbers()

    def current(self) -> int:
        """See VectorStore."""
        self._check_open()
        return self._generations.current()

    def beside(self, generation: int, dimension: int | None = None, vectors_per_document: int = 1) -> ChromaStore:
        """See VectorStore."""
        check_dimension(dimension, vectors_per_document)
        with self._connection.lock:
            self._check_open()
            found = self._generations.find(generation, dimension, vectors_per_document)
            if found is None and dimension is None:
                raise no_such_generation(self, generation)
            if found is None:
                found = self._generations.make(generation, dimension or 0, vectors_per_document)
            handle = object.__new__(ChromaStore)
            handle._attach(self._connection, self._generations, found)
            return handle

    def switch(self, generation: int) -> None:
        """See VectorStore."""
        with self._connection.lock:
            self._check_open()
            if self._generations.find(generation, None, 1) is None:
                raise no_such_generation(self, generation)
            self._generations.switch(generation)

    def drop(self) -> None:
        """See VectorStore."""
        with self._connection.lock:
            self._check_open()
            if self.generation == self._generations.current():
                self._mine.read_info()  # raises where another handle has dropped it
                self._generations.drop()
            else:
                self._mine.delete()
            self.close()

    def close(self) -> None:
        """See VectorStore."""
        with self._connection.lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._connection.release()

    def _call(self, method: str, **arguments: Any) -> Any:
        """What a method of the Chroma collection returns."""
        self._check_open()
        return self._connection.call(getattr(self._mine.collection, method), **arguments)

    def _get(self, ids: list[str], include: list[str]) -> Any:
        return self._call("get", ids=ids, include=include)

    def _records(self, ids: list[str], with_vectors: bool) -> list[Record]:
        return rows(self._get(ids, ["documents", "metadatas", *(["embeddings"] if with_vectors else [])]))

    def _ids(self, filter: Filter | None) -> list[str]:
        if constant(filter) is False:
            self._check_open()
            return []
        ids: list[str] = self._call("get", where=_where(filter), include=[])["ids"]
        return ids

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self.url)


def _where(filter: Filter | None) -> dict[str, Any] | None:
    try:
        return None if filter is None or constant(filter) else translate(filter)
    except RecursionError:
        raise filter_too_large() from None


def _parts(ids: Sequence[str], size: int = _GET) -> Iterator[list[str]]:
    """The ids in parts, each once: Chroma takes neither an empty list nor one twice, and not too many."""
    once = list(dict.fromkeys(ids))
    for start in range(0, len(once), size):
        yield once[start : start + size]
