"""The gate between writers of a collection and a migration of it: many may write at once, or one may switch."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from mlr_rag.stores import VectorStore, identity_of

_GATES: WeakValueDictionary[Hashable, Gate] = WeakValueDictionary()
_FINDING = threading.Lock()


class Gate:
    """Writers pass it together; a migration waits until they are through, and keeps new ones out until it has switched.

    Attributes:
        migrating: Held by the one migration that a collection may have at a time.
    """

    def __init__(self) -> None:
        self.migrating = threading.Lock()
        self._changed = threading.Condition()
        self._writers = 0
        self._shut = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """For a write, which is to be short."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._writers += 1
        try:
            yield
        finally:
            with self._changed:
                self._writers -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """For the switch, by whoever holds `migrating`: writes that have begun are finished, others wait."""
        try:
            with self._changed:
                self._shut = True
                self._changed.wait_for(lambda: self._writers == 0)
            yield
        finally:  # also of a Ctrl-C while it waits
            with self._changed:
                self._shut = False
                self._changed.notify_all()


def gate_of(store: VectorStore) -> Gate:
    """The gate of a store's collection, the same for everyone in this process."""
    with _FINDING:
        return _GATES.setdefault(identity_of(store), Gate())
