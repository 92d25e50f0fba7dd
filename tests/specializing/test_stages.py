from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlr_rag.specializing.stages import Workspace


@dataclass(frozen=True)
class Value:
    numbers: tuple[int, ...]
    names: frozenset[str]
    scores: dict[str, dict[str, float]]


VALUE = Value((1, 2), frozenset({"a", "b"}), {"q": {"b": 0.1, "a": 1 / 3}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work"


def test_a_stage_is_done_once_and_gives_the_same_value_in_another_process(folder):
    calls = []

    def work():
        calls.append(1)
        return VALUE

    with closing(Workspace(folder)) as first:
        done = first.stage("search", ["a", 1], Value, work)
    with closing(Workspace(folder)) as second:
        again = second.stage("search", ["a", 1], Value, work)
    assert calls == [1]
    assert done.value == again.value == VALUE
    assert list(again.value.scores["q"]) == ["b", "a"], "the order is part of it"
    assert (done.reused, again.reused) == (False, True)
    assert done.key == again.key
    assert again.seconds == done.seconds


@pytest.mark.parametrize(("name", "depends"), [("find", ["a", 1]), ("search", ["a", 2]), ("search", ["a"])])
def test_a_stage_is_done_again_when_something_that_it_depends_on_is_another(folder, name, depends):
    with closing(Workspace(folder)) as work:
        one = work.stage("search", ["a", 1], int, lambda: 1)
        other = work.stage(name, depends, int, lambda: 2)
    assert (one.value, other.value) == (1, 2)
    assert one.key != other.key


def test_what_a_stage_gave_is_found_whatever_it_depended_on(folder):
    with closing(Workspace(folder)) as work:
        for number in (1, 2):
            work.stage("teacher speed", [number], int, lambda number=number: number)
        work.stage("teacher", [], int, lambda: 3)
        assert sorted(work.kept("teacher speed", int)) == [1, 2]
        assert work.kept("search", int) == []


def test_a_stage_that_fails_leaves_nothing_behind(folder):
    def fail():
        raise ValueError("no")

    with closing(Workspace(folder)) as work:
        with pytest.raises(ValueError, match="no"):
            work.stage("search", [], int, fail)
        assert work.stage("search", [], int, lambda: 3).value == 3


def test_a_file_that_was_being_written_when_the_process_died_counts_for_nothing(folder):
    with closing(Workspace(folder)) as work:
        key = work.stage("search", [], int, lambda: 3).key
        file = folder / "stages" / f"search-{key}.json"
        file.rename(file.with_suffix(".partial"))
        file.with_suffix(".partial").write_bytes(b'{"seconds": 1, "val')
        assert work.stage("search", [], int, lambda: 4).value == 4


def test_a_file_without_a_content_counts_for_nothing(folder):
    """As a power failure leaves it."""
    with closing(Workspace(folder)) as work:
        key = work.stage("search", [], int, lambda: 3).key
        (folder / "stages" / f"search-{key}.json").write_bytes(b"")
        again = work.stage("search", [], int, lambda: 4)
        assert (again.value, again.reused) == (4, False)


def test_each_stage_is_told_as_it_begins(folder):
    told = []
    with closing(Workspace(folder, told.append)) as work:
        work.stage("search", [], int, lambda: told.append("working") or 1)
    assert told == ["search", "working"]
