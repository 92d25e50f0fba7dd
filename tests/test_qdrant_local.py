"""What is Qdrant's local mode's own: one client a folder, its warning, its damage, kills, and filters."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from mlr_rag import Document
from mlr_rag.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
)
from mlr_rag.filters import parse
from mlr_rag.memory import MemoryStore
from mlr_rag.stores import Record, open_store
from mlr_rag.testing.vectors import records, unit_rows
from mlr_rag_qdrant import QdrantStore
from mlr_rag_qdrant.failures import of_folder

pytestmark = pytest.mark.filterwarnings("ignore:Qdrant's local mode:UserWarning")


class TestLocalMode:
    def test_it_warns_once(self, tmp_path: Path) -> None:
        code = (
            "import sys, warnings\n"
            "from mlr_rag.stores import open_store\n"
            "with warnings.catch_warnings(record=True) as seen:\n"
            "    warnings.simplefilter('always')\n"
            "    for name in ('one', 'two'):\n"
            "        open_store(f'qdrant:{sys.argv[1]}/{name}/notes', dimension=8).close()\n"
            "    open_store('qdrant::memory:', dimension=8).close()\n"
            "print([str(w.message) for w in seen if w.category is UserWarning])"
        )
        said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert said.stdout.count("EdgeStore") == 1
        assert "unpickles" in said.stdout
        assert said.stderr == ""

    def test_an_unclosed_store_ends_quietly(self, tmp_path: Path) -> None:
        code = "import sys; from mlr_rag.stores import open_store; s = open_store(sys.argv[1], dimension=8)"
        words = [sys.executable, "-W", "ignore", "-c", code, f"qdrant:{tmp_path}/kb/notes"]
        said = subprocess.run(words, capture_output=True, text=True, check=True)
        assert said.stderr == ""

    def test_a_second_process_is_refused(self, tmp_path: Path) -> None:
        url = f"qdrant:{tmp_path}/kb/notes"
        code = "import sys; from mlr_rag.stores import open_store; open_store(sys.argv[1], dimension=8)"
        with closing(open_store(url, dimension=8)):
            words = [sys.executable, "-W", "ignore", "-c", code, url]
            said = subprocess.run(words, capture_output=True, text=True, check=False)
        assert said.returncode == 1
        assert "StoreLockedError" in said.stderr
        assert "start a Qdrant server" in said.stderr

    def test_a_client_of_somebody_elses_is_respected(self, tmp_path: Path) -> None:
        client = QdrantClient(path=str(tmp_path / "kb"))
        with pytest.raises(StoreLockedError, match="another client"):
            open_store(f"qdrant:{tmp_path}/kb/notes", dimension=8)
        client.close()
        open_store(f"qdrant:{tmp_path}/kb/notes", dimension=8).close()

    def test_collections_of_one_folder_share_a_client(self, tmp_path: Path) -> None:
        one = open_store(f"qdrant:{tmp_path}/kb/one", dimension=8)
        two = open_store(f"qdrant:{tmp_path}/kb/../kb/two", dimension=16)
        one.upsert(records(3))
        one.close()
        assert two.count() == 0
        two.close()
        QdrantClient(path=str(tmp_path / "kb")).close()

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(StoreCorruptError, match=r"thesis\.txt"):
            open_store(f"qdrant:{tmp_path}/notes", dimension=8)
        assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]
        with pytest.raises(StoreError, match="is a file"):
            open_store(f"qdrant:{tmp_path}/thesis.txt/notes", dimension=8)

    @pytest.mark.parametrize("kind", ["meta", "sqlite", "pickle"])
    def test_damage(self, tmp_path: Path, kind: str) -> None:
        url, folder = f"qdrant:{tmp_path}/kb/notes", tmp_path / "kb"
        with closing(open_store(url, dimension=8)) as store:
            store.upsert(records(1))
        file = folder / "collection" / "notes--1" / "storage.sqlite"
        if kind == "meta":
            (folder / "meta.json").write_text("{")
        elif kind == "sqlite":
            file.write_bytes(b"no database" * 1000)
        else:
            file.write_bytes(file.read_bytes().replace(b"qdrant_client", b"qdrant_gone!!"))
        with pytest.raises(StoreCorruptError, match="Restore the folder"):
            open_store(url)
        with pytest.raises(StoreCorruptError, match="Restore the folder"):
            open_store(url)  # and not that it is locked

    def test_what_a_client_left_that_was_killed_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "kb").mkdir()
        (tmp_path / "kb" / "meta.json").touch()
        open_store(f"qdrant:{tmp_path}/kb/notes", dimension=8).close()

    @pytest.mark.parametrize("moment", [(1, "before"), (1, "after"), (2, "before"), (2, "after")], ids=str)
    def test_killed_while_it_is_made(self, tmp_path: Path, moment: tuple[int, str]) -> None:
        url = f"qdrant:{tmp_path}/kb/notes"
        _die(moment, "pass", f"open_store({url!r}, dimension=8)")
        with closing(open_store(url, dimension=8)) as store:
            assert (store.generations(), store.current(), store.count()) == ([1], 1, 0)
            store.upsert(records(3))

    @pytest.mark.parametrize("moment", [(n, when) for n in (1, 2, 3, 4) for when in ("before", "after")], ids=str)
    def test_killed_while_all_is_dropped(self, tmp_path: Path, moment: tuple[int, str]) -> None:
        url = _two_generations(tmp_path)
        _die(moment, f"store = open_store({url!r})", "store.drop()")
        with closing(open_store(url, dimension=8)) as store:
            if moment == (1, "before"):
                assert (store.generations(), store.count()) == ([1, 2], 3)
            else:
                assert (store.generations(), store.count(), store.info) == ([1], 0, None)
            store.drop()
        with pytest.raises(StoreNotFoundError):
            open_store(url)

    @pytest.mark.parametrize("moment", [(n, when) for n in (1, 2) for when in ("before", "after")], ids=str)
    def test_killed_while_one_is_dropped(self, tmp_path: Path, moment: tuple[int, str]) -> None:
        url = _two_generations(tmp_path)
        _die(moment, f"side = open_store({url!r}).beside(2)", "side.drop()")
        with closing(open_store(url)) as store:
            assert (store.count(), store.generations()) == (3, [1, 2] if moment == (1, "before") else [1])
            if 2 in store.generations():
                store.beside(2).drop()
            with closing(store.beside(2, 16)) as side:
                assert (side.dimension, side.count(), side.info) == (16, 0, None)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_killed_while_it_is_switched(self, tmp_path: Path, when: str) -> None:
        url = _two_generations(tmp_path)
        _die((1, when), f"store = open_store({url!r})", "store.switch(2)")
        with closing(open_store(url)) as store:
            assert store.generation == (1 if when == "before" else 2)
            store.switch(2)
            assert store.current() == 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_after_a_fork(self, tmp_path: Path) -> None:
        code = (
            "import os, sys\n"
            "from mlr_rag.stores import open_store\n"
            "store = open_store(sys.argv[1], dimension=8)\n"
            "if os.fork() == 0:\n"
            "    try:\n"
            "        store.count()\n"
            "    except Exception as problem:\n"
            "        print(type(problem).__name__, problem)\n"
            "    sys.stdout.flush()\n"
            "    os._exit(0)\n"
            "os.wait()\n"
            "print(store.count())"
        )
        words = [sys.executable, "-W", "ignore", "-c", code, f"qdrant:{tmp_path}/kb/notes"]
        said = subprocess.run(words, capture_output=True, text=True, check=True)
        assert said.stdout.startswith("StoreLockedError")
        assert "after the fork" in said.stdout
        assert said.stdout.endswith("0\n")

    def test_what_sqlite_and_the_disk_say(self) -> None:
        full = sqlite3.OperationalError("database or disk is full")
        for problem in (full, OSError(28, "No space left on device")):
            assert type(of_folder(problem, "here")) is StoreFullError
        assert type(of_folder(sqlite3.OperationalError("disk I/O error"), "here")) is StoreCorruptError
        assert type(of_folder(KeyError("x"), "here")) is StoreError
        assert pickle.loads(pickle.dumps(of_folder(full, "here"))).args == of_folder(full, "here").args

    @pytest.mark.parametrize(
        "filter",
        [{"even": True}, {"n": {"$lt": 3}}, {"n": {"$gte": 590}}, {"n": 7}, {"n": {"$gte": 600}}, {"same": 1}],
        ids=str,
    )
    def test_a_filtered_query_is_exact_however_many_match(self, filter: dict[str, Any]) -> None:
        """Rare and frequent matches, near and far, and ties."""
        rows = unit_rows(600)
        rows[300:400] = rows[300]
        reference, store = MemoryStore(8), QdrantStore.open(":memory:", dimension=8)
        for each in (reference, store):
            each.upsert(
                [
                    Record(Document("text", f"{i:03}", {"n": i, "even": i % 2 == 0, "same": int(300 <= i < 400)}), row)
                    for i, row in enumerate(rows)
                ]
            )
        for query in (rows[300], *unit_rows(5, seed=3)):
            for k in (1, 5, 64, 200):
                expected, found = (each.query(query, k, parse(filter)) for each in (reference, store))
                assert [m.record.document for m in found] == [m.record.document for m in expected]
                np.testing.assert_allclose([m.score for m in found], [m.score for m in expected], atol=1e-6)

    def test_equal_vectors_are_ties_in_any_number_of_dimensions(self) -> None:
        """A matrix product does not sum every row in the same order."""
        row, query = unit_rows(1, 384)[0], unit_rows(1, 384, seed=1)[0]
        with closing(QdrantStore.open(":memory:", dimension=384)) as store:
            store.upsert([Record(Document("same", f"{i:03}"), row) for i in reversed(range(999))])
            assert [match.record.document.id for match in store.query(query, 3)] == ["000", "001", "002"]

    def test_what_the_client_warns_of_is_not_an_error_of_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with closing(QdrantStore.open(":memory:", dimension=8)) as store, warnings.catch_warnings():
            warnings.simplefilter("error")
            collection = store._connection._client._client.collections["documents--1"]
            monkeypatch.setattr(type(collection), "LARGE_DATA_THRESHOLD", 2)
            monkeypatch.setattr("qdrant_client.common.client_warnings.SEEN_MESSAGES", set())
            with pytest.raises(UserWarning, match="not recommended"):
                store.upsert(records(3))
            assert store.count() == 3


def _two_generations(folder: Path) -> str:
    """The URL of a collection of two generations, described, with 3 and 2 records."""
    url = f"qdrant:{folder}/kb/notes"
    with closing(open_store(url, dimension=8)) as store, closing(store.beside(2, 8)) as side:
        for each, count in ((store, 3), (side, 2)):
            each.upsert(records(count))
            each.write_info({"n": count})
    return url


def _die(moment: tuple[int, str], before: str, step: str) -> None:
    """Run a step in a process that ends before or after the nth time that it writes the folder's list."""
    number, when = moment
    code = "\n".join(
        [
            "import itertools, os",
            "from mlr_rag.stores import open_store",
            "from qdrant_client.local.qdrant_local import QdrantLocal",
            before,
            "count, save = itertools.count(1), QdrantLocal._save",
            "def dying(*args, **options):",
            "    last = next(count) == " + str(number),
            f"    if not last or {when == 'after'}:",
            "        save(*args, **options)",
            "    if last:",
            "        os._exit(9)",
            "QdrantLocal._save = dying",
            step,
        ]
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
