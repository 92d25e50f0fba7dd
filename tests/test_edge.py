"""What is Edge's own: the layout of its folder, kill -9 at every step of it, and the index."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlr_rag import Document
from mlr_rag.errors import (
    InvalidInputError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
)
from mlr_rag.filters import parse
from mlr_rag.folders import lock_folder
from mlr_rag.memory import MemoryStore
from mlr_rag.stores import Record, open_store
from mlr_rag.testing.vectors import vector_of
from mlr_rag_edge import EdgeStore, collection, files, index, shard
from mlr_rag_edge.folder import Folder
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

    @pytest.mark.parametrize("shape", [(0, 1), (-1, 1), (8, 0)])
    def test_a_shape_that_no_vector_has(self, store: EdgeStore, kb: Path, shape: tuple[int, int]) -> None:
        makers: list[Callable[..., object]] = [
            lambda *shape: EdgeStore(kb.parent / "new", *shape),
            lambda *shape: store.beside(2, *shape),
            MemoryStore,
        ]
        for make in makers:
            with pytest.raises(InvalidInputError, match=f"found {shape[0]} dimensions, {shape[1]} vector"):
                make(*shape)
        assert names(kb.parent) == ["kb"]
        assert store.generations() == [1]

    def test_a_generation_that_is_dropped_while_it_is_opened(
        self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(EdgeStore, "_check_generation", lambda self, generation: None)
        with pytest.raises(StoreNotFoundError, match=r"expected collection\.json"):
            store.beside(2)
        assert store.generations() == [1]

    def test_a_shard_that_the_engine_cannot_make(self, kb: Path) -> None:
        with pytest.raises(StoreCorruptError, match="the engine cannot"):
            EdgeStore(kb, 1 << 70)


class TestFullDisk:
    def test_nothing_is_begun(self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        store.upsert(records(20))
        usage = shutil.disk_usage(store._folder.path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
        for begin in (
            lambda: store.delete(ids=["1"]),
            lambda: store.delete(filter=parse({"n": 2})),
            lambda: store.beside(2, 8),
            lambda: store._folder.index._move(set(store._point_ids(None)), store._folder.shard),
        ):
            with pytest.raises(StoreFullError, match="found 1 MiB free"):
                begin()
        assert (store.count(), store.generations()) == (20, [1])

    def test_full_after_a_build(self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its copy has holes: the engine must not even open it."""
        store.upsert(records(20))
        usage = shutil.disk_usage(store._folder.path)

        def fill(self: Index, copy: Path, niceness: int) -> None:
            monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
            monkeypatch.setattr(index, "load_shard", lambda path: pytest.fail("opened"))

        monkeypatch.setattr(Index, "_build_in_child", fill)
        with pytest.raises(StoreFullError, match="found 1 MiB free"):
            store.optimize()

    @pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, StoreFullError), (errno.EIO, StoreError)])
    def test_a_file_that_cannot_be_written(
        self, store: EdgeStore, kb: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]
    ) -> None:
        store.upsert(records(20))

        def fail(path: Path, target: Path) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(Path, "replace", fail)
        for write in (lambda: store.write_info({"a": 1}), lambda: store.switch(1), store.drop):
            with pytest.raises(kind, match="run the same command again") as caught:
                write()
            assert type(caught.value) is kind
        assert (store.info, store.count()) == (None, 20)
        store.close()
        monkeypatch.undo()
        assert names(kb) == [".lock", "collection.json", "shard"]
        with closing(EdgeStore(kb)) as again:
            again.optimize()
            assert (again.count(), indexed(again)) == (20, 20)


def _in_fork(does: Callable[[], object]) -> str:
    """What comes of it in a forked child: the text of its result, or the name of its error."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of threads
        child = os.fork()
    if not child:
        signal.alarm(20)  # a lock that nobody frees
        try:
            said = str(does())
        except BaseException as problem:
            said = type(problem).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as result:
        os.waitpid(child, 0)
        return result.read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
class TestFork:
    def test_a_child_waits_for_no_lock(self, store: EdgeStore, kb: Path) -> None:
        store.upsert(records(5))
        held, enough = threading.Event(), threading.Event()

        def hold() -> None:
            with collection._OPENING, store._lock:
                held.set()
                enough.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        calls: list[Callable[[], object]] = [
            lambda: store.upsert(records(1)),
            lambda: store.delete(ids=["1"]),
            lambda: store.write_info({}),
            lambda: store.beside(2, 8),
            lambda: store.query(rows(1)[0], 1),
            store.drop,
            lambda: EdgeStore(kb),
        ]
        try:
            assert [_in_fork(call) for call in calls] == [StoreLockedError.__name__] * len(calls)
            assert _in_fork(store.close) == "None"
        finally:
            enough.set()
            holder.join()
        assert (store.count(), names(kb)) == (5, [".lock", "collection.json", "shard"])

    def test_a_child_opens_what_its_parent_has_closed(self, store: EdgeStore, kb: Path) -> None:
        """It has inherited the engine's lock, and so it is told; once it has ended, others may open it."""
        store.upsert(records(5))
        reading, writing = os.pipe()
        closer = threading.Timer(0.5, lambda: (store.close(), os.write(writing, b"x")))
        closer.start()

        def opens() -> str:
            os.read(reading, 1)
            files.unlock(lock_folder(kb, ".lock", ""))  # the folder's own is free
            try:
                EdgeStore(kb)
            except StoreLockedError as problem:
                return str(problem)
            return "opened"

        assert "was forked while" in _in_fork(opens)
        closer.join()
        os.close(reading)
        os.close(writing)
        with closing(EdgeStore(kb)) as again:
            assert again.count() == 5


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

    def test_a_failed_build_is_tried_again(self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index, "ENOUGH", 200)
        monkeypatch.setattr(index, "QUIET", 0.01)
        tried = []

        def fail(self: Index, copy: Path, niceness: int) -> None:
            tried.append(self.unindexed)
            raise StoreError("out of luck")

        monkeypatch.setattr(Index, "_build_in_child", fail)
        store.upsert(records(199))
        store.upsert(records(1, start=199))
        store.upsert(records(1, start=200))
        wait_until(lambda: len(tried) == 1 and not store.indexing)
        store.upsert(records(20, start=201))
        assert not store.indexing, "too little was written since"
        assert store._folder.index.unindexed >= 220
        store.upsert(records(30, start=221))
        store.upsert(records(1, start=251))
        wait_until(lambda: len(tried) == 2 and not store.indexing)

    @pytest.mark.parametrize("executable", [sys.executable, "", None])
    def test_a_frozen_application(
        self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch, executable: str | None
    ) -> None:
        store.upsert(records(20))
        monkeypatch.setattr(sys, "executable", executable)
        if executable:
            monkeypatch.setattr(sys, "frozen", True, raising=False)
        with pytest.raises(StoreError, match=r"no Python to build the index with: .*an ordinary Python"):
            store.optimize()

    def test_a_program_that_builds_nothing(self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch, kb: Path) -> None:
        store.upsert(records(300))
        monkeypatch.setattr(sys, "executable", str(_program(kb.parent, "exit 0")))
        with pytest.raises(StoreError, match="found no index over 300 points"):
            store.optimize()
        assert names(kb) == [".lock", "collection.json", "shard"]

    def test_a_collection_too_small_for_an_index(self, store: EdgeStore) -> None:
        store.upsert(records(1))
        store.optimize()
        assert store.count() == 1

    def test_it_imports_nothing_from_the_current_folder(
        self, store: EdgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.upsert(records(20))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "uuid.py").write_text("raise SystemExit('imported from the current folder')")
        monkeypatch.chdir(elsewhere)
        monkeypatch.setattr(sys, "path", ["", ".", *sys.path])
        store.optimize()
        assert indexed(store) == 20

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a signal of Linux")
    def test_a_build_ends_with_its_parent(self, tmp_path: Path) -> None:
        left = tmp_path / "left"
        child = f"""
import os, pathlib, time
from mlr_rag_edge.build import end_with
end_with(os.getppid())
pathlib.Path({str(left)!r}).write_text(str(os.getpid()))
time.sleep(100)
"""
        parent = f"""
import os, pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}])
while not (pathlib.Path({str(left)!r}).exists() and pathlib.Path({str(left)!r}).read_text()):
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""
        assert subprocess.run([sys.executable, "-c", parent], timeout=_PATIENCE).returncode == -9

        def ended() -> bool:
            status = Path(f"/proc/{left.read_text()}/stat")
            try:
                return status.read_text().rpartition(")")[2].split()[0] == "Z"  # one that nobody has asked after
            except OSError:
                return True

        wait_until(ended)

    def test_what_is_not_indexed_is_known_after_reopening(self, store: EdgeStore, kb: Path) -> None:
        store.upsert(records(100))
        store.optimize()
        assert store._folder.index.unindexed == 0
        store.upsert(records(60))
        store.write_info({"a": 1})
        store.upsert(records(20))
        store.delete(ids=[str(i) for i in range(50)])
        store.close()
        assert json.loads((kb / "collection.json").read_text())["unindexed"] == 80
        with closing(EdgeStore(kb)) as again:
            assert (again._folder.index.unindexed, again.info) == (80, {"a": 1})
            again.optimize()
            assert again._folder.index.unindexed == 0
        assert "unindexed" not in json.loads((kb / "collection.json").read_text())

    def test_a_build_that_is_ended_leaves_it_as_it_was(
        self, store: EdgeStore, kb: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.upsert(records(100))
        started = _endless(monkeypatch, kb.parent)
        store.optimize(wait=False)
        wait_until(started.exists)
        store.close()
        with closing(EdgeStore(kb)) as again:
            assert again._folder.index.unindexed == 100

    def test_all_of_it_is_on_the_disk_before_the_swap(self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        store.upsert(records(100))
        synced, swap, sync = set(), Folder.replace_shard, os.fsync

        def note(opened: int) -> None:
            synced.add(os.fstat(opened).st_ino)
            sync(opened)

        def check(self: Folder, path: Path, *others: Any) -> None:
            assert {item.stat().st_ino for item in path.rglob("*") if os.name != "nt" or item.is_file()} <= synced
            swap(self, path, *others)

        monkeypatch.setattr(os, "fsync", note)
        monkeypatch.setattr(Folder, "replace_shard", check)
        store.optimize()
        assert indexed(store) == 100

    def test_no_query_is_counted_twice(self, store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        due: list[None] = []
        monkeypatch.setattr(Index, "_start_if_due", lambda self: due.append(None))
        monkeypatch.setattr(index, "QUERIES", 4000)
        found = store._folder.index
        threads = [threading.Thread(target=lambda: [found.searched() for _ in range(1000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(due) == 1

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
