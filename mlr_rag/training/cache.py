"""What is dear to compute, kept under keys made of its content, in one file."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mlr_rag.errors import (
    InvalidInputError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
)

logger = logging.getLogger(__name__)

_APPLICATION, _VERSION = 0x6D6C7263, 1  # "mlrc", in the file's header
_PATIENCE = 60.0  # seconds that a write waits for other processes
_AT_ONCE = 500  # keys in a statement; SQLite's own limit is 999 in old versions
_CHECKSUM = 8  # bytes before each value

Kind = TypeVar("Kind")


def content_key(*parts: str) -> bytes:
    """sha256 over the parts, each preceded by its length, so that no two lists of parts have one key."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.digest()


def open_cache(kind: Callable[[str | Path | None], Kind], cache: Kind | str | Path | None) -> Kind:
    """The cache that is given, or one of this kind in the file that is; None is one that ends with the process."""
    return kind(cache) if cache is None or isinstance(cache, (str, Path)) else cache


class ContentCache:
    """Values under keys made of their content (see `content_key`), in one SQLite file; nothing is ever changed.

    Values that `put_many` has acknowledged survive the death of the process (a power cut may lose the last ones, but
    tears none). Threads and processes may share the file, though not over a network file system.

    Args:
        path: The file, made where it is missing; None for a cache that ends with the process.

    Raises:
        InvalidInputError: the file is something else, or of another version; it is left as it is.
        StoreLockedError: another process has been writing for a minute.
        StoreCorruptError: the file is damaged.
        StoreFullError: the disk is full.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path).expanduser().absolute()
        if self.path is not None and self.path.is_dir():
            raise InvalidInputError(f"{path} is a folder", expected="a file, or nothing yet")
        self._lock = threading.RLock()
        self._closed = False
        self._connection: sqlite3.Connection | None = self._connect()
        _OPEN.add(self)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values that are known, by key; one that was damaged on disk is dropped, with a warning."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, bytes] = {}
        with self._using() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                statement = f"SELECT key, CAST(value AS BLOB) FROM content WHERE key IN ({marks})"  # noqa: S608
                found.update(connection.execute(statement, part))
            damaged = [key for key, stored in found.items() if stored[:_CHECKSUM] != _checksum(key, stored[_CHECKSUM:])]
            if damaged:
                logger.warning("%s: %d of its values are damaged, and forgotten", self.path, len(damaged))
                _write(connection, "DELETE FROM content WHERE key = ?", [(key,) for key in damaged])
        for key in damaged:
            del found[key]
        return {key: stored[_CHECKSUM:] for key, stored in found.items()}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep the values, all or none; a key that is known keeps the value that it has."""
        rows = [(key, _checksum(key, value) + value) for key, value in values.items()]
        with self._using() as connection:
            _write(connection, "INSERT OR IGNORE INTO content VALUES (?, ?)", rows)

    def count(self) -> int:
        """How many values there are."""
        with self._using() as connection:
            return int(connection.execute("SELECT count(*) FROM content").fetchone()[0])

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()

    def __enter__(self) -> ContentCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> sqlite3.Connection:
        with self._told():
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                str(self.path or ":memory:"), timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table in a new file, and refuse a file that is not ours."""
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            _patiently(connection, "BEGIN IMMEDIATE")
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:  # nobody else made it
                connection.execute("CREATE TABLE content (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (application, version) != (_APPLICATION, _VERSION):
            raise InvalidInputError(
                f"{self.path} is no cache that this version can read",
                found=f"version {version}" if application == _APPLICATION else "another SQLite database",
                expected=f"version {_VERSION}",
                remedy="Choose another path.",
            )
        _patiently(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            if self._closed:
                raise StoreClosedError(f"the cache {self.path} was closed", remedy="Open it again.")
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except (sqlite3.Error, OSError) as problem:
            said = str(problem)
            if "not a database" in said:
                raise InvalidInputError(
                    f"{self.path} is no cache", found=said, expected="a file of its own", remedy="Choose another path."
                ) from problem
            if "malformed" in said:
                raise StoreCorruptError(
                    f"the cache {self.path} is damaged", found=said, remedy="Delete it: what it held is computed again."
                ) from problem
            if "locked" in said:
                raise StoreLockedError(
                    f"another process is writing to the cache {self.path}", found=said, remedy="Try again."
                ) from problem
            error = StoreFullError if "full" in said else StoreError
            raise error(f"the cache {self.path} cannot be used", found=said, expected="a writable file") from problem

    def _forked(self) -> None:
        """In a forked process the parent's connection must be neither used nor closed; it gets one of its own."""
        _INHERITED.append(self._connection)
        self._lock, self._connection = threading.RLock(), None


_OPEN: weakref.WeakSet[ContentCache] = weakref.WeakSet()
_INHERITED: list[sqlite3.Connection | None] = []


def _after_fork() -> None:
    for cache in list(_OPEN):
        cache._forked()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def _checksum(key: bytes, value: bytes) -> bytes:
    """Of the value and its key: SQLite checks its log, but not the pages of the file."""
    return hashlib.blake2b(key + value, digest_size=_CHECKSUM).digest()


def _write(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[bytes, ...]]) -> None:
    """All rows or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(statement, rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Execute what SQLite does not wait for by itself, such as becoming a write-ahead log."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as problem:
            if "locked" not in str(problem) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
