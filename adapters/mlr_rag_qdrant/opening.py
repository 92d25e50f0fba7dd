"""Clients that we make: one per folder in this process, one per server or memory that was opened."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from pathlib import Path

from qdrant_client import QdrantClient

from mlr_rag.errors import RESTORE, MlrRagError, StoreCorruptError, StoreError, StoreLockedError, StoreNotFoundError
from mlr_rag.folders import lock_folder
from mlr_rag_qdrant.connection import COUNTING, Connection
from mlr_rag_qdrant.locations import MEMORY, Folder, Location, Memory, Server

API_KEY = "QDRANT_API_KEY"
_LOCK = ".mlr_rag.lock"
_CLOSE = "Close it there first, or start a Qdrant server, which many can use at once."

_OPEN: dict[Path, Connection] = {}
_WARNED = threading.Event()


def connect(location: Location, timeout: int, must_exist: bool) -> Connection:
    """A connection to a location, counted as one handle; it needs one `release`.

    Raises:
        StoreNotFoundError: it must exist, and does not.
        StoreLockedError: another process has the folder open.
    """
    if isinstance(location, Folder):
        return _folder(location.path, must_exist)
    connection = _memory() if isinstance(location, Memory) else _server(location, timeout)
    connection.acquire()
    return connection


def _memory() -> Connection:
    client = QdrantClient(MEMORY)
    return Connection(client, f"qdrant:{MEMORY}", QdrantClient.close)


def _server(server: Server, timeout: int) -> Connection:
    client = QdrantClient(
        host=server.host,
        port=server.port,
        https=server.secure,
        prefix=server.prefix or None,
        api_key=os.environ.get(API_KEY) or None,
        timeout=timeout,
        check_compatibility=False,
    )
    return Connection(client, server.place, QdrantClient.close)


def _folder(path: Path, must_exist: bool) -> Connection:
    with COUNTING:
        if path not in _OPEN:
            _check_place(path, must_exist)
            _warn_once()
            lock = lock_folder(path, _LOCK, _CLOSE)  # the client reads the folder before it locks it
            try:
                client = _local_client(path)
            except BaseException:
                lock.release()
                raise

            def close(client: QdrantClient) -> None:
                client.close()
                _OPEN.pop(path, None)
                lock.release()

            _OPEN[path] = Connection(client, str(path), close)
        _OPEN[path].acquire()
        return _OPEN[path]


@atexit.register
def _close_all() -> None:
    """Local clients cannot close themselves any more once the interpreter goes."""
    for connection in list(_OPEN.values()):
        connection.close()


def _check_place(path: Path, must_exist: bool) -> None:
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file", expected="a folder, or nothing yet", remedy="Choose another path.")
    meta = path / "meta.json"
    if meta.exists() and meta.stat().st_size == 0 and not (path / "collection").exists():
        meta.unlink()  # left by a client that was killed while it made the folder; none could open it again
    if meta.exists():
        return
    if must_exist:
        raise StoreNotFoundError(f"no collections at {path}", remedy="Make one by adding documents, or check the path.")
    strangers = sorted(item.name for item in path.iterdir()) if path.exists() else []
    if set(strangers) - {".lock", _LOCK}:
        raise StoreCorruptError(
            f"{path} is not a folder of Qdrant, and not empty",
            found=", ".join(strangers[:5]),
            expected="meta.json, or an empty folder",
            remedy="Choose another folder, as in qdrant:./folder/name; nothing here was touched.",
        )


def _warn_once() -> None:
    if not _WARNED.is_set():
        _WARNED.set()
        warnings.warn(
            "Qdrant's local mode unpickles what is in the folder (open only folders that you trust), waits for the "
            "disk at every point, and compares a query with every vector. mlr_rag's own EdgeStore (edge:./folder) "
            "does none of these.",
            UserWarning,
            stacklevel=2,
        )


def _local_client(path: Path) -> QdrantClient:
    try:
        return QdrantClient(path=str(path), force_disable_check_same_thread=True)  # the Connection's lock sees to it
    except RuntimeError as problem:
        if "already accessed" not in str(problem):
            raise
        raise _in_use(path) from None
    except Exception as problem:
        raise StoreCorruptError(
            f"{path} cannot be opened", found=f"{type(problem).__name__}: {problem!s:.200}", remedy=RESTORE
        ) from problem


def _in_use(path: Path) -> MlrRagError:
    return StoreLockedError(
        f"another process, or another client of this one, has {path} open",
        expected="one client at a time, readers included",
        remedy=_CLOSE,
    )
