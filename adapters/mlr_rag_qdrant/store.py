"""QdrantStore: a collection in Qdrant, wherever that runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from mlr_rag.errors import InvalidInputError, StoreClosedError, StoreNotFoundError
from mlr_rag.filters import Filter, matches
from mlr_rag.stores import (
    Info,
    Match,
    Record,
    Vector,
    check_name,
    check_one_of,
    check_query,
    check_vectors,
    no_such_generation,
)
from mlr_rag_qdrant.conditions import translate
from mlr_rag_qdrant.connection import COUNTING, Connection
from mlr_rag_qdrant.description import INFO, Description
from mlr_rag_qdrant.generations import Generations
from mlr_rag_qdrant.locations import Location, Memory, of_client, parse
from mlr_rag_qdrant.opening import connect
from mlr_rag_qdrant.options import QdrantOptions
from mlr_rag_qdrant.points import SHOWN, batches, namespace, point, point_id, record
from mlr_rag_qdrant.search import Search

Result = TypeVar("Result")

_IDS = 1024  # of a request
_PAGE = 2048  # points of a scan to ask local mode for, as it sorts the whole collection for each request
_LOOK = 50  # try a filter on one point in so many first, the nearest: local mode takes 10 µs a point to try them all


class QdrantStore:
    """A collection on a Qdrant server or cluster, or in qdrant-client's local mode.

    Several stores, threads and processes may use one collection of a server at once. Local mode is for one process,
    and compares each query with every vector; see EdgeStore for an embedded store that does not.

    Args:
        client: Your own client; it is not closed. A local one must not be used by other threads meanwhile.
        name: The collection's: an alias of that name, and `name--1` and so on behind it.
        dimension: Length of the vectors; None opens only what exists.
        vectors_per_document: More than one stores each document's layers and scores by the best of them.
        async_client: For `aquery`; None makes one with the options of `client`.
        options: See QdrantOptions.

    Raises:
        StoreNotFoundError: nothing there, and no dimension to make it with.
        StoreUnavailableError, StoreDeniedError: the server does not answer, or not to us.
        StoreCorruptError: the name is taken by something that mlr_rag did not make.
        ModelMismatchError: it holds vectors of another shape.
    """

    def __init__(
        self,
        client: QdrantClient,
        name: str,
        dimension: int | None = None,
        vectors_per_document: int = 1,
        *,
        async_client: AsyncQdrantClient | None = None,
        **options: Any,
    ) -> None:
        check_name(name)
        location, chosen = of_client(client, name), QdrantOptions.of(options)
        connection = Connection(client, location.place, async_client=async_client)
        connection.acquire()
        self._open(connection, location, dimension, vectors_per_document, chosen)

    @classmethod
    def open(
        cls, location: str, *, dimension: int | None, vectors_per_document: int = 1, timeout: int = 60, **options: Any
    ) -> QdrantStore:
        """The store at the part of a URL after `qdrant:`, such as `:memory:`, `./folder/name` or `//host:6333/name`.

        Args:
            location: Where; a server's API key comes from the environment, QDRANT_API_KEY.
            dimension: Length of the vectors; None opens only what exists.
            vectors_per_document: How many each document has.
            timeout: Seconds to wait for each answer of a server.
            options: See QdrantOptions.
        """
        return cls.at(parse(location), dimension, vectors_per_document, timeout, **options)

    @classmethod
    def at(
        cls,
        location: Location,
        dimension: int | None,
        vectors_per_document: int = 1,
        timeout: int = 60,
        **options: Any,
    ) -> QdrantStore:
        """`open`, where the location was read already."""
        if isinstance(location, Memory) and dimension is None:
            raise StoreNotFoundError("a collection in memory is always new", remedy="Open it with a model.")
        chosen = QdrantOptions.of(options)
        store = object.__new__(cls)
        connection = connect(location, timeout, must_exist=dimension is None)
        store._open(connection, location, dimension, vectors_per_document, chosen)
        return store

    def _open(
        self,
        connection: Connection,
        location: Location,
        dimension: int | None,
        vectors_per_document: int,
        options: QdrantOptions,
    ) -> None:
        try:
            generations = Generations(connection, location.name, location.url, options)
            generation, found = generations.open(dimension, vectors_per_document)
        except BaseException:
            connection.release()
            raise
        self._attach(connection, generations, options, generation, found)

    def _attach(
        self,
        connection: Connection,
        generations: Generations,
        options: QdrantOptions,
        generation: int,
        found: Description,
    ) -> None:
        self.url, self.generation = generations.url, generation
        self.dimension, self.vectors_per_document = found.dimension, found.vectors_per_document
        self._connection, self._generations, self._options = connection, generations, options
        self._physical = generations.physical(generation)
        self._name = self._physical.name
        self._tenant, self._space = options.tenant, namespace(options.tenant)
        self._search_params = options.search() if connection.remote else None
        self.identity = (self.url, connection.memory)
        self._closed, self.remote = False, connection.remote

    @property
    def info(self) -> Info | None:
        """See VectorStore."""
        return self._description().info

    def write_info(self, info: Info) -> None:
        """See VectorStore."""
        self._call(lambda client: client.update_collection(self._name, metadata={INFO: json.dumps(info)}))

    def upsert(self, records: Sequence[Record]) -> None:
        """See VectorStore. A server writes a batch of up to 256 records whole or not at all; local mode a record."""
        self._check_open()
        check_vectors(records, self.dimension, self.vectors_per_document)
        for batch in batches(records):
            self._write([point(record, self._space, self._tenant) for record in batch])

    def get(self, ids: Sequence[str], with_vectors: bool = False) -> list[Record]:
        """See VectorStore."""
        found = {record.document.id: record for record in map(record, self._retrieve(ids, SHOWN, with_vectors))}
        return [found[id] for id in ids if id in found]

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """See VectorStore."""
        payloads = [point.payload or {} for point in self._retrieve(ids, ["id", "hash"])]
        return {payload["id"]: payload["hash"] for payload in payloads}

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None) -> int:
        """See VectorStore."""
        check_one_of(ids, filter)
        if ids is None:
            deleted = self.count(filter)
            if deleted:
                self._delete_matching(self._condition(filter))
            return deleted
        points = [point.id for point in self._retrieve(ids, [])]
        for start in range(0, len(points), _IDS):
            self._delete(models.PointIdsList(points=points[start : start + _IDS]))
        return len(points)

    def query(self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False) -> list[Match]:
        """See VectorStore."""
        check_query(vector, self.dimension)
        if filter is not None and not self._connection.remote and self._tenant is None:
            few = self.count() // _LOOK
            if 10 * k <= few:  # else hardly ever enough of them pass
                nearest = self._nearest(vector, few, None, with_vectors)
                found = [match for match in nearest if matches(filter, match.record.document.metadata)]
                if len(found) >= k:
                    return found[:k]
        return self._nearest(vector, k, filter, with_vectors)

    async def aquery(
        self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False
    ) -> list[Match]:
        """`query`, without blocking the event loop: by the async client of a server, in a thread in local mode."""
        if not self._connection.remote:
            return await asyncio.to_thread(self.query, vector, k, filter, with_vectors)
        check_query(vector, self.dimension)
        search = Search(vector, self.vectors_per_document > 1, k, self._condition(filter), with_vectors)
        while True:
            self._check_open()
            try:
                answer = await self._connection.acall(
                    lambda client: client.query_points(
                        self._name, search_params=self._search_params, **search.arguments()
                    )
                )
            except StoreNotFoundError:
                raise self._gone() from None
            if (found := search.matches(answer)) is not None:
                return found

    def count(self, filter: Filter | None = None) -> int:
        """See VectorStore."""
        condition = self._condition(filter)
        return self._call(lambda client: client.count(self._name, count_filter=condition, exact=True)).count

    def scan(
        self, filter: Filter | None = None, batch: int = 256, with_vectors: bool = False
    ) -> Iterator[list[Record]]:
        """See VectorStore."""
        condition, offset = self._condition(filter), None
        page = batch if self._connection.remote else max(batch, _PAGE)
        while True:
            points, offset = self._page(condition, page, offset, with_vectors)
            for start in range(0, len(points), batch):
                yield [record(point) for point in points[start : start + batch]]
            if offset is None:
                return

    def generations(self) -> list[int]:
        """See VectorStore."""
        self._check_open()
        found = self._generations.all()
        if self.generation not in found:
            raise self._gone()
        return found

    def current(self) -> int:
        """See VectorStore."""
        self._check_open()
        current = self._generations.current()
        if current is None:
            raise self._gone()
        return current

    def beside(self, generation: int, dimension: int | None = None, vectors_per_document: int = 1) -> QdrantStore:
        """See VectorStore. Not for a tenant, as generations belong to all of them."""
        self._check_not_tenant("beside")
        if generation < 1:
            raise InvalidInputError("not a generation", found=generation, expected="1 or more")
        if dimension is None and generation not in self.generations():
            raise no_such_generation(self, generation)
        found = self._generations.find(generation, dimension, vectors_per_document)
        handle = object.__new__(QdrantStore)
        self._connection.acquire()
        handle._attach(self._connection, self._generations, self._options, generation, found)
        return handle

    def switch(self, generation: int) -> None:
        """See VectorStore. Not for a tenant, as it would move all of them."""
        self._check_not_tenant("switch")
        if generation not in self.generations():
            raise no_such_generation(self, generation)
        self._generations.switch(generation)

    def drop(self) -> None:
        """See VectorStore. A tenant's handle deletes that tenant's records."""
        if self._tenant is None:
            self._description()
            self._generations.drop(self.generation)
        else:
            self._delete_matching(self._condition(None))
        self.close()

    def close(self) -> None:
        """See VectorStore."""
        with COUNTING:
            if not self._closed:
                self._closed = True
                self._connection.release()

    def _description(self) -> Description:
        self._check_open()
        found = self._physical.read()
        if found is None or found.dropped:
            raise self._gone()
        return found

    def _call(self, request: Callable[[QdrantClient], Result]) -> Result:
        self._check_open()
        try:
            return self._connection.call(request, self._name)
        except StoreNotFoundError:
            raise self._gone() from None

    def _nearest(self, vector: Vector, k: int, filter: Filter | None, with_vectors: bool) -> list[Match]:
        search = Search(vector, self.vectors_per_document > 1, k, self._condition(filter), with_vectors)
        while True:
            answer = self._call(
                lambda client: client.query_points(self._name, search_params=self._search_params, **search.arguments())
            )
            if (found := search.matches(answer)) is not None:
                return found

    def _retrieve(self, ids: Sequence[str], payload: list[str], with_vectors: bool = False) -> list[models.Record]:
        self._check_open()
        points = [point_id(id, self._space) for id in dict.fromkeys(ids)]
        return [
            point
            for start in range(0, len(points), _IDS)
            for point in self._read(points[start : start + _IDS], payload, with_vectors)
        ]

    def _read(self, points: list[str], payload: list[str], with_vectors: bool) -> list[models.Record]:
        return self._call(
            lambda client: client.retrieve(self._name, points, with_payload=payload, with_vectors=with_vectors)
        )

    def _page(
        self, condition: models.Filter | None, limit: int, offset: models.ExtendedPointId | None, with_vectors: bool
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        return self._call(
            lambda client: client.scroll(
                self._name,
                scroll_filter=condition,
                limit=limit,
                offset=offset,
                with_payload=SHOWN,
                with_vectors=with_vectors,
            )
        )

    def _write(self, points: list[models.PointStruct]) -> None:
        self._call(lambda client: client.upsert(self._name, points, wait=True))

    def _delete(self, points: models.PointIdsList | models.FilterSelector) -> None:
        self._call(lambda client: client.delete(self._name, points, wait=True))

    def _delete_matching(self, condition: models.Filter | None) -> None:
        if condition is not None:  # none would mean all of them
            self._delete(models.FilterSelector(filter=condition))

    def _condition(self, filter: Filter | None) -> models.Filter | None:
        return translate(filter, self._tenant)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("this store was closed", found=self.url, remedy="Open it again.")

    def _check_not_tenant(self, method: str) -> None:
        self._check_open()
        if self._tenant is not None:
            raise InvalidInputError(
                f"{method}() of a tenant's handle would concern all tenants of {self.url}",
                found=f"tenant={self._tenant!r}",
                remedy="Index each tenant into another collection that the new model made.",
            )

    def _gone(self) -> StoreClosedError:
        return StoreClosedError(
            f"generation {self.generation} of {self.url} was dropped", remedy="Open it again for the current one."
        )
