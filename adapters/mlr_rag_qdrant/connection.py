"""One client, shared by the handles that came from it: its lock or its patience, and its end."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient, QdrantClient

from mlr_rag.errors import MlrRagError, StoreLockedError, StoreNotFoundError
from mlr_rag_qdrant.failures import asked_to_wait, of_folder, of_server, transient

Result = TypeVar("Result")

_TRIES = 5
_PAUSE = 0.25  # seconds after the first try; each later pause is twice as long
_LONGEST = 60.0  # seconds that a server may ask to be left alone

_LOCKS: WeakKeyDictionary[QdrantClient, AbstractContextManager[Any]] = WeakKeyDictionary()
_LOCKING = threading.Lock()
COUNTING = threading.RLock()  # held while handles come and go, and clients are opened and closed


def is_local(client: QdrantClient) -> bool:
    """Whether a client is qdrant-client's local mode, in memory or in a folder."""
    options = client.init_options
    return options["location"] == ":memory:" or options["path"] is not None


class Connection:
    """A client and the handles on it.

    Local clients are not safe for threads: one lock per client serialises all calls. A call to a server is made
    again while the server may recover, so it must be one that can be made twice.

    Args:
        client: The client.
        place: Where it leads, for errors; holds no credentials.
        on_close: What to do with it when the last handle was released; None leaves it to its owner.
        async_client: For `acall`; None makes one with the options of `client`.
    """

    def __init__(
        self,
        client: QdrantClient,
        place: str,
        on_close: Callable[[QdrantClient], None] | None = None,
        async_client: AsyncQdrantClient | None = None,
    ) -> None:
        self.place, self.remote, self.handles = place, not is_local(client), 0
        self._client, self._on_close, self._given = client, on_close, async_client
        self._made: dict[asyncio.AbstractEventLoop, AsyncQdrantClient] = {}
        self.memory = id(client) if client.init_options["location"] == ":memory:" else 0  # all these have one URL
        self._process = os.getpid()
        self._lock = nullcontext() if self.remote else _lock_of(client)

    def call(self, request: Callable[[QdrantClient], Result], collection: str | None = None) -> Result:
        """What a request to the client gives; what it raises comes out as ours.

        Raises:
            StoreNotFoundError: the `collection` that it is about is not there.
        """
        if not self.remote:
            return self._locally(request, collection)
        tries = 0
        while True:
            try:
                return request(self._client_here())
            except MlrRagError:
                raise
            except Exception as problem:
                tries += 1
                pause = self._pause(problem, tries)
            time.sleep(pause)

    async def acall(self, request: Callable[[AsyncQdrantClient], Awaitable[Result]]) -> Result:
        """`call`, of a server, without blocking the event loop."""
        client, tries = self._async_client_here(), 0
        while True:
            try:
                return await request(client)
            except MlrRagError:
                raise
            except Exception as problem:
                tries += 1
                pause = self._pause(problem, tries)
            await asyncio.sleep(pause)

    def acquire(self) -> None:
        """Count one more handle; each needs one `release`."""
        with COUNTING:
            self.handles += 1

    def release(self) -> None:
        """Give up one handle; the last one closes what was opened for them."""
        with COUNTING:
            self.handles -= 1
            if self.handles == 0:
                self.close()

    def close(self) -> None:
        """Close what was opened for the handles, however many there are."""
        for loop, client in self._made.items():
            if loop.is_running():  # otherwise its connections went with it
                asyncio.run_coroutine_threadsafe(client.close(), loop)
        self._made = {}
        if self._on_close is not None and os.getpid() == self._process:
            with self._lock:
                self._on_close(self._client)

    def _locally(self, request: Callable[[QdrantClient], Result], collection: str | None) -> Result:
        if self._on_close is not None and os.getpid() != self._process:
            raise StoreLockedError(
                f"{self.place} was opened by the process that this one was forked from",
                expected="one process at a time",
                remedy="Open it after the fork, in one of the processes.",
            )
        with self._lock:
            try:
                return request(self._client)
            except (MlrRagError, Warning):
                raise
            except Exception as problem:
                if isinstance(problem, ValueError) and collection and not self._client.collection_exists(collection):
                    raise StoreNotFoundError(f"{self.place} has no collection {collection}") from None
                raise of_folder(problem, self.place) from problem

    def _pause(self, problem: Exception, tries: int) -> float:
        """How long to wait before the next try; raises when there is no use in one."""
        if tries == _TRIES or not transient(problem):
            raise of_server(problem, self.place) from problem
        pause = _PAUSE * 2.0 ** (tries - 1) * random.uniform(0.5, 1)  # noqa: S311 - to spread clients, not to hide
        return max(pause, min(asked_to_wait(problem), _LONGEST))

    def _client_here(self) -> QdrantClient:
        """The client; another one after a fork, as two processes must not read from one socket."""
        if self._on_close is not None and os.getpid() != self._process:
            self._client, self._process = QdrantClient(**self._client.init_options), os.getpid()
        return self._client

    def _async_client_here(self) -> AsyncQdrantClient:
        """The client of the running event loop: its sockets can be used by no other."""
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        with COUNTING:
            self._made = {known: client for known, client in self._made.items() if not known.is_closed()}
            if loop not in self._made:
                self._made[loop] = AsyncQdrantClient(**self._client.init_options | {"check_compatibility": False})
            return self._made[loop]


def _lock_of(client: QdrantClient) -> AbstractContextManager[Any]:
    """The lock of a local client, the same for every Connection to it."""
    with _LOCKING:
        return _LOCKS.setdefault(client, threading.RLock())
