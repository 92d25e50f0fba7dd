"""One physical collection of Qdrant: made, read, described, deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from mlr_rag.errors import StoreCorruptError, StoreError, StoreNotFoundError
from mlr_rag_qdrant.connection import Connection
from mlr_rag_qdrant.description import Description, describe
from mlr_rag_qdrant.options import QdrantOptions


@dataclass(frozen=True)
class Physical:
    """A collection by its own name, whether it is there or not."""

    connection: Connection
    name: str

    def read(self) -> Description | None:
        """What it says of itself, or None where it is not there.

        Raises:
            StoreCorruptError: it is there, and not one of ours.
        """
        found = self._info()
        if found is None:
            return None
        description = describe(self.name, found)
        if description is None:
            raise not_ours(f"the collection {self.name}")
        return description

    def is_ours(self) -> bool:
        """Whether it is there, and mlr_rag made it."""
        found = self._info()
        return found is not None and describe(self.name, found) is not None

    def make(self, description: Description, options: QdrantOptions) -> Description:
        """Make it, described; or find that somebody else just has.

        Raises:
            StoreError: the server cannot.
        """
        creation = options.creation()
        try:
            self.connection.call(
                lambda client: client.create_collection(
                    self.name,
                    vectors_config=description.vectors(options.on_disk),
                    metadata=description.metadata(),
                    **creation,
                )
            )
        except StoreError:
            found = self.read()  # a second try finds what the first had made, though its answer was lost
            if found is None:
                raise
            return found
        if not self.is_ours():
            self.delete()
            raise StoreError(
                f"Qdrant at {self.connection.place} does not keep what a collection says of itself",
                expected="version 1.16 or later",
                remedy="Update the server.",
            )
        return description

    def index(self, kinds: dict[str, Any]) -> None:
        """Make the payload indexes of these fields and kinds."""
        for field, kind in kinds.items():
            self.connection.call(
                lambda client, field=field, kind=kind: client.create_payload_index(  # type: ignore[misc]
                    self.name, field, field_schema=kind, wait=True
                ),
                self.name,
            )

    def write(self, metadata: dict[str, Any]) -> None:
        """Add to what it says of itself."""
        self.connection.call(lambda client: client.update_collection(self.name, metadata=metadata), self.name)

    def delete(self) -> None:
        """Delete it; where it is not there that is done."""
        try:
            self.connection.call(lambda client: client.delete_collection(self.name))
        except StoreNotFoundError:
            return

    def _info(self) -> models.CollectionInfo | None:
        try:
            return self.connection.call(lambda client: client.get_collection(self.name), self.name)
        except StoreNotFoundError:
            return None


def not_ours(what: str) -> StoreCorruptError:
    """What to raise for a name that something of somebody else's has."""
    return StoreCorruptError(
        f"{what} was not made by mlr_rag",
        expected="a collection that mlr_rag made, or none of that name",
        remedy="Choose another name; nothing was touched.",
    )
