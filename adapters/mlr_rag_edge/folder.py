"""The folder of an edge collection: its lock, its description, and the one shard that all handles share.

- `kb/collection.json`: format, shape of the vectors, and the description, passport included; written atomically.
- `kb/shard/`: the engine's own files; `shard.new` while they are made, or dropped.
- `kb/.lock`: held while a process has the collection open; the system frees it, even after kill -9.

A folder with a description is a collection; one with neither description nor shard may become one; anything else is
refused, so that a lost description never costs the vectors.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as qdrant
from filelock import FileLock, Timeout

from mlr_rag.errors import (
    RESTORE,
    InvalidInputError,
    MlrRagError,
    ModelMismatchError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
)
from mlr_rag.stores import Info
from mlr_rag_edge.conditions import TOKENS

_FORMAT = 1
_SPARE_BYTES = 64 << 20  # the engine grows memory-mapped files by 32 MiB at a time; a full disk would kill the process
_OPEN: dict[Path, Folder] = {}
_OPENING = threading.Lock()


class Folder:
    """One open folder, shared by every handle on it in this process."""

    @classmethod
    def open(cls, path: Path, dimension: int | None, vectors_per_document: int) -> Folder:
        """The folder, opened or made; each call needs one `release`."""
        try:
            path = path.expanduser().resolve()
            path.exists()
        except (OSError, ValueError, RuntimeError) as problem:
            raise InvalidInputError(
                f"not a path: {problem}", found=str(path)[:80], expected="a folder's path"
            ) from None
        with _OPENING:
            folder = _OPEN.get(path) or cls(path, dimension, vectors_per_document)
            folder._check_shape(dimension, vectors_per_document)
            folder.handles += 1
            _OPEN[path] = folder
            return folder

    def __init__(self, path: Path, dimension: int | None, vectors_per_document: int) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.handles = 0
        self.shard: Any = None
        self.process = os.getpid()
        _check_place(path, must_exist=dimension is None)
        self._file_lock = _locked(path)
        try:
            check_space(path)
            description = _read(path) if (path / "collection.json").exists() else None
            if description is None:
                description = {"format": _FORMAT, "dimension": dimension, "vectors_per_document": vectors_per_document}
                _make_shard(path / "shard.new", dimension or 0, vectors_per_document)
                _write(path, description)
            if not (path / "shard").exists():
                (path / "shard.new").rename(path / "shard")
            self.shard = _load_shard(path / "shard")
            self.dimension: int = description["dimension"]
            self.vectors_per_document: int = description["vectors_per_document"]
            self.info: Info | None = description.get("info")
        except BaseException:
            self._file_lock.release()
            raise

    def write_info(self, info: Info) -> None:
        """Replace the description on disk."""
        shape = {"dimension": self.dimension, "vectors_per_document": self.vectors_per_document}
        _write(self.path, {"format": _FORMAT, **shape, "info": info})
        self.info = info

    def release(self) -> None:
        """Give up one handle; the last one closes the shard and frees the lock."""
        with _OPENING:
            self.handles -= 1
            if self.handles == 0:
                self._close()

    def drop(self) -> None:
        """Close for every handle and delete the collection; the folder stays, with the lock file in it."""
        with _OPENING:
            if self.shard is not None:
                self._close(then=self._delete)

    def _delete(self) -> None:
        (self.path / "shard").rename(self.path / "shard.new")
        (self.path / "collection.json").unlink()  # from here on an interrupted drop is a drop
        shutil.rmtree(self.path / "shard.new")

    def _close(self, then: Callable[[], None] | None = None) -> None:
        if self.shard is not None:
            self.shard.close()
            self.shard = None
            try:
                if then is not None:
                    then()
            finally:
                _OPEN.pop(self.path, None)
                self._file_lock.release()

    def _check_shape(self, dimension: int | None, vectors_per_document: int) -> None:
        found, wanted = (self.dimension, self.vectors_per_document), (dimension, vectors_per_document)
        if dimension is not None and found != wanted:
            if self.handles == 0:
                self._close()
            raise ModelMismatchError(
                f"{self.path} holds vectors of another shape than the model gives",
                found=f"{found[0]} dimensions, {found[1]} vector(s) a document",
                expected=f"{wanted[0]} dimensions, {wanted[1]} vector(s) a document",
                remedy="Open it with the model that it was made with, or index into another folder.",
            )


def check_space(path: Path, size: int = 0) -> None:
    """Refuse to open or to write where the disk has no room for it.

    Raises:
        StoreFullError: before anything was touched.
    """
    free, needed = shutil.disk_usage(path).free, _SPARE_BYTES + size
    if free < needed:
        raise StoreFullError(
            f"no room on the disk for {path}",
            found=f"{free / 2**20:.0f} MiB free",
            expected=f"{needed / 2**20:.0f} MiB",
            remedy="Free some space and run the same command again; what was written is kept.",
        )


def _check_place(path: Path, must_exist: bool) -> None:
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file", expected="a folder, or nothing yet", remedy="Choose another path.")
    has_collection = (path / "collection.json").exists()
    if must_exist and not has_collection:
        raise StoreNotFoundError(f"no collection at {path}", remedy="Make one by adding documents, or check the path.")
    strangers = sorted(item.name for item in path.iterdir()) if path.exists() and not has_collection else []
    if set(strangers) - {".lock", "shard.new", "collection.json.new"}:
        raise StoreCorruptError(
            f"{path} is not a collection, and not empty",
            found=", ".join(strangers[:5]),
            expected="collection.json, or an empty folder",
            remedy="Choose another folder; nothing here was touched. If it was a collection: " + RESTORE,
        )


def _locked(path: Path) -> FileLock:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", thread_local=False)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreLockedError(
            f"another process has {path} open",
            expected="one process at a time, readers included",
            remedy="Close it there first; to search from several processes at once, let one of them serve the others, "
            "or give each its own copy of the folder.",
        ) from None
    except OSError as problem:
        raise StoreError(
            f"cannot write to {path}",
            found=problem.strerror or problem,
            expected="a folder that this user may write to",
        ) from problem
    return lock


def _read(path: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((path / "collection.json").read_text("utf-8"))
        shape = {name: int(description[name]) for name in ("dimension", "vectors_per_document")}
        info = description.get("info")
        if info is not None and not isinstance(info, dict):
            raise TypeError(f"info is a {type(info).__name__}")
        if description["format"] != _FORMAT or not any((path / name).is_dir() for name in ("shard", "shard.new")):
            raise ValueError(f"format {description['format']}, shard folder {(path / 'shard').is_dir()}")
        return description | shape
    except (ValueError, KeyError, TypeError, OSError) as problem:
        raise StoreCorruptError(
            f"{path}/collection.json cannot be used",
            found=f"{type(problem).__name__} {problem}",
            expected=f"a description in format {_FORMAT}",
            remedy=RESTORE,
        ) from problem


def _write(path: Path, description: dict[str, Any]) -> None:
    fresh = path / "collection.json.new"
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(description, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path / "collection.json")


def _make_shard(path: Path, dimension: int, vectors_per_document: int) -> None:
    shutil.rmtree(path, ignore_errors=True)  # left by a process killed while it made the collection
    path.mkdir()
    several = qdrant.MultiVectorConfig(qdrant.MultiVectorComparator.MaxSim) if vectors_per_document > 1 else None
    vectors = qdrant.EdgeVectorParams(size=dimension, distance=qdrant.Distance.Dot, multivector_config=several)
    shard = qdrant.EdgeShard.create(str(path), qdrant.EdgeConfig(vectors=vectors))
    shard.update(qdrant.UpdateOperation.create_field_index(TOKENS, qdrant.PayloadSchemaType.Keyword))
    shard.flush()
    shard.close()


def _load_shard(path: Path) -> Any:
    with engine_errors(path):
        if not any((path / "segments").glob("*/segment.json")):
            raise FileNotFoundError(f"no segments in {path}")  # the engine would make an empty one, without a word
        return qdrant.EdgeShard.load(str(path))


@contextmanager
def engine_errors(path: Path) -> Iterator[None]:
    """Turn what the engine raises, its panics included, into StoreCorruptError."""
    try:
        yield
    except (MlrRagError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as problem:  # a panic does not derive from Exception
        raise StoreCorruptError(
            f"the engine cannot read or write {path}",
            found=f"{problem!s:.200}",
            remedy=RESTORE,
        ) from problem
