"""The chromadb clients that we make: without telemetry, with timeouts, with credentials from the environment only."""

from __future__ import annotations

import os
from typing import Any

import chromadb
import httpx
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT

from mlr_rag_chroma.folders import Folder
from mlr_rag_chroma.locations import Server
from mlr_rag_chroma.settings import settings

_TIMEOUT = httpx.Timeout(60, connect=5)
_HTTP = "chromadb.api.fastapi.FastAPI"
_TOKEN = "chromadb.auth.token_authn.TokenAuthClientProvider"  # noqa: S105 - the name of a class


def persistent(folder: Folder) -> Any:
    """A client of a folder."""
    return chromadb.PersistentClient(folder.settings.persist_directory, settings=folder.settings)


def ephemeral() -> Any:
    """A client of this process's memory, which all of them share."""
    return chromadb.EphemeralClient(settings=settings())


def http(server: Server) -> Any:
    """A client of a server: CHROMA_AUTH_TOKEN, CHROMA_TENANT and CHROMA_DATABASE are used where they are set."""
    httpx.get(f"{server.address}/api/v2/heartbeat", timeout=_TIMEOUT)  # the client would wait for ever to be made
    token = os.environ.get("CHROMA_AUTH_TOKEN")
    given = settings(
        chroma_api_impl=_HTTP,
        chroma_server_host=server.address,
        chroma_server_http_port=server.port,
        chroma_client_auth_provider=_TOKEN if token else None,
        chroma_client_auth_credentials=token or None,
    )
    client = chromadb.HttpClient(
        server.address,
        server.port,
        ssl=server.secure,
        settings=given,
        tenant=os.environ.get("CHROMA_TENANT", DEFAULT_TENANT),
        database=os.environ.get("CHROMA_DATABASE", DEFAULT_DATABASE),
    )
    return _with_timeout(client)


def _with_timeout(client: Any) -> Any:
    """The same client, which would wait for ever for a server that hangs: chromadb has no setting for it."""
    session = getattr(getattr(client, "_server", None), "_session", None)
    if session is not None:
        session.timeout = _TIMEOUT
    return client
