"""The folder of one generation: its description, and the one shard that all handles on it share.

- `collection.json`: format, shape of the vectors, the shard's name, the description, and how much was written that the
  index does not have (optional: as of the last close); written atomically.
- `shard/`: the engine's own files; `shard.new` while they are made, or dropped.
- `shard-1a2b3c4d/`: the same once an index was built, or while one is (see index.py).

A generation is there if its `collection.json` is.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlr_rag.errors import RESTORE, StoreCorruptError, StoreError, StoreNotFoundError
from mlr_rag.folders import check_space
from mlr_rag.stores import Info, check_shape
from mlr_rag_edge.files import replace_file
from mlr_rag_edge.index import Index
from mlr_rag_edge.shard import load_shard, make_shard

DESCRIPTION = "collection.json"
_FORMAT = 1
_SHARD = re.compile(r"shard(-[0-9a-f]{8})?")


class Folder:
    """One open generation, shared by every handle on it in this process.

    Args:
        path: The folder, in a collection that this process has locked.
        generation: Its number.
        lock: The collection's, which writes hold.
        dimension: The shape to make it in, or that it must have; None for whatever it has.
        vectors_per_document: The same.

    Attributes:
        unindexed: How much was written outside the index, as `collection.json` has it: never more than there is.

    Raises:
        StoreCorruptError, StoreNotFoundError, ModelMismatchError.
    """

    def __init__(
        self,
        path: Path,
        generation: int,
        lock: threading.RLock,
        dimension: int | None,
        vectors_per_document: int,
    ) -> None:
        self.path, self.generation = path, generation
        self.handles = 0
        if not (path / DESCRIPTION).exists():
            _make(path, dimension, vectors_per_document)
        description = _read(path)
        self.dimension: int = description["dimension"]
        self.vectors_per_document: int = description["vectors_per_document"]
        self.info: Info | None = description.get("info")
        self.unindexed: int = description["unindexed"]
        self.check_shape(dimension, vectors_per_document)
        self.shard_path: Path = path / description["shard"]
        if not self.shard_path.exists():
            (path / "shard.new").rename(self.shard_path)
        sweep(path)
        for other in shards(path):
            if other != self.shard_path:
                shutil.rmtree(other, ignore_errors=True)  # a build that was interrupted, or what it was to replace
        self.shard: Any = load_shard(self.shard_path)
        self.index = Index(self, lock)

    def check_shape(self, dimension: int | None, vectors_per_document: int) -> None:
        """Refuse a shape that is not this one."""
        found, wanted = (self.dimension, self.vectors_per_document), (dimension, vectors_per_document)
        check_shape(str(self.path), found, wanted)

    def write_info(self, info: Info) -> None:
        """Replace the description on disk."""
        self._describe(self.shard_path, info, self.index.unindexed)
        self.info = info

    def replace_shard(self, path: Path, shard: Any, unindexed: int) -> None:
        """Go on with another shard, and delete the one before; a query that runs meanwhile holds the old one open."""
        self._describe(path, self.info, unindexed)
        before, self.shard_path, self.shard = self.shard_path, path, shard
        shutil.rmtree(before, ignore_errors=True)

    def check_space(self, texts: Sequence[str] = ()) -> None:
        """Refuse a write of documents with these texts where the disk has no room for it: a generous guess."""
        vectors = 4 * self.dimension * self.vectors_per_document * len(texts)
        check_space(self.path, 4 * (vectors + sum(map(len, texts))))  # the write-ahead log included

    def close(self, keep: bool = True) -> None:
        """Close the shard, for every handle; `keep` notes what its index does not have, for the next one to open it."""
        if self.shard is not None:
            if keep and self.index.unindexed != self.unindexed:
                with suppress(StoreError):  # a guess too low delays an index, and that is all
                    self._describe(self.shard_path, self.info, self.index.unindexed)
            self.shard.close()
            self.shard = None

    def delete(self) -> None:
        """Close, and delete the generation; an interrupted deletion is none, or is finished by `sweep`."""
        self.close(keep=False)
        self.shard_path.rename(self.path / "shard.new")
        (self.path / DESCRIPTION).unlink()
        sweep(self.path)

    def _describe(self, shard: Path, info: Info | None, unindexed: int) -> None:
        _write(self.path, self.dimension, self.vectors_per_document, shard.name, info, unindexed)
        self.unindexed = unindexed


def shards(path: Path) -> list[Path]:
    """The shards in a folder, whichever is in use."""
    return [item for item in path.iterdir() if _SHARD.fullmatch(item.name)] if path.exists() else []


def sweep(path: Path) -> None:
    """Remove what a killed process left in a folder; not what may be all that there is of the vectors."""
    for name in ("shard.new", f"{DESCRIPTION}.new"):
        remove(path / name)


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make(path: Path, dimension: int | None, vectors_per_document: int) -> None:
    if found := shards(path):
        raise StoreCorruptError(
            f"{path} has vectors without a description",
            found=found[0].name,
            expected=f"shard and {DESCRIPTION}",
            remedy=RESTORE,
        )
    if dimension is None:  # it was there, and another thread or process has dropped it meanwhile
        raise StoreNotFoundError(f"nothing at {path}", expected=DESCRIPTION, remedy="It was dropped: make it again.")
    path.mkdir(exist_ok=True)
    make_shard(path / "shard.new", dimension, vectors_per_document)
    _write(path, dimension, vectors_per_document, "shard", None)


def _read(path: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((path / DESCRIPTION).read_text("utf-8"))
        shape = {name: int(description[name]) for name in ("dimension", "vectors_per_document")}
        info = description.get("info")
        if info is not None and not isinstance(info, dict):
            raise TypeError(f"info is a {type(info).__name__}")
        shard, unindexed = description.get("shard", "shard"), int(description.get("unindexed", 0))
        if description["format"] != _FORMAT or not _SHARD.fullmatch(shard):
            raise ValueError(f"format {description['format']}, shard {shard}")
        if not any((path / name).is_dir() for name in (shard, "shard.new")):
            raise FileNotFoundError(f"no {shard}")
        return description | shape | {"shard": shard, "unindexed": unindexed}
    except (ValueError, KeyError, TypeError, OSError) as problem:
        raise StoreCorruptError(
            f"{path / DESCRIPTION} cannot be used",
            found=f"{type(problem).__name__} {problem}",
            expected=f"a description in format {_FORMAT}",
            remedy=RESTORE,
        ) from problem


def _write(
    path: Path, dimension: int, vectors_per_document: int, shard: str, info: Info | None, unindexed: int = 0
) -> None:
    shape = {"dimension": dimension, "vectors_per_document": vectors_per_document}
    optional = ({"unindexed": unindexed} if unindexed else {}) | ({} if info is None else {"info": info})
    description = {"format": _FORMAT, **shape, "shard": shard} | optional
    replace_file(path / DESCRIPTION, json.dumps(description, indent=1))
