"""One generation of a collection: a Chroma collection, with its format, shape and description in its metadata."""

from __future__ import annotations

import json
from typing import Any

from chromadb.errors import NotFoundError

from mlr_rag.errors import StoreCorruptError
from mlr_rag.stores import Info
from mlr_rag_chroma.connection import Connection
from mlr_rag_chroma.failures import closed

FORMAT = 1
MARK = "mlr_rag"  # the key of the format


class Generation:
    """One generation: a Chroma collection of ours."""

    def __init__(self, connection: Connection, collection: Any, number: int) -> None:
        self.collection, self.number = collection, number
        self._connection, self._url = connection, connection.url_of(collection.name)
        metadata = ours(collection, self._url, "dimension", "vectors_per_document")
        self.dimension, self.vectors_per_document = metadata["dimension"], metadata["vectors_per_document"]
        configuration = collection.configuration_json
        space = (configuration.get("hnsw") or {}).get("space")
        if space != "cosine":
            raise StoreCorruptError(
                f"{self._url} does not compare by the cosine",
                found=space,
                expected="cosine",
                remedy="Choose another name; this collection was not touched.",
            )

    def read_info(self) -> Info | None:
        """The description, as it is now."""
        text = self._metadata().get("info", "null")
        try:
            info: Info | None = json.loads(text)
        except (ValueError, TypeError):
            raise StoreCorruptError(
                f"the description of {self._url} cannot be used",
                found=text,
                expected="JSON",
                remedy="Delete the collection and index again.",
            ) from None
        return info

    def write_info(self, info: Info) -> None:
        """Replace the description."""
        metadata = {**self._metadata(), "info": json.dumps(info)}
        self._connection.call(self.collection.modify, metadata=metadata)

    def delete(self) -> None:
        """Delete the collection."""
        self._metadata()
        delete_collection(self._connection, self.collection.name)

    def _metadata(self) -> dict[str, Any]:
        """What the server says now: another handle may have changed it, or dropped the collection and made it again."""
        found = find(self._connection, self.collection.name)
        if found is None or found.id != self.collection.id:
            raise closed(self._url)
        return ours(found, self._url)


def find(connection: Connection, name: str) -> Any:
    """The Chroma collection of this name, or None."""

    def find() -> Any:
        try:
            return connection.client.get_collection(name, embedding_function=None)
        except NotFoundError:
            return None

    return connection.call(find)


def delete_collection(connection: Connection, name: str) -> None:
    """Delete the Chroma collection of this name, if it is there."""

    def delete() -> None:
        try:
            connection.client.delete_collection(name)
        except NotFoundError:  # by a try before, whose answer was lost
            return

    connection.call(delete)


def ours(collection: Any, url: str, *numbers: str) -> dict[str, Any]:
    """The metadata of a collection of ours, in which these keys have numbers.

    Raises:
        StoreCorruptError: it is somebody else's, or of another version's.
    """
    metadata = collection.metadata or {}
    if metadata.get(MARK) != FORMAT:
        raise StoreCorruptError(
            f"{url} is not a collection of mlr_rag's" if MARK not in metadata else f"{url} is of another version's",
            found=metadata.get(MARK, "metadata of another program's, or none"),
            expected=f"format {FORMAT} in its metadata",
            remedy="Choose another name; this collection was not touched.",
        )
    for key in numbers:
        if not isinstance(metadata.get(key), int):
            raise StoreCorruptError(
                f"the description of {url} cannot be used",
                found=f"{key} {metadata.get(key)}",
                expected="a number",
                remedy="Delete the collection and index again.",
            )
    return dict(metadata)
