"""The generations of a collection on a Qdrant server, or in local mode.

- `name--1`, `name--2`: a physical collection for each, which says in its metadata what it is;
- `name`: an alias of the current one, moved in one request.

A collection without such a description is somebody else's, and is never touched. Where there is no alias its making
was killed, and is finished by the next to open it. One marked as dropped is gone; opening or making it again first
finishes its deletion.
"""

from __future__ import annotations

import re

from qdrant_client import models

from mlr_rag.errors import InvalidInputError, StoreCorruptError, StoreNotFoundError
from mlr_rag.stores import check_shape
from mlr_rag_qdrant.connection import Connection
from mlr_rag_qdrant.description import DROPPED, Description
from mlr_rag_qdrant.options import QdrantOptions
from mlr_rag_qdrant.physical import Physical, not_ours


class Generations:
    """One collection's generations, and which of them is current."""

    def __init__(self, connection: Connection, name: str, url: str, options: QdrantOptions) -> None:
        self.url = url
        self._connection, self._name, self._options = connection, name, options

    def physical(self, generation: int) -> Physical:
        """A generation's own collection."""
        return Physical(self._connection, f"{self._name}--{generation}")

    def all(self) -> list[int]:
        """Which there are, ascending."""
        return [number for number in self._ours() if not self._dropped(number)]

    def current(self) -> int | None:
        """The one that the alias leads to, or None where there is no alias."""
        aliases = self._connection.call(lambda client: client.get_aliases()).aliases
        targets = [alias.collection_name for alias in aliases if alias.alias_name == self._name]
        if not targets:
            return None
        number = self._number(targets[0])
        if number is None:
            raise not_ours(f"{self._name}, an alias of {targets[0]},")
        return number

    def open(self, dimension: int | None, vectors_per_document: int) -> tuple[int, Description]:
        """The current one, made where a dimension is given and there is none.

        Raises:
            StoreNotFoundError: there is none, and no dimension to make it with.
            ModelMismatchError: it holds vectors of another shape.
            StoreCorruptError: the name is taken by something else.
        """
        current = self.current()
        if current is not None and self._dropped(current):
            self._finish_drop(current)
            current = None
        if current is not None:
            return current, self.find(current, dimension, vectors_per_document)
        unfinished = self._unfinished()
        if unfinished is None and dimension is None:
            raise StoreNotFoundError(
                f"no collection at {self.url}", remedy="Make one by adding documents, or check the name."
            )
        first = unfinished or 1
        found = self.find(first, dimension, vectors_per_document)
        self.switch(first)
        return first, found

    def find(self, generation: int, dimension: int | None, vectors_per_document: int) -> Description:
        """One of them, made where a dimension is given and it is not there.

        Raises:
            StoreNotFoundError: it is not there, and no dimension was given.
            ModelMismatchError: it is there in another shape.
        """
        physical = self.physical(generation)
        found = physical.read()
        if found is not None and found.dropped:
            self._finish_drop(generation)
            found = None
        if found is None:
            if dimension is None:
                raise StoreNotFoundError(f"{self.url} has no generation {generation}")
            fresh = Description(dimension, vectors_per_document, self._options.tenant is not None)
            found = physical.make(fresh, self._options)
        shape = found.dimension, found.vectors_per_document
        check_shape(f"generation {generation} of {self.url}", shape, (dimension, vectors_per_document))
        self._check_tenants(found)
        if self._connection.remote:
            wanted = self._options.indexes()
            physical.index({field: kind for field, kind in wanted.items() if field not in found.indexed})
        return found

    def switch(self, generation: int) -> None:
        """Make one that is there the current one, in one request."""
        target = self.physical(generation).name
        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=target, alias_name=self._name)
        )
        self._connection.call(lambda client: client.update_collection_aliases([self._no_alias(), create]))

    def drop(self, generation: int) -> None:
        """Delete one of them, and all of them with the current one."""
        self.physical(generation).write({DROPPED: "yes"})  # from here on an interrupted drop is a drop
        self._finish_drop(generation)

    def _finish_drop(self, generation: int) -> None:
        if self.current() == generation:
            for other in self._ours():
                if other != generation:
                    self.physical(other).delete()
            self._connection.call(lambda client: client.update_collection_aliases([self._no_alias()]))
        self.physical(generation).delete()

    def _no_alias(self) -> models.DeleteAliasOperation:
        return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._name))

    def _ours(self) -> list[int]:
        """The numbers of our collections of this name, ascending, those marked as dropped included."""
        names = [found.name for found in self._connection.call(lambda client: client.get_collections()).collections]
        if self._name in names:
            raise not_ours(f"the collection {self._name}")
        numbers = [number for name in names if (number := self._number(name)) is not None]
        return sorted(number for number in numbers if self.physical(number).is_ours())

    def _number(self, physical: str) -> int | None:
        found = re.fullmatch(re.escape(self._name) + r"--([1-9]\d*)", physical)
        return None if found is None else int(found[1])

    def _dropped(self, generation: int) -> bool:
        found = self.physical(generation).read()
        return found is None or found.dropped

    def _unfinished(self) -> int | None:
        """The generation whose making was killed before it got its alias; leftovers of drops are cleared away."""
        left = []
        for number in self._ours():
            if self._dropped(number):
                self.physical(number).delete()
            else:
                left.append(number)
        if len(left) > 1:
            raise StoreCorruptError(
                f"no alias says which generation of {self.url} is current",
                found=", ".join(self.physical(number).name for number in left),
                expected=f"an alias {self._name} of one of them",
                remedy="Make the alias by hand, or delete those that you do not need.",
            )
        return left[0] if left else None

    def _check_tenants(self, found: Description) -> None:
        if found.tenants != (self._options.tenant is not None):
            raise InvalidInputError(
                f"{self.url} {'is shared by tenants' if found.tenants else 'was made without tenants'}",
                found=f"tenant={self._options.tenant!r}",
                expected="the name of one" if found.tenants else "none",
                remedy="Open it with QdrantOptions(tenant=...)." if found.tenants else "Choose another collection.",
            )
