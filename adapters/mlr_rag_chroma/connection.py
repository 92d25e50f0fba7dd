"""Connection: a chromadb client, shared by handles, that retries, and raises errors of ours only."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from mlr_rag.errors import MlrRagError, StoreLockedError, StoreUnavailableError
from mlr_rag_chroma.failures import moved, not_made, of_engine, of_input, of_server
from mlr_rag_chroma.folders import OPENING, Folder

_PATIENCE = 3.0  # seconds to try a lost server again: a restart of Chroma's takes one or two
_WRITING_MEMORY = threading.RLock()

T = TypeVar("T")


class Connection:
    """A client and what guards it. Whoever makes one, or holds it, must release it.

    Args:
        make: Gives the client.
        url: The part of a collection's URL before its name.
        own: Whether the client is to be closed in the end.
        remote: Whether it is one of a server.
        folder: What it holds of this machine's disk.

    Attributes:
        client: The chromadb client.
        lock: What writes hold.
        remote: Whether it is one of a server.
    """

    def __init__(
        self, make: Callable[[], Any], url: str, own: bool = True, remote: bool = False, folder: Folder | None = None
    ) -> None:
        self.lock = folder.lock if folder else threading.RLock() if remote else _WRITING_MEMORY
        self._url, self._own, self.remote, self._folder = url, own, remote, folder
        self._process = os.getpid()
        self._holds = 1
        try:
            with nullcontext() if remote else OPENING:
                self.client = make()
        except BaseException as problem:
            self._release_folder()
            if isinstance(problem, MlrRagError) or not isinstance(problem, Exception):
                raise
            raise not_made(problem, url, remote) from None

    @functools.cached_property
    def max_batch(self) -> int:
        """How many records one call may write."""
        return int(self.call(self.client.get_max_batch_size))

    def url_of(self, name: str) -> str:
        """What opens a collection."""
        return f"{self._url}/{name}"

    def check_space(self) -> None:
        """Refuse to write to a folder whose disk has no room.

        Raises:
            StoreFullError: nothing was begun.
        """
        if self._folder is not None:
            self._folder.check_space()

    def hold(self) -> Connection:
        """The same, which needs one more release."""
        with OPENING:
            self._holds += 1
        return self

    def release(self) -> None:
        """Give it up; the last one to do so closes the client, if it is ours, and gives up the folder."""
        with OPENING:
            self._holds -= 1
            if self._holds > 0:
                return
            if self._own and self._process == os.getpid():
                self.client.close()
            self._release_folder()

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """What the function of the client returns, which must be one that can be repeated: all are that we use.

        Raises:
            StoreUnavailableError: a server that is lost was tried again for some three seconds.
        """
        pause, until = 0.1, time.monotonic() + _PATIENCE
        while True:
            try:
                return self._call_once(function, *args, **options)
            except StoreUnavailableError:
                if time.monotonic() + pause > until:
                    raise
            time.sleep(pause)
            pause *= 2

    def _call_once(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        if self._process != os.getpid():
            raise StoreLockedError(
                f"{self._url} was opened by the process that this one was forked from",
                expected="a client of its own for each process",
                remedy="Open it after the fork.",
            )
        try:
            return function(*args, **options)
        except (MlrRagError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as problem:  # a panic of the engine does not derive from Exception
            refused = of_input(problem, self._url)
            if refused is not None:
                raise refused from None
            if self.remote:
                raise of_server(problem, self._url) from None  # what a client says may hold what it was given
            if self._folder is not None and self._folder.is_gone():
                raise moved(self._folder.path) from problem
            self.check_space()
            raise of_engine(problem, self._url) from problem

    def _release_folder(self) -> None:
        if self._folder is not None:
            self._folder.release()
