"""What benchmarks.stores measures: a collection that is filled and searched, and a store of ours as one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from benchmarks._texts import DIMENSION, condition
from mlr_rag.stores import Record, Vector, VectorStore, open_store
from mlr_rag_edge.index import ENOUGH

K = 10


class System(ABC):
    """A collection, opened and closed, filled and searched.

    Attributes:
        folder: Where its files are, if it has any.
        server: The process that holds it; None where that is this one.
    """

    def __init__(self, folder: Path | None = None, server: int | None = None) -> None:
        self.folder, self.server = folder, server

    @abstractmethod
    def open(self) -> None:
        """Open the collection, or make it."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    @abstractmethod
    def prepare(self, batch: list[Record]) -> Any:
        """What `add` takes; not timed."""

    @abstractmethod
    def add(self, prepared: Any) -> None:
        """Write a batch."""

    @abstractmethod
    def search(self, vector: Vector, filtered: bool) -> list[str]:
        """The ids of the nearest K; of those that satisfy `CONDITION`, if `filtered`."""

    def index(self, size: int) -> None:  # noqa: B027 - not abstract
        """Build what the store builds by itself in the background; most have nothing of the kind."""

    def disk(self) -> int:
        """Bytes that its files take."""
        files = [] if self.folder is None else [file for file in self.folder.rglob("*") if file.is_file()]
        return sum(file.stat().st_blocks * 512 for file in files)

    def memory(self) -> int:
        """Resident bytes of the process that holds it."""
        status = Path(f"/proc/{self.server or os.getpid()}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Ours(System):
    """A store of ours, by its URL."""

    def __init__(self, url: str, folder: Path | None = None, server: int | None = None) -> None:
        super().__init__(folder, server)
        self._url, self._condition = url, condition()
        self._store: VectorStore

    def open(self) -> None:
        """See System."""
        self._store = open_store(self._url, dimension=DIMENSION)

    def close(self) -> None:
        """See System."""
        self._store.close()

    def prepare(self, batch: list[Record]) -> list[Record]:
        """See System."""
        return batch

    def add(self, prepared: list[Record]) -> None:
        """See System."""
        self._store.upsert(prepared)

    def search(self, vector: Vector, filtered: bool) -> list[str]:
        """See System."""
        found = self._store.query(vector, K, self._condition if filtered else None)
        return [match.record.document.id for match in found]

    def index(self, size: int) -> None:
        """See System."""
        if size >= ENOUGH and self._url.startswith("edge:"):
            for _ in range(2):  # one that had begun before the last write is followed by another
                self._store.optimize()  # type: ignore[attr-defined]
