"""ContentCache: what it keeps, what it refuses, and threads, forks and processes over one file."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlr_rag.errors import (
    InvalidInputError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
)
from mlr_rag.training import cache as module
from mlr_rag.training.cache import ContentCache, content_key

WRITER = """
import sys
from mlr_rag.training.cache import ContentCache, content_key
cache = ContentCache(sys.argv[1])
for start in range(0, 400, 20):
    cache.put_many({content_key(sys.argv[2], str(n)): f"{sys.argv[2]} {n}".encode() for n in range(start, start + 20)})
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "cache.db"


@pytest.fixture
def cache(file: Path) -> Iterator[ContentCache]:
    with ContentCache(file) as opened:
        yield opened


def values(count: int, word: str = "value") -> dict[bytes, bytes]:
    return {content_key(word, str(n)): f"{word} {n}".encode() for n in range(count)}


def test_values_come_back_from_the_file_and_unknown_keys_do_not(file: Path, cache: ContentCache) -> None:
    cache.put_many(values(1300))
    with ContentCache(file) as again:
        assert again.get_many(values(1300)) == values(1300)
        assert again.get_many([content_key("unknown")]) == {}
        assert again.count() == 1300


def test_a_cache_without_a_path_lives_in_memory() -> None:
    with ContentCache() as cache, ContentCache() as other:
        cache.put_many(values(3))
        assert cache.get_many(values(3)) == values(3)
        assert other.count() == 0


def test_a_known_key_keeps_its_value(cache: ContentCache) -> None:
    key = content_key("a")
    cache.put_many({key: b"first"})
    cache.put_many({key: b"second", content_key("b"): b"new"})
    assert cache.get_many([key, content_key("b")]) == {key: b"first", content_key("b"): b"new"}


def test_a_write_that_fails_halfway_keeps_nothing_of_it(file: Path, cache: ContentCache) -> None:
    cache.put_many(values(1))
    with sqlite3.connect(file) as other:
        other.execute(
            "CREATE TRIGGER fail BEFORE INSERT ON content WHEN (SELECT count(*) FROM content) = 3 "
            "BEGIN SELECT RAISE(ABORT, 'stop'); END"
        )
    other.close()
    with pytest.raises(StoreError, match="stop"):
        cache.put_many(values(5, "other"))
    assert cache.count() == 1


def test_moving_a_boundary_between_texts_gives_another_key() -> None:
    assert len({content_key("ab", "c"), content_key("a", "bc"), content_key("abc"), content_key("abc", "")}) == 4
    assert content_key("half a character \ud800") != content_key("half a character \ud801")


def test_threads_share_one_cache(cache: ContentCache) -> None:
    def work(number: int) -> bool:
        mine = values(50, f"thread {number}")
        for key, value in mine.items():
            cache.put_many({key: value})
        return cache.get_many(mine) == mine

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert cache.count() == 400


def test_processes_write_to_one_file_at_once(file: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), name]) for name in ("one", "two", "three")]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    with ContentCache(file) as cache:
        assert cache.count() == 1200
        assert cache.get_many(values(400, "two")) == values(400, "two")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_has_a_connection_of_its_own(cache: ContentCache) -> None:
    cache.put_many(values(5))
    child = os.fork()
    if child == 0:
        known = cache.get_many(values(5)) == values(5)
        cache.put_many(values(7, "child"))
        cache.close()
        os._exit(0 if known else 1)
    assert os.waitpid(child, 0)[1] == 0
    cache.put_many(values(3, "parent"))
    assert cache.count() == 15


def test_a_damaged_value_is_forgotten_with_a_warning_and_can_be_kept_again(
    file: Path, cache: ContentCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put_many(values(3))
    broken = content_key("value", "1")
    with sqlite3.connect(file) as other:
        other.execute("UPDATE content SET value = substr(value, 1, 10) || x'00' WHERE key = ?", (broken,))
    other.close()
    with caplog.at_level(logging.WARNING):
        assert cache.get_many(values(3)).keys() == values(3).keys() - {broken}
    assert "1 of its values" in caplog.text
    cache.put_many({broken: b"value 1"})
    assert cache.get_many(values(3)) == values(3)


def test_a_value_under_another_key_is_not_taken_for_its_own(file: Path, cache: ContentCache) -> None:
    cache.put_many(values(2))
    first, second = values(2)
    with sqlite3.connect(file) as other:
        other.execute("DELETE FROM content WHERE key = ?", (first,))
        other.execute("UPDATE content SET key = ? WHERE key = ?", (first, second))
    other.close()
    assert cache.get_many([first]) == {}


@pytest.mark.parametrize("content", [b"no database at all " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_another_file_is_refused_and_left_as_it_is(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match="Choose another path"):
        ContentCache(file)
    assert file.read_bytes() == content
    assert [item.name for item in file.parent.iterdir()] == [file.name]


def test_another_sqlite_database_is_refused_and_left_as_it_is(file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE content (key BLOB PRIMARY KEY, value BLOB)")
    other.close()
    before = file.read_bytes()
    with pytest.raises(InvalidInputError, match="another SQLite database"):
        ContentCache(file)
    assert file.read_bytes() == before


def test_a_later_version_is_refused(file: Path, cache: ContentCache) -> None:
    cache.close()
    with sqlite3.connect(file) as other:
        other.execute("PRAGMA user_version = 2")
    other.close()
    with pytest.raises(InvalidInputError, match="found version 2, expected version 1"):
        ContentCache(file)


def test_a_damaged_file_is_an_error_of_ours(file: Path, cache: ContentCache) -> None:
    cache.put_many(values(2000))
    cache.close()
    with file.open("r+b") as opened:
        opened.seek(2 * 4096)
        opened.write(b"\xa5" * 4096 * 20)
    with ContentCache(file) as damaged, pytest.raises(StoreCorruptError, match="Delete it"):
        damaged.get_many(values(2000))


def test_a_folder_and_a_path_below_a_file_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is a folder"):
        ContentCache(tmp_path)
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StoreError, match="cannot be used"):
        ContentCache(tmp_path / "taken" / "cache.db")


def test_a_writer_that_does_not_end_is_told_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with ContentCache(file) as cache:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLockedError):
            cache.put_many(values(1))
        other.execute("ROLLBACK")
        other.close()
        cache.put_many(values(1))
        assert cache.count() == 1


def test_a_full_disk_is_told_of_and_what_was_kept_stays(cache: ContentCache) -> None:
    cache.put_many(values(10))
    pages = cache._connection.execute("PRAGMA page_count").fetchone()[0]
    cache._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFullError):
        cache.put_many(values(5000, "more"))
    assert cache.get_many({**values(10), **values(10, "more")}) == values(10)


def test_a_closed_cache_says_so(cache: ContentCache) -> None:
    cache.close()
    cache.close()
    with pytest.raises(StoreClosedError):
        cache.get_many([content_key("a")])
