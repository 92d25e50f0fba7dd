"""The generations of a collection: a Chroma collection each, and one more that says which is current.

- `name` is generation 1, and `name--2` another one; each has its format, shape and description in its metadata.
- `name--current`, which is empty, has the number of the current one in its metadata; 1 where it is absent.

What has no format of ours in its metadata is somebody else's, and is refused untouched.
"""

from __future__ import annotations

import re
from typing import Any

from mlr_rag.errors import (
    InvalidInputError,
    StoreCorruptError,
    StoreNotFoundError,
    UnsupportedModelError,
)
from mlr_rag.stores import check_shape
from mlr_rag_chroma.connection import Connection
from mlr_rag_chroma.generation import FORMAT, MARK, Generation, delete_collection, find, ours

_PAGE = 100
# At 100,000 clustered vectors of 384 dimensions recall@10 is 0.98 to 1.0 (Chroma's defaults: 0.85 to 0.99).
_INDEX = {"space": "cosine", "max_neighbors": 24, "ef_construction": 200, "ef_search": 200}


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
            found += [int(match[1] or 1) for match, metadata in named if match and MARK in metadata]
            page, offset = len(collections), offset + _PAGE
        return sorted(found)

    def current(self) -> int:
        """The number of the current one."""
        pointer = find(self._connection, self._pointer)
        return (
            1 if pointer is None else int(ours(pointer, self._connection.url_of(self._pointer), "current")["current"])
        )

    def open_current(self, dimension: int | None, vectors_per_document: int) -> Generation:
        """The current generation; the first one, where there is none and a dimension is given."""
        current = self.current()
        found = self.find(current, dimension, vectors_per_document)
        if found is not None:
            return found
        others = self.numbers()
        if others:
            raise StoreCorruptError(
                f"{self.url} lacks its current generation",
                found=f"generations {others}",
                expected=current,
                remedy="Somebody deleted it. Delete the others too and index again.",
            )
        if dimension is None:
            raise StoreNotFoundError(
                f"no collection at {self.url}", remedy="Make one by adding documents, or check the name."
            )
        delete_collection(self._connection, self._pointer)  # what is left of a drop that was killed
        return self.make(1, dimension, vectors_per_document)

    def find(self, number: int, dimension: int | None, vectors_per_document: int) -> Generation | None:
        """One generation, if it is there; of this shape, if a dimension is given."""
        if number < 1:
            raise InvalidInputError("not a generation", found=number, expected="a number from 1 on")
        collection = find(self._connection, self._collection(number))
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
        collection = self._made(self._collection(number), shape, {"hnsw": _INDEX})
        return self._checked(Generation(self._connection, collection, number), dimension, vectors_per_document)

    def switch(self, number: int) -> None:
        """Make another generation the current one."""
        pointer = self._made(self._pointer, {"current": number}, {})
        metadata = ours(pointer, self._connection.url_of(self._pointer), "current")
        if metadata["current"] != number:
            self._connection.call(pointer.modify, metadata={**metadata, "current": number})

    def drop(self) -> None:
        """Delete all of them: the current one after the others, so that the collection opens until it is gone."""
        current = self.current()
        for number in [*(number for number in self.numbers() if number != current), current]:
            delete_collection(self._connection, self._collection(number))
        delete_collection(self._connection, self._pointer)

    def _made(self, name: str, metadata: dict[str, Any], configuration: dict[str, Any]) -> Any:
        return self._connection.call(
            self._connection.client.get_or_create_collection,
            name,
            metadata={MARK: FORMAT, **metadata},
            configuration=configuration,
            embedding_function=None,
        )

    def _checked(self, found: Generation, dimension: int | None, vectors_per_document: int) -> Generation:
        where = f"generation {found.number} of {self.url}"
        check_shape(where, (found.dimension, found.vectors_per_document), (dimension, vectors_per_document))
        return found

    def _collection(self, number: int) -> str:
        return self._name if number == 1 else f"{self._name}--{number}"
