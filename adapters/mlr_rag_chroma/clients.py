"""The chromadb clients that we make: without telemetry, with timeouts, with credentials from the environment only."""

from __future__ import annotations

import os
from typing import Any

import chromadb
import httpx
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings

from mlr_rag.errors import StoreDeniedError
from mlr_rag_chroma.folders import Folder
from mlr_rag_chroma.locations import Server

_TIMEOUT = httpx.Timeout(60, connect=5)
_TOKEN = "chromadb.auth.token_authn.TokenAuthClientProvider"  # noqa: S105 - the name of a class


def persistent(folder: Folder) -> Any:
    """A client of a folder."""
    return chromadb.PersistentClient(folder.settings.persist_directory, settings=folder.settings)


def ephemeral() -> Any:
    """A client of this process's memory, which all of them share."""
    return chromadb.EphemeralClient(settings=Settings(anonymized_telemetry=False))


def http(server: Server) -> Any:
    """A client of a server: CHROMA_AUTH_TOKEN, CHROMA_TENANT and CHROMA_DATABASE are used where they are set."""
    httpx.get(f"{server.address}/api/v2/heartbeat", timeout=_TIMEOUT)  # the client would wait for ever to be made
    token = os.environ.get("CHROMA_AUTH_TOKEN")
    settings = Settings(
        anonymized_telemetry=False,
        chroma_server_host=server.address,
        chroma_server_http_port=server.port,
        chroma_client_auth_provider=_TOKEN if token else None,
        chroma_client_auth_credentials=token or None,
    )
    client = chromadb.HttpClient(
        server.address,
        server.port,
        ssl=server.secure,
        settings=settings,
        tenant=os.environ.get("CHROMA_TENANT", DEFAULT_TENANT),
        database=os.environ.get("CHROMA_DATABASE", DEFAULT_DATABASE),
    )
    return _with_timeout(client)


def cloud() -> Any:
    """A client of Chroma Cloud, by CHROMA_API_KEY, CHROMA_TENANT and CHROMA_DATABASE.

    Raises:
        StoreDeniedError: there is no key in the environment.
    """
    if not os.environ.get("CHROMA_API_KEY"):
        raise StoreDeniedError(
            "no credentials for Chroma Cloud",
            found="CHROMA_API_KEY is not set",
            remedy="Set CHROMA_API_KEY, and CHROMA_TENANT and CHROMA_DATABASE where the key is not for one database.",
        )
    return _with_timeout(chromadb.CloudClient(settings=Settings(anonymized_telemetry=False)))


def _with_timeout(client: Any) -> Any:
    """The same client, which would wait for ever for a server that hangs: chromadb has no setting for it."""
    session = getattr(getattr(client, "_server", None), "_session", None)
    if session is not None:
        session.timeout = _TIMEOUT
    return client
