"""Connections: to what a URL names, and by a client of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chromadb.api import ClientAPI

from mlr_rag.errors import InvalidInputError
from mlr_rag_chroma import clients
from mlr_rag_chroma.connection import Connection
from mlr_rag_chroma.folders import Folder
from mlr_rag_chroma.locations import MEMORY, Server


def to_folder(path: Path, must_exist: bool) -> Connection:
    """A connection to a folder, which this process then has for itself."""
    folder = Folder.hold(path, must_exist=must_exist)
    return Connection(lambda: clients.persistent(folder), f"chroma:{folder.path}", folder=folder)


def to_memory() -> Connection:
    """A connection to this process's memory."""
    return Connection(clients.ephemeral, f"chroma:{MEMORY}")


def to_server(server: Server) -> Connection:
    """A connection to a server."""
    return Connection(lambda: clients.http(server), server.url, remote=True)


def by_client(client: Any) -> Connection:
    """A connection by a client of the user's, which is never closed.

    Raises:
        InvalidInputError: not a client, or one of Chroma Cloud.
    """
    if not isinstance(client, ClientAPI):
        raise InvalidInputError(
            "not a client of Chroma's",
            found=type(client).__name__,
            expected="chromadb.PersistentClient(...), EphemeralClient or HttpClient",
        )
    settings = client.get_settings()
    if "fastapi" in settings.chroma_api_impl:
        return Connection(lambda: client, _url(settings), own=False, remote=True)
    if not settings.is_persistent:
        return Connection(lambda: client, f"chroma:{MEMORY}", own=False)
    folder = Folder.hold(Path(settings.persist_directory), settings)
    return Connection(lambda: client, f"chroma:{folder.path}", own=False, folder=folder)


def _url(settings: Any) -> str:
    host, port, secure = str(settings.chroma_server_host), settings.chroma_server_http_port, False
    if "//" in host:
        parts = urlsplit(host)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
    if host.endswith("trychroma.com"):
        # A collection's description needs more than the 256 bytes that it has for a value of metadata.
        raise InvalidInputError(
            "a collection cannot be kept in Chroma Cloud, whose quotas are too small for it",
            found=host,
            expected="a client of a folder, of memory or of a server",
            remedy="Use a server of your own (chroma run --path FOLDER), or another store, such as Qdrant.",
        )
    return Server(host, port, secure or bool(settings.chroma_server_ssl_enabled)).url
