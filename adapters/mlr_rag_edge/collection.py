"""The folder of an edge collection: its lock, its generations, and which of them is current.

- `kb/` itself is generation 1, and `kb/generation-2/` another one, of the same form (see folder.py).
- `kb/current`: the number of the current generation, replaced atomically; 1 where it is absent, 0 once the collection
  was dropped and until the last file of it is gone.
- `kb/.lock`: held while a process has any generation open; the system frees it, even after kill -9.

A folder with a generation 1 or a `current` is a collection; one with neither, and no shard, may become one; anything
else is refused, so that a lost description never costs the vectors.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from pathlib import Path

from mlr_rag.errors import (
    RESTORE,
    InvalidInputError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreNotFoundError,
)
from mlr_rag.folders import check_space, lock_folder, resolved
from mlr_rag.stores import check_dimension
from mlr_rag_edge.files import replace_file, unlock
from mlr_rag_edge.folder import DESCRIPTION, Folder, remove, shards, sweep

_GENERATION = re.compile(r"generation-([2-9]|[1-9][0-9]+)")
_LEFTOVERS = {"shard.new", "collection.json.new", "current.new"}
_CLOSE = (
    "Close it there first; to search from several processes at once, let one of them serve the others, or give each "
    "its own copy of the folder."
)
_FILES = {DESCRIPTION, *_LEFTOVERS}
_OPEN: dict[Path, Collection] = {}
_OPENING = threading.RLock()  # whoever needs a collection's own lock too takes this one first
_INHERITED: list[Collection] = []  # of the process that this one was forked from: kept, as to free one would close it


class Collection:
    """One open collection, shared by every handle on it in this process.

    Attributes:
        path: Its folder.
        lock: What writes hold.
        process: The one that opened it.
    """

    @classmethod
    def open(cls, path: Path, dimension: int | None, vectors_per_document: int) -> tuple[Collection, Folder]:
        """The collection, opened or made, with its current generation; each call needs one `release`."""
        check_dimension(dimension, vectors_per_document)
        path = resolved(path)
        with _OPENING:
            collection = _OPEN[path] = _OPEN.get(path) or cls(path, must_exist=dimension is None)
            return collection, collection.attach(collection.current, dimension, vectors_per_document)

    def __init__(self, path: Path, must_exist: bool) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.process = os.getpid()
        self._folders: dict[int, Folder] = {}
        _check_place(path, must_exist)
        self._file_lock = lock_folder(path, ".lock", _CLOSE)
        try:
            check_space(path)
            if _read_current(path) == 0:
                self._delete()
            self.current = _read_current(path)
            if (path / "current").exists() and self.current not in self.generations():
                raise _damaged(path, str(self.current), f"one of its generations, {self.generations()}")
            self._sweep()
        except BaseException:
            unlock(self._file_lock)
            raise

    def generations(self) -> list[int]:
        """Those that are there, ascending."""
        return [number for number in self._numbers() if (self._place(number) / DESCRIPTION).exists()]

    def attach(self, generation: int, dimension: int | None, vectors_per_document: int) -> Folder:
        """One generation, opened or made; each call needs one `release`."""
        check_dimension(dimension, vectors_per_document)
        with _OPENING, self.lock:
            self._check_open()
            try:
                if generation < 1:
                    raise InvalidInputError("not a generation", found=generation, expected="a number from 1 on")
                folder = self._folders.get(generation)
                if folder is None:
                    check_space(self.path)
                    folder = Folder(self._place(generation), generation, self.lock, dimension, vectors_per_document)
                folder.check_shape(dimension, vectors_per_document)
                folder.handles += 1
                self._folders[generation] = folder
                return folder
            finally:
                self._close_if_unused()

    def release(self, folder: Folder) -> None:
        """Give up one handle; the last one closes the shard, and the last of all frees the lock."""
        with _OPENING:
            folder.handles -= 1
            if folder.handles == 0 and folder.shard is not None:
                folder.index.stop()
                with self.lock:
                    folder.close()
                    del self._folders[folder.generation]
            self._close_if_unused()

    def switch(self, generation: int) -> None:
        """Make another generation the current one, which must be there."""
        with _OPENING, self.lock:
            self._check_open()
            replace_file(self.path / "current", str(generation))
            self.current = generation

    def drop(self, folder: Folder) -> None:
        """Close a generation for every handle and delete it; the current one takes the whole collection with it."""
        with _OPENING:
            if folder.shard is None:
                raise closed(self.path)
            whole = folder.generation == self.current
            if whole:
                with self.lock:  # from here on an interrupted drop is a drop; where this fails, all stays open
                    replace_file(self.path / "current", "0")
            for each in list(self._folders.values()) if whole else [folder]:
                each.index.stop()
            with self.lock:
                if whole:
                    self._drop_all()
                    return
                del self._folders[folder.generation]
                folder.delete()
                self._sweep()
                self._close_if_unused()

    def _drop_all(self) -> None:
        for folder in self._folders.values():
            folder.close(keep=False)
        self._folders.clear()
        try:
            self._delete()
        finally:
            self._close(remove=True)

    def _delete(self) -> None:
        named = [item for item in self.path.iterdir() if _GENERATION.fullmatch(item.name) or item.name in _FILES]
        for item in [*shards(self.path), *named]:
            remove(item)
        (self.path / "current").unlink()  # the last one: until it is gone, the next process goes on here

    def _sweep(self) -> None:
        """Remove what interrupted makings and drops left."""
        remove(self.path / "current.new")
        there = self.generations()
        for number in self._numbers():
            if number not in there:
                sweep(self._place(number))
                if number != 1:
                    with suppress(OSError):  # something of the user's is in it
                        self._place(number).rmdir()

    def _close_if_unused(self) -> None:
        if not self._folders:
            self._close()

    def _close(self, remove: bool = False) -> None:
        if _OPEN.get(self.path) is self:
            del _OPEN[self.path]
            unlock(self._file_lock, remove)

    def _check_open(self) -> None:
        if _OPEN.get(self.path) is not self:
            raise closed(self.path)

    def _numbers(self) -> list[int]:
        named = (_GENERATION.fullmatch(item.name) for item in self.path.iterdir())
        return [1, *sorted(int(match[1]) for match in named if match)]

    def _place(self, generation: int) -> Path:
        return self.path if generation == 1 else self.path / f"generation-{generation}"


def _forget_inherited() -> None:
    """In a forked child: the lock on the folder decides who may open it, and no thread is there to free our own."""
    global _OPENING
    _OPENING = threading.RLock()
    _INHERITED.extend(_OPEN.values())
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)


def closed(path: Path) -> StoreClosedError:
    """What to raise where a handle was closed, or its generation dropped."""
    return StoreClosedError("this store was closed", found=f"edge:{path}", remedy="Open it again.")


def _check_place(path: Path, must_exist: bool) -> None:
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file", expected="a folder, or nothing yet", remedy="Choose another path.")
    if _GENERATION.fullmatch(path.name) and _is_collection(path.parent):
        raise StoreError(f"{path} is a part of the collection {path.parent}", remedy=f"Open {path.parent}.")
    if must_exist and not _is_collection(path):
        raise StoreNotFoundError(f"no collection at {path}", remedy="Make one by adding documents, or check the path.")
    vacant = path.exists() and not _is_collection(path) and not (path / "current").exists()
    strangers = sorted({item.name for item in path.iterdir()} - _LEFTOVERS - {".lock"}) if vacant else []
    if strangers:
        raise StoreCorruptError(
            f"{path} is not a collection, and not empty",
            found=", ".join(strangers[:5]),
            expected=f"{DESCRIPTION}, or an empty folder",
            remedy="Choose another folder; nothing here was touched. If it was a collection: " + RESTORE,
        )


def _is_collection(path: Path) -> bool:
    return _read_current(path) != 0 if (path / "current").exists() else (path / DESCRIPTION).exists()


def _read_current(path: Path) -> int:
    try:
        return int((path / "current").read_text("utf-8"))
    except FileNotFoundError:
        return 1
    except (ValueError, OSError) as problem:
        raise _damaged(path, f"{type(problem).__name__} {problem}", "the number of a generation") from problem


def _damaged(path: Path, found: str, expected: str) -> StoreCorruptError:
    return StoreCorruptError(f"{path / 'current'} cannot be used", found=found, expected=expected, remedy=RESTORE)
