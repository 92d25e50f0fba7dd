"""What is Edge's own: the layout of its folder, kill -9 at every step of it, and the index."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mlr_rag import Document
from mlr_rag.errors import StoreClosedError, StoreCorruptError, StoreError, StoreFullError
from mlr_rag.filters import parse
from mlr_rag.memory import MemoryStore
from mlr_rag.stores import Record, open_store
from mlr_rag.testing.vectors import vector_of
from mlr_rag_edge import EdgeStore, index, shard
from mlr_rag_edge.index import Index

ROOT = Path(__file__).parents[1]
DIMENSION = 16
_PATIENCE = 60.0


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Unit rows around twenty centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(20, DIMENSION))
    found = centres[rng.integers(0, 20, n)] + 0.3 * rng.normal(size=(n, DIMENSION))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def records(n: int, start: int = 0) -> list[Record]:
    found = rows(start + n)[start:]
    return [Record(Document(f"text {i}", str(i), {"n": i}), row) for i, row in enumerate(found, start)]


def names(folder: Path) -> list[str]:
    return sorted(item.name.split("-")[0] for item in folder.iterdir())


def indexed(store: EdgeStore) -> int:
    return int(store._folder.shard.info().indexed_vectors_count)


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb"


@pytest.fixture
def store(kb: Path) -> Iterator[EdgeStore]:
    with closing(EdgeStore(kb, DIMENSION)) as store:
        yield store


class TestLayout:
    def test_generations(self, store: EdgeStore, kb: Path) -> None:
        assert names(kb) == [".lock", "collection.json", "shard"]
        side = store.beside(2, 8)
        assert names(kb / "generation-2") == ["collection.json", "shard"]
        store.switch(2)
        assert (kb / "current").read_text() == "2"
        store.drop()
        assert names(kb) == [".lock", "current", "generation"]
        side.close()

    def test_a_folder_of_the_first_release(self, kb: Path) -> None:
        """It has neither `current` nor the name of its shard."""
        with closing(EdgeStore(kb, DIMENSION)) as store:
            store.upsert(records(3))
        description = json.loads((kb / "collection.json").read_text())
        del description["shard"]
        (kb / "collection.json").write_text(json.dumps(description))
        with closing(open_store(str(kb))) as again:
            assert (again.generation, again.count()) == (1, 3)

    def test_nothing_is_left_of_a_dropped_collection(self, store: EdgeStore, kb: Path) -> None:
        store.beside(2, 8).close()
        store.drop()
        assert not kb.exists()

    def test_what_is_not_ours_is_left(self, store: EdgeStore, kb: Path) -> None:
        (kb / "notes.txt").write_text("mine")
        store.drop()
        assert names(kb) == ["notes.txt"]

    @pytest.mark.parametrize("text", ["", "two", "7"])
    def test_a_damaged_pointer(self, kb: Path, text: str) -> None:
        with closing(EdgeStore(kb, DIMENSION)) as store:
            store.beside(2, 8).close()
        (kb / "current").write_text(text)
        for _ in range(2):  # the lock was released: the same error again
            with pytest.raises(StoreCorruptError, match="current cannot be used"):
                open_store(str(kb))

    def test_a_generation_is_not_a_collection(self, store: EdgeStore, kb: Path) -> None:
        store.beside(2, 8).close()
        with pytest.raises(StoreError, match=r"part of the collection .*Open "):
            EdgeStore(kb / "generation-2")

    def test_a_generation_without_its_description_is_not_overwritten(self, store: EdgeStore, kb: Path) -> None:
        store.beside(2, 8).close()
        (kb / "generation-2" / "collection.json").unlink()
        with pytest.raises(StoreCorruptError, match="without a description"):
            store.beside(2, 8)
        assert names(kb / "generation-2") == ["shard"]


def _fill(kb: Path) -> EdgeStore:
    store = EdgeStore(kb, DIMENSION)
    if store.generation == 1:
        store.upsert(records(30))
    return store


def _migrate(kb: Path) -> None:
    store = _fill(kb)
    if store.current() == 1:
        with closing(store.beside(2, DIMENSION)) as side:
            side.upsert(records(30))
        store.switch(2)
    if 1 in store.generations():
        store.beside(1).drop()
    store.close()


def _drop(kb: Path) -> None:
    EdgeStore(kb, DIMENSION).drop()


def _optimize(kb: Path) -> None:
    with closing(EdgeStore(kb)) as store:
        store.optimize()
        assert indexed(store) == 30


def _whole(kb: Path) -> None:
    """What must hold after a kill: it opens, and has every record, or none."""
    with closing(EdgeStore(kb, DIMENSION)) as store:
        assert store.current() in store.generations()
        assert store.count() in (0, 30)
        assert {match.record.document.id for match in store.query(rows(1)[0], 30)} == {
            record.document.id for batch in store.scan() for record in batch
        }


def _filled(kb: Path) -> None:
    with closing(EdgeStore(kb)) as store:
        assert sorted(int(record.document.id) for batch in store.scan() for record in batch) == list(range(30))
    assert names(kb) == [".lock", "collection.json", "shard"]


def _moved(kb: Path) -> None:
    with closing(EdgeStore(kb)) as store:
        assert (store.generations(), store.count()) == ([2], 30)
    assert names(kb) == [".lock", "current", "generation"]


def _gone(kb: Path) -> None:
    assert not kb.exists()


_Step = Callable[[Path], None]
_TRIALS: dict[str, tuple[_Step, _Step, _Step]] = {  # what is killed, what holds then, and after it ran again
    "migrate": (_migrate, _whole, _moved),
    "drop": (_drop, _whole, _gone),
    "optimize": (_optimize, _filled, _filled),
}
_TOUCHING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def _is_of(kb: Path, touched: str) -> bool:
    """Whether it is a file of the collection, or the whole folder of a shard; not a file of the engine's in one."""
    inside = Path(touched).relative_to(kb).parents if touched.startswith(str(kb)) else ()
    return touched.startswith(str(kb)) and not any(folder.name.startswith("shard") for folder in inside)


def _forked(step: _Step, kb: Path, kill_at: int | None = None) -> int:
    """The exit code of a process that does this; it is killed before it touches the file system the n-th time."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = kill_at

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if left is None or not (event == "subprocess.Popen" or (event in _TOUCHING and _is_of(kb, str(arguments[0])))):
            return
        left -= 1
        if left < 0 and event == "subprocess.Popen":
            threading.Timer(0.1, os.kill, (os.getpid(), 9)).start()  # while the other process is at work
            left = None
        elif left < 0:
            os.kill(os.getpid(), 9)

    try:
        sys.addaudithook(hook)
        step(kb)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _trials(name: str, scratch: Path) -> None:
    """Kill it at one touch of the file system after another, until it comes to its end."""
    step, after_kill, after_rerun = _TRIALS[name]
    killed = 0
    for touch in range(100):
        kb = scratch / f"{touch}" / "kb"
        kb.parent.mkdir()
        if name != "migrate":
            assert _forked(lambda kb: _fill(kb).close(), kb) == 0
        code = _forked(step, kb, touch)
        if code != 0:
            assert code == -9, f"touch {touch}: {code}"
            killed += 1
            assert _forked(after_kill, kb) == 0, f"after a kill at touch {touch}"
            assert _forked(step, kb) == 0, f"again after a kill at touch {touch}"
        assert _forked(after_rerun, kb) == 0, f"at the end, killed at touch {touch}"
        if code == 0:
            break
    assert killed > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name", _TRIALS)
def test_killed_at_any_step(name: str, tmp_path: Path) -> None:
    """In a process of its own that forks: one that has used the engine must not."""
    memory = Path("/dev/shm")  # many small writes, each of them synced
    script = "import pathlib, sys, tests.test_edge as test; test._trials(sys.argv[1], pathlib.Path(sys.argv[2]))"
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as scratch:
        words = [sys.executable, "-W", "ignore", "-c", script, name, scratch]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


class TestIndex:
    """What is found with an index, and how it comes about."""

    def test_it_is_used_and_finds_what_exact_search_finds(self, store: EdgeStore) -> None:
        written = records(2000)
        store.upsert(written)
        assert indexed(store) == 0
        store.optimize()
        assert indexed(store) == store.count() == 2000
        exact = MemoryStore(DIMENSION)
        exact.upsert(written)
        for condition in (None, parse({"n": 7}), parse({"n": {"$gte": 100, "$lt": 1500}}), parse({"n": {"$ne": 3}})):
            for query in rows(20, seed=1):
                wanted = [match.record.document.id for match in exact.query(query, 10, condition)]
                assert [match.record.document.id for match in store.query(query, 10, condition)] == wanted

    def test_ties_are_cut_by_id(self, store: EdgeStore) -> None:
        row = rows(1)[0]
        store.upsert([Record(Document("same", f"{i:03}"), row) for i in reversed(range(50))])
        store.optimize()
        assert [match.record.document.id for match in store.query(row, 3)] == ["000", "001", "002"]

    def test_several_vectors_a_document(self, kb: Path) -> None:
        found = rows(600).reshape(200, 3, DIMENSION)
        with closing(EdgeStore(kb, DIMENSION, 3)) as store:
            store.upsert([Record(Document(f"text {i}", str(i)), rows) for i, rows in enumerate(found)])
            store.optimize()
            assert indexed(store) == 200
            query = rows(1, seed=3)[0]
            wanted = np.argsort(-(found @ query).max(1))[:5]
            assert [match.record.document.id for match in store.query(query, 5)] == [str(i) for i in wanted]

    def test_writes_and_deletes_during_a_build_are_in_it(
        self, store: EdgeStore, kb: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.upsert(records(300))
        build = Index._build_in_child

        def meanwhile(self: Index, copy: Path, niceness: int) -> None:
            build(self, copy, niceness)
            store.upsert(records(400, start=300))
            store.upsert([Record(Document("another", "5", {"n": 5, "new": 1.5}), rows(1, seed=2)[0])])
            store.delete(ids=["6", "699"])
            store.delete(filter=parse({"n": {"$gte": 10, "$lt": 20}}))
            assert store.query(rows(1, seed=2)[0], 1)[0].record.document.id == "5"

        monkeypatch.setattr(Index, "_build_in_child", meanwhile)
        monkeypatch.setattr(index, "_FEW", 100)
        store.optimize()
        monkeypatch.undo()

        def check(store: EdgeStore) -> None:
            found = {record.document.id: record for batch in store.scan(with_vectors=True) for record in batch}
            assert set(found) == {str(i) for i in range(699) if i != 6 and not 10 <= i < 20}
            assert found["5"].document == Document("another", "5", {"n": 5, "new": 1.5})
            np.testing.assert_allclose(vector_of(found["5"]), rows(1, seed=2)[0], atol=1e-6)
            assert store.count(parse({"new": {"$gt": 1}})) == 1

        check(store)
        assert indexed(store) == 300
        store.close()
        with closing(EdgeStore(kb)) as again:
            check(again)
            again.optimize()
            assert indexed(again) >= again.count()
        assert names(kb) == [".lock", "collection.json", "shard"]

    def test_it_is_built_by_itself(self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index, "ENOUGH", 200)
        monkeypatch.setattr(index, "QUIET", 0.01)
        store.upsert(records(199))
        store.upsert([])
        assert store._folder.index._thread is None
        store.upsert(records(10, start=199))
        store.upsert(records(10, start=209))
        wait_until(lambda: indexed(store) >= 209)
        wait_until(lambda: store._folder.index._thread is None)
        store.upsert(records(10, start=219))
        assert store._folder.index._thread is None, "few of them are outside the index"

    def test_readers_get_one_too(self, kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with closing(EdgeStore(kb, DIMENSION)) as store:
            store.upsert(records(200))
        monkeypatch.setattr(index, "ENOUGH", 200)
        monkeypatch.setattr(index, "QUERIES", 3)
        monkeypatch.setattr(index, "QUIET", 0.01)
        with closing(EdgeStore(kb)) as store:
            for query in rows(3):
                assert store.query(query, 5)
            wait_until(lambda: indexed(store) == 200)

    def test_closing_ends_a_build(self, store: EdgeStore, kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store.upsert(records(100))
        started = _endless(monkeypatch, kb.parent)
        store.optimize(wait=False)
        wait_until(started.exists)
        assert names(kb) == [".lock", "collection.json", "shard", "shard"]
        store.close()
        assert names(kb) == [".lock", "collection.json", "shard"]
        with pytest.raises(StoreClosedError):
            store.optimize()
        with closing(EdgeStore(kb)) as again:
            assert again.count() == 100

    def test_dropping_ends_a_build(self, store: EdgeStore, kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        side = store.beside(2, DIMENSION)
        side.upsert(records(100))
        started = _endless(monkeypatch, kb.parent)
        side.optimize(wait=False)
        wait_until(started.exists)
        side.drop()
        assert names(kb) == [".lock", "collection.json", "shard"]

    def test_a_failed_build_changes_nothing(
        self, store: EdgeStore, kb: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.upsert(records(100))
        monkeypatch.setattr(sys, "executable", str(_program(kb.parent, "echo out of luck >&2; exit 3")))
        with caplog.at_level(logging.WARNING), pytest.raises(StoreError, match="code 3 out of luck"):
            store.optimize()
        assert "without a new index" in caplog.text
        monkeypatch.undo()
        assert (store.count(), indexed(store)) == (100, 0)
        assert names(kb) == [".lock", "collection.json", "shard"]
        store.optimize()
        assert indexed(store) == 100

    def test_no_room_for_a_copy(self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        store.upsert(records(100))
        usage = shutil.disk_usage(store._folder.path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=70 << 20))
        with pytest.raises(StoreFullError, match="found 70 MiB free"):
            store.optimize()
        store.upsert(records(10, start=100))
        assert (store.count(), indexed(store)) == (110, 0)

    def test_a_process_that_ends_without_closing(self, kb: Path) -> None:
        """The build ends with it."""
        script = """
import sys, time
from tests.test_edge import EdgeStore, records
store = EdgeStore(sys.argv[1], 16)
store.upsert(records(500))
store.optimize(wait=False)
while not store._folder.index._changed == set():
    time.sleep(0.001)
"""
        words = [sys.executable, "-c", script, str(kb)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE)
        assert (done.returncode, done.stderr) == (0, "")
        with closing(EdgeStore(kb)) as store:
            assert store.count() == 500
        assert names(kb) == [".lock", "collection.json", "shard"]


def _program(folder: Path, does: str) -> Path:
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o700)
    return program


def _endless(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let builds last for ever; the file that is there once one runs."""
    started = folder / "started"
    monkeypatch.setattr(sys, "executable", str(_program(folder, f"touch {started}; exec sleep 1000")))
    return started


class TestRanges:
    def test_numbers_are_indexed_when_they_first_come(self, store: EdgeStore) -> None:
        store.upsert([Record(Document("a", "a", {"word": "x"}), rows(1)[0])])
        assert shard.fields(store._folder.shard) == {"tokens"}
        store.upsert(records(20))
        assert len(shard.fields(store._folder.shard)) == 2
        assert store.count(parse({"n": {"$gte": 5, "$lt": 8}})) == 3

    def test_no_more_than_a_few_of_them(self, store: EdgeStore) -> None:
        written = [Record(Document(f"{i}", f"{i}", {f"field {i}": i}), row) for i, row in enumerate(rows(40))]
        store.upsert(written)
        assert len(shard.fields(store._folder.shard)) == 17
        for i in range(40):
            assert store.count(parse({f"field {i}": {"$gte": i}})) == 1
            assert store.count(parse({f"field {i}": {"$gt": i}})) == 0
