"""What qdrant-client raises, as errors of ours."""

from __future__ import annotations

import errno
import sqlite3

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from mlr_rag.errors import (
    RESTORE,
    MlrRagError,
    StoreClosedError,
    StoreCorruptError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreNotFoundError,
    StoreUnavailableError,
)

_NOT_FOUND, _TOO_MANY, _UNAVAILABLE = 404, 429, 503
_DENIED = (401, 403)
_GRPC = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: _NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: _TOO_MANY,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: _UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: _UNAVAILABLE,
    grpc.StatusCode.ABORTED: _UNAVAILABLE,
}


def transient(problem: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    status = _status(problem)
    return status is not None and (status == _TOO_MANY or status >= 500)


def asked_to_wait(problem: Exception) -> float:
    """For how many seconds the server wants to be left alone."""
    return float(problem.retry_after_s) if isinstance(problem, ResourceExhaustedResponse) else 0.0


def of_server(problem: Exception, place: str) -> MlrRagError:
    """Our error for what a call to a server raised."""
    status, said = _status(problem), _said(problem)
    if transient(problem):
        return StoreUnavailableError(
            f"Qdrant at {place} cannot be reached, or stopped answering",
            found=said,
            remedy="Check the address and that the server runs. What was acknowledged remains: run the same again.",
        )
    if status in _DENIED:
        return StoreDeniedError(
            f"Qdrant at {place} did not accept the credentials",
            found=said,
            remedy="Set QDRANT_API_KEY to a key that may do this, or give QdrantStore a client that has one.",
        )
    if status == _NOT_FOUND:
        return StoreNotFoundError(f"Qdrant at {place} has no such collection", found=said)
    if _closed(problem):
        return StoreClosedError(f"the client of {place} was closed", remedy="Open the store again.")
    return StoreError(
        f"Qdrant at {place} refused a request, or answered what this client cannot read",
        found=said,
        remedy="Check that a Qdrant server of version 1.16 or later is there.",
    )


def of_folder(problem: Exception, place: str) -> MlrRagError:
    """Our error for what qdrant-client's local mode raised."""
    if _full(problem):
        return StoreFullError(f"no room on the disk for {place}", found=str(problem), remedy="Free some space.")
    if _closed(problem):
        return StoreClosedError(f"the client of {place} was closed", remedy="Open the store again.")
    if isinstance(problem, sqlite3.Error):
        return StoreCorruptError(f"{place} cannot be read or written", found=f"{problem!s:.200}", remedy=RESTORE)
    return StoreError(f"Qdrant's local mode failed at {place}", found=f"{type(problem).__name__}: {problem!s:.200}")


def _status(problem: Exception) -> int | None:
    """The HTTP status, or the one that says the same; None where nothing came back that is a status."""
    if isinstance(problem, UnexpectedResponse):
        return problem.status_code
    if isinstance(problem, QdrantException):  # too many requests, however the server words the time to wait
        return _TOO_MANY
    if isinstance(problem, ResponseHandlingException) and isinstance(problem.source, httpx.TransportError):
        return _UNAVAILABLE
    if isinstance(problem, grpc.RpcError):
        return _GRPC.get(problem.code()) if isinstance(problem, grpc.Call) else _UNAVAILABLE
    return None


def _said(problem: Exception) -> str:
    """What the server said, or what happened instead."""
    if isinstance(problem, UnexpectedResponse):
        try:
            return f"HTTP {problem.status_code}: {problem.structured()['status']['error']}"
        except (ValueError, KeyError, TypeError):  # no answer of Qdrant's
            return f"HTTP {problem.status_code} {problem.reason_phrase}".strip()
    if isinstance(problem, grpc.Call):
        return f"{problem.code().name}: {problem.details()}"
    source = problem.source if isinstance(problem, ResponseHandlingException) else problem
    return f"{type(source).__name__}: {source!s:.120}"


def _closed(problem: Exception) -> bool:
    source = problem.source if isinstance(problem, ResponseHandlingException) else problem
    return isinstance(source, RuntimeError) and "closed" in str(source)


def _full(problem: Exception) -> bool:
    if isinstance(problem, OSError):
        return problem.errno == errno.ENOSPC
    return isinstance(problem, sqlite3.OperationalError) and "full" in str(problem)
