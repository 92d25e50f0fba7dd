"""Folders of Chroma's: one process at a time, as two corrupt each other's index without a word (chroma#2399)."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from mlr_rag.errors import StoreLockedError, StoreNotFoundError
from mlr_rag.folders import check_space, lock_folder, resolved
from mlr_rag_chroma.settings import settings as settings_of

OPENING = threading.RLock()  # held while a client is made or closed: chromadb itself would make two engines at once

_LOCK = ".mlr_rag.lock"
_DATABASE = "chroma.sqlite3"
_OPEN: dict[Path, Folder] = {}


class Folder:
    """A folder that this process has open, shared by all of its connections; each `hold` needs one `release`.

    Attributes:
        path: Where it is, resolved.
        settings: Of its clients; chromadb wants the same for all, and has one engine for each spelling of the path.
        lock: What writes hold.
    """

    @classmethod
    def hold(cls, path: Path, settings: Any = None, must_exist: bool = False) -> Folder:
        """The folder; it is made, unless it must be Chroma's already.

        Args:
            path: Where it is.
            settings: Of the client of it that there is; without it one is to be made, with those of the others.
            must_exist: Whether it is not to be made.

        Raises:
            StoreNotFoundError: it must be Chroma's, and is not.
            StoreLockedError: another process has it, such as that which this one was forked from; or another engine
                in this process.
            StoreError: this user may not write there.
        """
        path = resolved(path)
        with OPENING:
            folder = _OPEN.get(path) or cls(path, settings, must_exist)
            if folder._process != os.getpid():  # its engine has threads that are not in this process: it would hang
                raise StoreLockedError(
                    f"the process that this one was forked from has {path} open",
                    expected="one process at a time, readers included",
                    remedy="Open it after the fork, in one process only, or start processes by spawn.",
                )
            if settings is not None and settings.persist_directory != folder.settings.persist_directory:
                raise StoreLockedError(
                    f"this process has {path} open by another client, with an index of its own",
                    found=settings.persist_directory,
                    expected=folder.settings.persist_directory,
                    remedy="Use one client for all, or the same spelling of the path.",
                )
            folder._holds += 1
            _OPEN[path] = folder
            return folder

    def __init__(self, path: Path, settings: Any, must_exist: bool) -> None:
        if must_exist and not (path / _DATABASE).exists():
            raise StoreNotFoundError(
                f"no Chroma collections at {path}", remedy="Make one by adding documents, or check the path."
            )
        self.path = path
        self.settings = settings or settings_of(persist_directory=str(path))
        self.lock = threading.RLock()
        remedy = f"Close it there first, or use a server: chroma run --path {path}, and chroma://host:8000/name."
        self._file_lock = lock_folder(path, _LOCK, remedy)
        self._process = os.getpid()
        self._stat = path.stat()
        self._holds = 0

    def is_gone(self) -> bool:
        """Whether it was moved or deleted, or another one is in its place."""
        try:
            return not os.path.samestat(self._stat, self.path.stat()) or not (self.path / _DATABASE).exists()
        except OSError:
            return True

    def check_space(self) -> None:
        """Refuse to write where the disk has no room: Chroma would write a part, and not say what is wrong.

        Raises:
            StoreFullError: there is less than several of the largest batches need.
        """
        if self.path.exists():  # else the engine will say so
            check_space(self.path)

    def release(self) -> None:
        """Give it up; the last one to do so lets other processes in."""
        with OPENING:
            self._holds -= 1
            if self._holds == 0 and self._process == os.getpid():  # in a forked child the lock is still the parent's
                del _OPEN[self.path]
                self._file_lock.release()
