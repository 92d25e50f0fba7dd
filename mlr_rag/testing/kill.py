"""An ingest that can be killed: the process, its log, and what must hold afterwards.

    python -m mlr_rag.testing.kill URL LOG COUNT VERSION PAUSE

The log gets a line for each step, on disk before the process goes on: `open`, `ingest`, `encode` with the ids of a
batch before it is encoded, `ack` with the ids of a batch after `upsert` has returned, `done`; or `error` with the name
of an error of ours that ended it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlr_rag.documents import Document
from mlr_rag.errors import MlrRagError, StoreNotFoundError
from mlr_rag.retriever import Retriever
from mlr_rag.stores import open_store
from mlr_rag.testing.encoder import HashEncoder

DIMENSION = 32
_PATIENCE = 120.0


def documents(count: int, version: int = 0) -> list[Document]:
    """Small documents whose text tells their id; another version changes the text and metadata of every third."""
    made = []
    for i in range(count):
        edition = version if i % 3 == 0 else 0
        text = f"item-{i} edition {edition}: {'and so on ' * (i % 7)}"
        made.append(Document(text, f"item-{i}", {"number": i, "edition": edition, "tags": [f"t{i % 5}", "é"]}))
    return made


class Log:
    """Lines that outlive the process: each is on disk when `write` returns."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="utf-8")

    def write(self, step: str, ids: list[str] | None = None) -> None:
        self._file.write(json.dumps([step, ids or []]) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class LoggingEncoder(HashEncoder):
    """Logs the ids of each batch, and takes a while for it, as a model does."""

    def __init__(self, log: Log, pause: float) -> None:
        super().__init__(DIMENSION)
        self._log, self._pause = log, pause

    def encode_document(self, inputs: Any) -> Any:
        ids = [text.split()[0] for text in inputs if text.startswith("item-")]
        if ids:
            self._log.write("encode", ids)
            time.sleep(self._pause)
        return super().encode_document(inputs)


def ingest(url: str, log: Log, count: int, version: int, pause: float) -> None:
    """The command that is killed, and run again."""
    log.write("open")
    store = open_store(url, dimension=DIMENSION)
    upsert = store.upsert

    def acknowledged(records: Any) -> None:
        upsert(records)
        log.write("ack", [record.document.id for record in records])

    store.upsert = acknowledged  # type: ignore[method-assign]
    with Retriever(LoggingEncoder(log, pause), store) as kb:
        log.write("ingest")
        kb.add(documents(count, version))
    log.write("done")


@dataclass(frozen=True)
class Run:
    """One run of the command, as its log tells it."""

    killed: bool
    encoded: frozenset[str]
    acknowledged: frozenset[str]
    seconds: float


def run(url: str, log: Path, count: int, version: int = 0, pause: float = 0.02, kill: Any = None) -> Run:
    """Run the command in a process of its own; `kill=(step, seconds)` kills it so long after a step."""
    process = start(url, log, count, version, pause)
    try:
        wait_for(log, "ingest" if kill is None else kill[0], process)
        started = time.perf_counter()
        if kill is not None:
            time.sleep(kill[1])
            process.kill()  # SIGKILL: nothing of the process runs any more
        code = process.wait(_PATIENCE)
    finally:
        process.kill()
        process.wait()
    seconds, steps = time.perf_counter() - started, read_log(log)
    if code != 0 and kill is None:
        raise RuntimeError(f"the command failed with {code}")
    named = {step: frozenset(id for name, ids in steps if name == step for id in ids) for step in ("encode", "ack")}
    return Run("done" not in [step for step, _ in steps], named["encode"], named["ack"], seconds)


def start(url: str, log: Path, count: int, version: int = 0, pause: float = 0.02) -> subprocess.Popen[Any]:
    """The command, running in a process of its own."""
    words = [url, str(log), str(count), str(version), str(pause)]
    return subprocess.Popen([sys.executable, "-W", "ignore", "-m", "mlr_rag.testing.kill", *words])


def wait_for(log: Path, step: str, process: subprocess.Popen[Any]) -> None:
    """Until the process has logged a step."""
    until = time.monotonic() + _PATIENCE
    while step not in [name for name, _ in read_log(log)]:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the command never came to {step!r} (exit code {process.poll()})")
        time.sleep(0.002)


def read_log(log: Path) -> list[tuple[str, list[str]]]:
    """The whole lines of a log; a line that the kill tore was not finished, and says nothing."""
    lines = log.read_text("utf-8").split("\n")[:-1] if log.exists() else []
    return [(step, ids) for step, ids in map(json.loads, lines)]


def check(url: str, expected: list[Document], older: list[Document], must_have: frozenset[str]) -> list[str]:
    """What is wrong with a collection: each record must be one of these documents whole, with its own vector.

    Args:
        url: The collection; opening it also shows that the killed process left no lock.
        expected: What the command writes.
        older: The version before: each of these ids must be there, in this version or the expected one.
        must_have: Ids of `expected` that must be there.
    """
    try:
        opened = open_store(url)
    except StoreNotFoundError:
        return [f"missing: {id}" for id in sorted(must_have)]
    encoder = HashEncoder(DIMENSION)
    whole = {(document.id, document.content_hash): document for document in [*older, *expected]}
    newest = {document.id: document for document in expected}
    faults: list[str] = []
    with closing(opened) as store:
        if (must_have or older) and (store.info or {}).get("passport", {}).get("digest") != encoder.fingerprint:
            faults.append(f"no passport, or another one: {store.info}")
        records = [record for batch in store.scan(with_vectors=True) for record in batch]
        found = {record.document.id: record.document for record in records}
        if not len(found) == len(records) == store.count():
            faults.append(f"doubled: {len(records)} records, {len(found)} ids, count {store.count()}")
        if store.hashes(list(found)) != {id: document.content_hash for id, document in found.items()}:
            faults.append("torn: a hash is not that of the content beside it")
        for record in records:
            document = record.document
            if whole.get((document.id, document.content_hash)) != document:
                faults.append(f"torn: {document.id} has another text or metadata")
            if np.abs(record.vector - encoder.encode_document([document.text])[0]).max() > 1e-6:
                faults.append(f"torn: {document.id} has the vector of another text")
        for id in sorted(must_have & newest.keys())[:: max(1, len(must_have) // 20)]:
            vector = encoder.encode_document([newest[id].text])[0]
            if [match.record.document for match in store.query(vector, 1)] != [newest[id]]:
                faults.append(f"not found by its own vector: {id}")
    faults += [f"missing: {document.id}" for document in older if document.id not in found]
    return faults + [f"missing: {id}" for id in sorted(must_have) if found.get(id) != newest[id]]


@dataclass(frozen=True)
class Trial:
    """What a kill and a second run left."""

    killed: Run
    faults_after_kill: list[str]
    faults_after_rerun: list[str]
    encoded_again: frozenset[str]


def trial(url: str, logs: Path, count: int, version: int, pause: float, kill: tuple[str, float]) -> Trial:
    """Kill the command, look at what it left, run it again to its end, and look again; `logs` is a folder."""
    expected, older = documents(count, version), documents(count) if version else []
    logs.mkdir(parents=True, exist_ok=True)
    killed = run(url, logs / "killed.log", count, version, pause, kill)
    after_kill = check(url, expected, older, killed.acknowledged)
    again = run(url, logs / "again.log", count, version, pause)
    after_rerun = check(url, expected, [], frozenset(document.id for document in expected))
    return Trial(killed, after_kill, after_rerun, killed.acknowledged & again.encoded)


if __name__ == "__main__":
    place, journal, count, version, pause = sys.argv[1:]
    into = Log(Path(journal))
    try:
        ingest(place, into, int(count), int(version), float(pause))
    except MlrRagError as problem:
        into.write("error", [type(problem).__name__])
        sys.exit(f"{type(problem).__name__}: {problem}")
