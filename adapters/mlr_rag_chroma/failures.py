"""What chromadb raises, as errors of ours: nothing of a client comes through, nor of its credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
from chromadb.errors import (
    AuthorizationError,
    ChromaAuthError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    RateLimitError,
)

from mlr_rag.errors import (
    RESTORE,
    InvalidFilterError,
    InvalidInputError,
    StoreClosedError,
    StoreCorruptError,
    StoreDeniedError,
    StoreError,
    StoreLockedError,
    StoreNotFoundError,
    StoreUnavailableError,
)

# Of a filter of ours, which is never a wrong one; the last two are of one that is nested too deeply to be read.
_TOO_LARGE = (
    "Expression tree is too large", "too many SQL variables", "ecursion limit", "Invalid where clause",
)  # fmt: skip
_BUSY = {429, 502, 503, 504}


def closed(url: str) -> StoreClosedError:
    """What to raise where a handle was closed, or its generation dropped."""
    return StoreClosedError("this store was closed, or dropped", found=url, remedy="Open it again.")


def filter_too_large() -> InvalidFilterError:
    """What to raise for a filter that Chroma, or SQLite under it, cannot take."""
    return InvalidFilterError(
        "a filter is too large for Chroma",
        expected="at most some fifty levels, and some ten thousand values",
        remedy="Split it, and ask once for each part.",
    )


def of_input(problem: BaseException, url: str) -> InvalidInputError | None:
    """What to raise for what chromadb raised of what it was given; None where that was not the matter."""
    text = _text(problem)
    if isinstance(problem, RecursionError) or any(words in str(problem) for words in _TOO_LARGE):
        return filter_too_large()
    # Not the ValueErrors of others, such as of an answer that is not JSON.
    argument = isinstance(problem, InvalidArgumentError) or type(problem) in (ValueError, TypeError, OverflowError)
    if argument or "Failed to deserialize the JSON body" in text:  # such as for a number that no engine can count to
        return InvalidInputError(f"Chroma cannot use what was given to {url}", found=text)
    return None


def moved(path: Path) -> StoreError:
    """What to raise where a folder that is open is no longer where it was."""
    return StoreError(
        f"{path} was moved or deleted while it was open",
        expected="the folder that was opened",
        remedy="Close it, move the folder back, and open it again.",
    )


def of_server(problem: BaseException, url: str) -> StoreError | InvalidInputError:
    """What to raise for what a client of a server raised."""
    chain = list(_chain(problem))
    status = next((each.response.status_code for each in chain if isinstance(each, httpx.HTTPStatusError)), None)
    if isinstance(problem, (ChromaAuthError, AuthorizationError)) or status in (401, 403):
        return StoreDeniedError(
            f"the server of {url} did not accept the credentials",
            remedy="Set CHROMA_AUTH_TOKEN, CHROMA_TENANT and CHROMA_DATABASE, or give ChromaStore a client of yours.",
        )
    if isinstance(problem, NotFoundError):
        return closed(url)
    if status == 413:
        return InvalidInputError(
            f"the server of {url} does not take a document as large as one of these",
            remedy="Split it, or raise max_payload_size_bytes in the server's configuration.",
        )
    lost = any(isinstance(each, (httpx.TransportError, RateLimitError)) for each in chain)
    if lost or status in _BUSY:
        return StoreUnavailableError(
            f"the server of {url} cannot be reached, or stopped answering",
            found=status or type(chain[-1]).__name__,
            remedy="Start it (chroma run --path FOLDER), or check the address; then make the same call again: what was "
            "acknowledged is stored, and is skipped.",
        )
    return StoreError(
        f"the server of {url} failed",
        found=f"{type(problem).__name__} {_text(problem)}",
        expected="a Chroma server of version 1.5 or newer",
    )


def of_engine(problem: BaseException, url: str) -> StoreError:
    """What to raise for what Chroma raised in this process, its panics included."""
    text = _text(problem)
    if isinstance(problem, NotFoundError) or (isinstance(problem, AttributeError) and "bindings" in text):
        return closed(url)  # without bindings is a client that was closed
    if isinstance(problem, InternalError) and "database is locked" in text:
        return StoreLockedError(
            f"another process writes to {url}", found=text, remedy="Close it there first, or use a server for both."
        )
    return StoreCorruptError(
        f"the engine cannot read or write {url}", found=f"{type(problem).__name__} {text}", remedy=RESTORE
    )


def not_made(problem: Exception, url: str, remote: bool) -> StoreError | InvalidInputError:
    """What to raise for what a client raised while it was made."""
    if isinstance(problem, NotFoundError):
        return StoreNotFoundError(
            f"{url} does not have the tenant or the database",
            found=_text(problem),
            remedy="Check CHROMA_TENANT and CHROMA_DATABASE.",
        )
    if "different settings" in str(problem):
        return StoreLockedError(
            f"this process has a client of {url} with other settings",
            expected="one client for all",
            remedy='Use that one: ChromaStore(client, "name").',
        )
    return of_server(problem, url) if remote else of_engine(problem, url)


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__ or problem.__context__


def _text(problem: BaseException) -> str:
    return f"{problem!s:.200}"
