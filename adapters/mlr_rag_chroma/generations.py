"""The generations of a collection: a Chroma collection each, and one more that says which is current.

- `name` is generation 1, and `name--2` another one; each has its format, shape and description in its metadata.
- `name--current`, which is empty, has the number of the current one in its metadata; 1 where it is absent.

What has no format of ours in its metadata is somebody else's, and is refused untouched.
"""

from __future__ import annotations

import json
import re
from typing import Any

from chromadb.errors import NotFoundError

from mlr_rag.errors import (
    RESTORE,
    InvalidInputError,
    StoreCorruptError,
    StoreNotFoundError,
    UnsupportedModelError,
)
from mlr_rag.stores import Info, check_shape
from mlr_rag_chroma.connection import Connection
from mlr_rag_chroma.failures import closed

_FORMAT = 1
_MARK = "mlr_rag"  # the key of the format
_PAGE = 100
# At 100,000 clustered vectors of 384 dimensions recall@10 is 0.98 to 1.0 (Chroma's defaults: 0.85 to 0.99).
_INDEX = {"space": "cosine", "max_neighbors": 24, "ef_construction": 200, "ef_search": 200}


class Generation:
    """One generation: a Chroma collection of ours."""

    def __init__(self, connection: Connection, collection: Any, number: int) -> None:
        self.collection, self.number = collection, number
        self._connection, self._url = connection, connection.url_of(collection.name)
        metadata = _ours(collection, self._url)
        self.dimension, self.vectors_per_document = metadata["dimension"], metadata["vectors_per_document"]
        configuration = collection.configuration_json
        space = (configuration.get("hnsw") or configuration.get("spann") or {}).get("space")
        if space != "cosine":
            raise StoreCorruptError(
                f"{self._url} does not compare by the cosine", found=space, expected="cosine", remedy=RESTORE
            )

    def read_info(self) -> Info | None:
        """The description, as it is now."""
        info: Info | None = json.loads(self._metadata().get("info", "null"))
        return info

    def write_info(self, info: Info) -> None:
        """Replace the description."""
        metadata = {**self._metadata(), "info": json.dumps(info)}
        self._connection.call(self.collection.modify, metadata=metadata)

    def delete(self) -> None:
        """Delete the collection."""
        self._metadata()
        _delete(self._connection, self.collection.name)

    def _metadata(self) -> dict[str, Any]:
        """What the server says now: another handle may have changed it, or dropped the collection and made it again."""
        found = _find(self._connection, self.collection.name)
        if found is None or found.id != self.collection.id:
            raise closed(self._url)
        return _ours(found, self._url)


class Generations:
    """All of one collection."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.url = connection.url_of(name)
        self._connection, self._name = connection, name
        self._pointer = f"{name}--current"
        self._numbered = re.compile(re.escape(name) + "(?:--([2-9]|[1-9][0-9]+))?")

    def numbers(self) -> list[int]:
        """Those that are there, ascending."""
        found: list[int] = []
        offset, page = 0, _PAGE
        while page == _PAGE:
            collections = self._connection.call(self._connection.client.list_collections, _PAGE, offset)
            named = [(self._numbered.fullmatch(each.name), each.metadata or {}) for each in collections]
            found += [int(match[1] or 1) for match, metadata in named if match and _MARK in metadata]
            page, offset = len(collections), offset + _PAGE
        return sorted(found)

    def current(self) -> int:
        """The number of the current one."""
        pointer = _find(self._connection, self._pointer)
        return 1 if pointer is None else int(_ours(pointer, self._connection.url_of(self._pointer))["current"])

    def open_current(self, dimension: int | None, vectors_per_document: int) -> Generation:
        """The current generation; the first one, where there is none and a dimension is given."""
        current = self.current()
        found = self.find(current, dimension, vectors_per_document)
        if found is not None:
            return found
        others = self.numbers()
        if others:
            raise StoreCorruptError(f"{self.url} lacks its current generation", found=others, expected=current)
        if dimension is None:
            raise StoreNotFoundError(
                f"no collection at {self.url}", remedy="Make one by adding documents, or check the name."
            )
        _delete(self._connection, self._pointer)  # what is left of a drop that was killed
        return self.make(1, dimension, vectors_per_document)

    def find(self, number: int, dimension: int | None, vectors_per_document: int) -> Generation | None:
        """One generation, if it is there; of this shape, if a dimension is given."""
        if number < 1:
            raise InvalidInputError("not a generation", found=number, expected="a number from 1 on")
        collection = _find(self._connection, self._collection(number))
        if collection is None:
            return None
        return self._checked(Generation(self._connection, collection, number), dimension, vectors_per_document)

    def make(self, number: int, dimension: int, vectors_per_document: int) -> Generation:
        """A generation that is not there; another process may make it at the same time."""
        if vectors_per_document != 1:
            raise UnsupportedModelError(
                "Chroma cannot hold several vectors a document",
                found=f"{vectors_per_document} vectors",
                expected="1",
                remedy="Choose a pooling that gives one vector (scalar_mix), or an edge or Qdrant store.",
            )
        shape = {"dimension": dimension, "vectors_per_document": vectors_per_document}
        index = {"spann": {"space": "cosine"}} if self._connection.in_cloud else {"hnsw": _INDEX}
        collection = self._made(self._collection(number), shape, index)
        return self._checked(Generation(self._connection, collection, number), dimension, vectors_per_document)

    def switch(self, number: int) -> None:
        """Make another generation the current one."""
        pointer = self._made(self._pointer, {"current": number}, {})
        metadata = _ours(pointer, self._connection.url_of(self._pointer))
        if metadata["current"] != number:
            self._connection.call(pointer.modify, metadata={**metadata, "current": number})

    def drop(self) -> None:
        """Delete all of them: the current one after the others, so that the collection opens until it is gone."""
        current = self.current()
        for number in [*(number for number in self.numbers() if number != current), current]:
            _delete(self._connection, self._collection(number))
        _delete(self._connection, self._pointer)

    def _made(self, name: str, metadata: dict[str, Any], configuration: dict[str, Any]) -> Any:
        return self._connection.call(
            self._connection.client.get_or_create_collection,
            name,
            metadata={_MARK: _FORMAT, **metadata},
            configuration=configuration,
            embedding_function=None,
        )

    def _checked(self, found: Generation, dimension: int | None, vectors_per_document: int) -> Generation:
        where = f"generation {found.number} of {self.url}"
        check_shape(where, (found.dimension, found.vectors_per_document), (dimension, vectors_per_document))
        return found

    def _collection(self, number: int) -> str:
        return self._name if number == 1 else f"{self._name}--{number}"


def _find(connection: Connection, name: str) -> Any:
    """The Chroma collection of this name, or None."""

    def find() -> Any:
        try:
            return connection.client.get_collection(name, embedding_function=None)
        except NotFoundError:
            return None

    return connection.call(find)


def _delete(connection: Connection, name: str) -> None:
    def delete() -> None:
        try:
            connection.client.delete_collection(name)
        except NotFoundError:  # by a try before, whose answer was lost
            return

    connection.call(delete)


def _ours(collection: Any, url: str) -> dict[str, Any]:
    """The metadata of a collection of ours.

    Raises:
        StoreCorruptError: it is somebody else's, or of another version's.
    """
    metadata = collection.metadata or {}
    if metadata.get(_MARK) != _FORMAT:
        raise StoreCorruptError(
            f"{url} is not a collection of mlr_rag's" if _MARK not in metadata else f"{url} is of another version's",
            found=metadata.get(_MARK, "metadata of another program's, or none"),
            expected=f"format {_FORMAT} in its metadata",
            remedy="Choose another name; this collection was not touched.",
        )
    return dict(metadata)
