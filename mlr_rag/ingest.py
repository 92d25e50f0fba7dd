"""Ingestion: reading, encoding and writing overlap, and every written batch is durable.

    caller's thread      reads a window, validates it, leaves out what is stored unchanged
    encoding thread      encodes the window before, batch by batch
    writing thread       writes the batches before that

A handful of windows is held at a time, however many documents come.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlr_rag import progress
from mlr_rag.admission import Pair
from mlr_rag.documents import Document
from mlr_rag.encoders import Batch, stream_documents
from mlr_rag.errors import DuplicateIdError, InvalidDocumentError
from mlr_rag.gate import Gate
from mlr_rag.stores import Record, Vector

WINDOW = 2048
_CHARACTERS = 2_000_000  # of a window: long documents come in smaller ones
_WRITE = 256  # records to collect before they are written


@dataclass(frozen=True)
class Report:
    """What `add` or `sync` did.

    Attributes:
        added: Documents that were not there.
        updated: Documents whose text or metadata had changed.
        skipped: Documents that were there unchanged, or twice in the input; they were not encoded.
        deleted: Documents that `sync` found to have vanished.
        cut: Encoded documents longer than the model reads: only their beginnings can be found.
        seconds: Wall-clock time.
    """

    added: int = 0
    updated: int = 0
    skipped: int = 0
    deleted: int = 0
    cut: int = 0
    seconds: float = 0.0


def as_documents(items: Any) -> Iterable[Document]:
    """Texts or Documents, one or many, as Documents; a list is checked whole before anything is done with it.

    Raises:
        InvalidDocumentError: names the item by its place.
    """
    if isinstance(items, (str, Document)):
        items = [items]
    if not isinstance(items, Iterable) or isinstance(items, (bytes, Mapping)):
        raise InvalidDocumentError("nothing to add", found=type(items).__name__, expected="texts or Documents")
    if isinstance(items, Sequence):
        documents = list(_each(items))
        _Seen().check(documents)
        return documents
    return _each(items)


def _each(items: Iterable[Any]) -> Iterator[Document]:
    for place, item in enumerate(items):
        if isinstance(item, Document):
            yield item
            continue
        try:
            if not isinstance(item, str):
                raise InvalidDocumentError(
                    "not a text or Document", found=type(item).__name__, expected="str or Document"
                )
            yield Document(item)
        except InvalidDocumentError as problem:
            raise problem.at(f"item {place:,}") from None


class _Seen:
    """The ids of one call, as 64-bit hashes: some 60 bytes a document, and twice that for ids that the user gave."""

    def __init__(self) -> None:
        self._ids: set[int] = set()
        self._contents: dict[int, int] = {}

    def check(self, documents: Iterable[Document]) -> list[Document]:
        """The documents that have not come in this call before; a repeated one is left out.

        Raises:
            DuplicateIdError: another text or other metadata came under the same id.
        """
        fresh = []
        for document in documents:
            id, content = hash(document.id), document.content_hash
            if id not in self._ids:
                fresh.append(document)
                self._ids.add(id)
            if document.id != content and self._contents.setdefault(id, hash(content)) != hash(content):
                raise DuplicateIdError(
                    "two different documents have one id",
                    found=document.id,
                    expected="an id of its own for each",
                    remedy="Leave the id out to have one made from the content.",
                )
        return fresh

    def __contains__(self, id: str) -> bool:
        return hash(id) in self._ids


class Ingestion:
    """One run of documents into a store.

    Args:
        place: The pair of model and store to write to, asked again before each write: a migration may change it.
        gate: What a migration shuts while it changes it; None for a migration's own writes.
        show_progress: As for `Retriever.add`.
        task: What the progress bar says.
        readymade: The documents' vectors, by id, where they need not be encoded, and the pair whose model made them.

    Attributes:
        seen: The ids that came.
    """

    def __init__(
        self,
        place: Callable[[], Pair],
        gate: Gate | None,
        show_progress: bool | None = None,
        task: str = "Indexing",
        readymade: tuple[Pair, Mapping[str, Vector]] | None = None,
    ) -> None:
        self.seen = _Seen()
        self.added = self.updated = self.skipped = self.cut = 0
        self._place, self._gate, self._show, self._task = place, gate, show_progress, task
        self._readymade = readymade
        self._stop = threading.Event()
        self._writes: deque[Future[None]] = deque()

    def run(self, documents: Iterable[Document]) -> None:
        """Add every document. Whatever goes wrong, what came before it is stored, and is skipped the next time."""
        total = len(documents) if isinstance(documents, Sequence) else None
        self._bar = progress.start(self._task, total, self._show)
        with ThreadPoolExecutor(1, "mlr-write") as writing, ThreadPoolExecutor(1, "mlr-encode") as encoding:
            pending: Future[None] | None = None
            try:
                for window in _windows(documents):
                    changed = self._changed(window)
                    if pending is not None:
                        pending.result()
                    pending = encoding.submit(self._encode, changed, writing)
                self._finish(pending)
            except Exception:
                self._finish(pending)
                raise
            except BaseException:
                self._stop.set()
                raise
            finally:
                self._bar.close()

    def _finish(self, pending: Future[None] | None) -> None:
        if pending is not None:
            pending.result()
        while self._writes:
            self._writes.popleft().result()

    def _changed(self, window: list[Document]) -> list[_Changed]:
        """What must be encoded, each with whether it was there before."""
        fresh = self.seen.check(window)
        stored = self._place().store.hashes([document.id for document in fresh])
        changed = [
            _Changed(document, document.id in stored)
            for document in fresh
            if stored.get(document.id) != document.content_hash
        ]
        self.skipped += len(window) - len(changed)
        self._bar.update(len(window) - len(changed))
        return changed

    def _encode(self, window: list[_Changed], writing: ThreadPoolExecutor) -> None:
        waiting: list[tuple[_Changed, Any]] = []
        pair = self._readymade[0] if self._readymade else self._place()
        for batch in self._batches(pair, [changed.document for changed in window]):
            self.cut += batch.cut
            waiting += [(window[index], vector) for index, vector in zip(batch.indices, batch.vectors, strict=True)]
            if self._stop.is_set():
                break
            if len(waiting) >= _WRITE:
                self._submit(pair, waiting, writing)
                waiting = []
        if waiting:
            self._submit(pair, waiting, writing)

    def _batches(self, pair: Pair, documents: list[Document]) -> Iterator[Batch]:
        if self._readymade is None:
            yield from stream_documents(pair.encoder, [document.text for document in documents])
            return
        for start in range(0, len(documents), _WRITE):
            indices = range(start, min(start + _WRITE, len(documents)))
            yield Batch(indices, np.stack([self._readymade[1][documents[index].id] for index in indices]), 0)

    def _submit(self, pair: Pair, batch: list[tuple[_Changed, Any]], writing: ThreadPoolExecutor) -> None:
        """Hand over to the writing thread, which may be two batches behind, not more."""
        self._writes.append(writing.submit(self._write, pair, batch))
        if len(self._writes) > 2:
            self._writes.popleft().result()

    def _write(self, pair: Pair, batch: list[tuple[_Changed, Any]]) -> None:
        documents, vectors = [changed.document for changed, _ in batch], [vector for _, vector in batch]
        with self._gate.shared() if self._gate else nullcontext():
            now = self._place()
            if now is not pair:  # a migration came between: these vectors are the old model's
                vectors = list(now.encoder.encode_document([document.text for document in documents]))
            now.store.upsert([Record(*each) for each in zip(documents, map(_float32, vectors), strict=True)])
            if self._gate:
                now.check_written()
        known = sum(changed.known for changed, _ in batch)
        self.added += len(batch) - known
        self.updated += known
        self._bar.update(len(batch))


def _float32(vector: Any) -> Vector:
    return np.asarray(vector, np.float32)


@dataclass(frozen=True)
class _Changed:
    document: Document
    known: bool


def _windows(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Lists of up to `WINDOW` and about `_CHARACTERS`; what was read before a source failed comes before its error."""
    window: list[Document] = []
    size = 0
    try:
        for document in documents:
            window.append(document)
            size += len(document.text)
            if len(window) == WINDOW or size >= _CHARACTERS:
                yield window
                window, size = [], 0
    except Exception:
        if window:
            yield window
        raise
    if window:
        yield window
