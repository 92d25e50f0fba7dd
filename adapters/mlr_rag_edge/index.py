"""The index of a large collection: built by another process, on a copy, while this one goes on reading and writing.

Without an index the engine compares a query with every vector, exactly: 100,000 of 384 dimensions take some 7 ms, and
20,000 little more than 1 ms. Building an index takes minutes of a processor and would stop every thread of this
process, as the engine keeps the interpreter's lock meanwhile. So a build goes

1. under the lock: copy the shard, which takes about a second at 100,000 documents;
2. `mlr_rag_edge.build`, in a process of low priority: index the copy; here the changed ids are noted;
3. bring the copy up to date with the changed ids, the last of them under the lock, and put it in the shard's place.

Whatever stops it before the last step, the shard is as it was, and the next open removes the copy.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qdrant_edge as qdrant

from mlr_rag.errors import StoreError
from mlr_rag.folders import check_space
from mlr_rag_edge.files import copy_folder, sync_folder
from mlr_rag_edge.shard import add_fields, fields, load_shard

if TYPE_CHECKING:
    from mlr_rag_edge.folder import Folder

logger = logging.getLogger(__name__)

ENOUGH = 20_000  # records: with fewer, search without an index takes about a millisecond
SHARE = 0.2  # of the records: with more of them outside the index, another one is built
QUERIES = 100  # after so many, one who only reads is worth an index too
QUIET = 2.0  # seconds without a write, so that an ingest in one go is followed by one build
PATIENCE = 60.0  # seconds to wait for that
NICENESS = 10  # of a build that nobody waits for
_POLL = 0.1
_TINY = 8 << 10  # bytes of vectors: with fewer, the engine may see no need for an index
_BATCH = 256
_FEW = 1024  # changed ids that are moved while writes wait
_ROUNDS = 8


class Index:
    """The building of one generation's index.

    Args:
        folder: The generation.
        lock: What its writes hold.
    """

    def __init__(self, folder: Folder, lock: threading.RLock) -> None:
        self._folder, self._lock = folder, lock
        self._thread: threading.Thread | None = None
        self._hurry, self._stopped = threading.Event(), threading.Event()
        self._changed: set[uuid.UUID] | None = None  # ids written or deleted since the copy was made
        info = folder.shard.info()
        # Since the last build; a replaced one counts. The engine's own numbers do not tell, as its index counts the
        # dead ones too; yet both are at the most what there is, even after a kill.
        self._written: int = max(0, folder.unindexed, info.points_count - info.indexed_vectors_count)
        self._failed_at = 0  # what was written when a build last failed
        self._queries = count(1)  # one that no two threads get the same number of
        self._problem: StoreError | None = None

    @property
    def running(self) -> bool:
        """Whether a build has begun, or is about to."""
        return self._thread is not None

    @property
    def unindexed(self) -> int:
        """How much was written that the index does not have."""
        return self._written

    def wrote(self, ids: Iterable[uuid.UUID], upserted: int = 0) -> None:
        """Note a change, before it is made and under the lock; start a build where it is time for one."""
        if self._changed is not None:
            self._changed.update(ids)
        self._written += upserted
        self._start_if_due()

    def searched(self) -> None:
        """Note a query."""
        if next(self._queries) == QUERIES:
            with self._lock:
                self._start_if_due()

    def build(self, wait: bool) -> None:
        """Build now, whether it is worth it or not.

        Raises:
            StoreError: where `wait`: what went wrong.
        """
        with self._lock:
            thread = self._start(niceness=0 if wait else NICENESS)
            self._hurry.set()
        if wait:
            thread.join()
            if self._problem is not None:
                raise self._problem

    def stop(self) -> None:
        """End a build, without the lock: it may be waiting for it."""
        self._stopped.set()
        self._hurry.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _start_if_due(self) -> None:
        if self._thread is not None or self._folder.shard is None:
            return
        points = self._folder.shard.info().points_count
        if points >= ENOUGH and self._written - self._failed_at > SHARE * points:
            self._start(NICENESS)

    def _start(self, niceness: int) -> threading.Thread:
        if self._thread is None:
            self._problem = None
            self._hurry.clear()
            self._thread = threading.Thread(target=self._run, args=(niceness,), name="mlr-index", daemon=True)
            self._thread.start()
        return self._thread

    def _run(self, niceness: int) -> None:
        copy = self._folder.path / f"shard-{uuid.uuid4().hex[:8]}"
        try:
            self._settle()
            self._build(copy, niceness)
        except _Stopped:
            pass
        except BaseException as problem:  # a panic of the engine does not derive from Exception
            self._problem = problem if isinstance(problem, StoreError) else StoreError(f"no index: {problem!s:.200}")
            self._failed_at = self._written  # so that the next one is tried when as much again was written
            logger.warning("%s goes on without a new index: %s", self._folder.path, self._problem)
        finally:
            with self._lock:
                self._changed = self._thread = None
                if self._folder.shard_path != copy:
                    shutil.rmtree(copy, ignore_errors=True)
                if not self._stopped.is_set():
                    self._start_if_due()  # for what was written while it was built

    def _settle(self) -> None:
        for _ in range(int(PATIENCE / QUIET)):
            before = self._written
            if self._hurry.wait(QUIET) or self._written == before:
                break

    def _build(self, copy: Path, niceness: int) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:  # it would start the application once more
            raise StoreError(
                "no Python to build the index with",
                found=f"a frozen application, {sys.executable}" if sys.executable else "no sys.executable",
                expected="an ordinary Python",
                remedy="Search stays exact; for an index, open the collection in an ordinary Python and optimize() it.",
            )
        with self._lock:
            self._check()
            self._folder.shard.flush()
            size = sum(file.stat().st_size for file in self._folder.shard_path.rglob("*") if file.is_file())
            check_space(self._folder.path, 3 * size)
            copy_folder(self._folder.shard_path, copy)
            self._changed, covered = set(), self._written
        self._build_in_child(copy, niceness)
        self._folder.check_space()  # the engine maps files with holes, and would be killed where they find no room
        fresh = load_shard(copy)
        self._check_indexed(fresh)
        changed = self._take()
        for _ in range(_ROUNDS):
            if len(changed) <= _FEW:
                break
            self._move(changed, fresh)
            changed = self._take()
        sync_folder(copy)  # most of it, while writes go on
        with self._lock:
            self._check()
            self._move(changed | self._take(), fresh)
            sync_folder(copy)
            self._folder.replace_shard(copy, fresh, self._written - covered)
            self._written -= covered
            self._failed_at = 0

    def _build_in_child(self, copy: Path, niceness: int) -> None:
        words = [str(copy), *map(str, (*self._shape(), niceness, os.getpid()))]
        child = subprocess.Popen(  # noqa: S603  # this interpreter, and a folder of ours
            [sys.executable, "-m", "mlr_rag_edge.build", *words],
            cwd=copy,  # not where this process is, whose files the other one could import
            env=os.environ | {"PYTHONPATH": os.pathsep.join(_import_paths()), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        atexit.register(child.kill)
        try:
            with child:
                while True:
                    if self._stopped.is_set():
                        child.kill()
                    with suppress(subprocess.TimeoutExpired):
                        _, said = child.communicate(timeout=_POLL)
                        break
        finally:
            atexit.unregister(child.kill)
        self._check()
        if child.returncode != 0:
            raise StoreError("the process that builds the index failed", found=f"code {child.returncode} {said[-200:]}")

    def _check_indexed(self, fresh: Any) -> None:
        info, (dimension, vectors_per_document) = fresh.info(), self._shape()
        if not info.indexed_vectors_count and 4 * info.points_count * dimension * vectors_per_document > _TINY:
            raise StoreError(
                "the process that builds the index built none",
                found=f"no index over {info.points_count} points",
                remedy=f"Check that {sys.executable} is a Python that can import mlr_rag_edge; search stays exact.",
            )

    def _shape(self) -> tuple[int, int]:
        return self._folder.dimension, self._folder.vectors_per_document

    def _take(self) -> set[uuid.UUID]:
        with self._lock:
            changed, self._changed = self._changed or set(), set()
            return changed

    def _move(self, ids: set[uuid.UUID], fresh: Any) -> None:
        """Make these points of the copy what they are in the shard now."""
        shard, waiting = self._folder.shard, iter(ids)
        add_fields(fresh, fields(shard))
        while batch := list(islice(waiting, _BATCH)):
            self._check()
            there = shard.retrieve(batch, True, True)
            self._folder.check_space([point.payload["text"] for point in there])
            found = [qdrant.Point(point.id, point.vector, point.payload) for point in there]
            gone = set(batch) - {point.id for point in found}
            if found:
                fresh.update(qdrant.UpdateOperation.upsert_points(found))
            if gone:
                fresh.update(qdrant.UpdateOperation.delete_points(list(gone)))
            fresh.flush()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise _Stopped


def _import_paths() -> list[str]:
    """Where this process imports from, less the current folder unless it is named in full."""
    return [str(Path(entry).absolute()) for entry in sys.path if Path(entry) != Path()]


class _Stopped(Exception):  # noqa: N818  # it is not an error
    """The last handle was closed meanwhile."""
