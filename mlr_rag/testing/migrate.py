"""A migration that can be killed, with a writer and two readers at work in the same process.

    python -m mlr_rag.testing.migrate URL LOG PAUSE

The collection was filled by `fill`, with model 1. The process moves it to model 2; its log, on disk before the process
goes on, gets `open`, `reindex`, `ack` with the id of each document added meanwhile, `delete` with the id of one before
it is deleted and `gone` afterwards, `fault` with whatever a reader or the writer met that must not be, `done`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlr_rag.documents import Document, Hit
from mlr_rag.memory import MemoryStore
from mlr_rag.passport import read_passport
from mlr_rag.retriever import Retriever
from mlr_rag.stores import open_store
from mlr_rag.testing.encoder import HashEncoder
from mlr_rag.testing.kill import Log, read_log, wait_for

OLD, NEW = HashEncoder(32, version="1"), HashEncoder(24, version="2")
QUESTIONS = [f"question {i}" for i in range(10)]
_PATIENCE = 120.0


class SlowEncoder(HashEncoder):
    """Model 2, which takes a while for each batch, as a model does."""

    def __init__(self, pause: float) -> None:
        super().__init__(NEW.dimension, NEW.version)
        self._pause = pause

    def encode_document(self, inputs: Sequence[str]) -> np.ndarray:
        time.sleep(self._pause)
        return super().encode_document(inputs)


def fill(url: str, count: int) -> None:
    """Make the collection that is to be migrated."""
    with Retriever.open(url, OLD) as kb:
        kb.add([Document(f"text {i}", f"item-{i}", {"n": i}) for i in range(count)])


def migrate(url: str, log: Log, pause: float) -> None:
    """The command that is killed, and run again."""
    log.write("open")
    store = open_store(url)
    moved = read_passport(store.info or {}, url).digest == NEW.fingerprint
    new = SlowEncoder(pause)
    with Retriever(new if moved else OLD, store) as kb:
        stop = threading.Event()
        workers = [threading.Thread(target=work, args=(kb, log, stop)) for work in (_write, _read, _read)]
        for worker in workers:
            worker.start()
        try:
            log.write("reindex")
            kb.reindex(new)
            time.sleep(0.1)  # the others go on for a moment with the new model
        finally:
            stop.set()
            for worker in workers:
                worker.join()
    log.write("done")


def _write(kb: Retriever, log: Log, stop: threading.Event) -> None:
    """Add documents, and delete every fourth again; a log line follows whatever was acknowledged."""
    number = 0
    with _faults(log):
        while not stop.is_set():
            id = f"added-{time.time_ns()}"
            kb.add([Document(f"text of {id}", id)])
            log.write("ack", [id])
            if number % 4 == 0:
                log.write("delete", [id])
                kb.delete([id])
                log.write("gone", [id])
            number += 1
            time.sleep(0.002)


def _read(kb: Retriever, log: Log, stop: threading.Event) -> None:
    """Search, and see that all hits of a search were scored by one model, old or new."""
    with _faults(log):
        while not stop.is_set():
            for question in QUESTIONS:
                hits = kb.search(question, 10)
                if len(hits) < 10 or not any(_scored_by(encoder, question, hits) for encoder in (OLD, NEW)):
                    raise RuntimeError(f"{question}: {[(hit.document.id, hit.score) for hit in hits]}")


def _scored_by(encoder: HashEncoder, question: str, hits: list[Hit]) -> bool:
    scores = encoder.encode_document([hit.document.text for hit in hits]) @ encoder.encode_query([question])[0]
    return bool(np.allclose(scores, [hit.score for hit in hits], atol=1e-4))


class _faults:  # noqa: N801 - used as a function is
    """Logs what must not happen."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None:
            self._log.write("fault", [f"{type(error).__name__}: {error}"])
        return True


@dataclass(frozen=True)
class Ids:
    """What must be there, and what must not; one whose deletion a kill interrupted is in neither."""

    present: set[str]
    gone: set[str]


@dataclass(frozen=True)
class Attempt:
    """One run of the command.

    Attributes:
        finished: It was not killed before its end.
        faults: What must not be: of the run itself, and of what it left.
        seconds: From the beginning of the migration to the end of the process.
    """

    finished: bool
    faults: list[str]
    seconds: float


def attempt(url: str, log: Path, pause: float, ids: Ids, kill_after: float | None) -> Attempt:
    """Run the command, kill it so many seconds after the migration began, and look at what is there.

    Args:
        url: The collection.
        log: A new file.
        pause: Seconds that model 2 takes for a batch.
        ids: What must be there, and what must not; brought up to date by what this run acknowledged.
        kill_after: None lets it run to its end.
    """
    words = [url, str(log), str(pause)]
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "mlr_rag.testing.migrate", *words])
    try:
        wait_for(log, "reindex", process)
        started = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        process.wait(_PATIENCE)
    finally:
        process.kill()
        process.wait()
    seconds, steps = time.perf_counter() - started, read_log(log)
    faults = [message for step, messages in steps if step == "fault" for message in messages]
    ids.present.update(id for step, named in steps if step == "ack" for id in named)
    ids.present.difference_update(id for step, named in steps if step == "delete" for id in named)
    ids.gone.update(id for step, named in steps if step == "gone" for id in named)
    finished = "done" in [step for step, _ in steps]
    if not finished and (kill_after is None or process.returncode != -signal.SIGKILL):
        faults.append(f"the command ended with {process.returncode}")
    return Attempt(finished, faults + check(url, ids), seconds)


def check(url: str, ids: Ids) -> list[str]:
    """What is wrong with the collection: all of it must be of the one model that its passport names."""
    faults: list[str] = []
    with closing(open_store(url)) as store:
        encoder = OLD if read_passport(store.info or {}, url).digest == OLD.fingerprint else NEW
        found: set[str] = set()
        for batch in store.scan(with_vectors=True):
            found.update(record.document.id for record in batch)
            vectors = encoder.encode_document([record.document.text for record in batch])
            for record, vector in zip(batch, vectors, strict=True):
                if record.vector is None or np.abs(record.vector - vector).max() > 1e-6:
                    faults.append(f"{record.document.id} has a vector of another model")
    faults += [f"deleted, and there again: {id}" for id in sorted(ids.gone & found)]
    return faults + [f"missing: {id}" for id in sorted(ids.present - found)]


def check_answers(url: str, encoder: HashEncoder) -> list[str]:
    """What differs from the answers of a new index of the same documents."""
    faults = []
    with Retriever(encoder, open_store(url)) as kb, Retriever(encoder, MemoryStore(encoder.dimension)) as reference:
        for batch in kb.store.scan():
            reference.add([record.document for record in batch])
        for question in QUESTIONS:
            found, expected = (_rounded(each.search(question, 10)) for each in (kb, reference))
            if found != expected:
                faults.append(f"{question}: {found}, not {expected}")
    return faults


def _rounded(hits: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.document.id, round(hit.score, 4)) for hit in hits]


def trial(url: str, logs: Path, moments: Callable[[], float], kills: int, count: int, pause: float) -> list[str]:
    """Fill, migrate with some kills, let it finish, and roll back; returns every fault."""
    logs.mkdir(parents=True, exist_ok=True)
    fill(url, count)
    ids = Ids({f"item-{i}" for i in range(count)}, set())
    faults: list[str] = []
    for number in range(kills):
        faults += attempt(url, logs / f"killed-{number}.log", pause, ids, moments()).faults
    faults += attempt(url, logs / "finished.log", pause, ids, None).faults
    faults += check_answers(url, NEW)
    with Retriever(NEW, open_store(url)) as kb:
        kb.rollback(OLD)
    return faults + check(url, ids) + check_answers(url, OLD)


if __name__ == "__main__":
    place, journal, seconds = sys.argv[1:]
    migrate(place, Log(Path(journal)), float(seconds))
