"""An ingest survives kill -9, and a folder belongs to one process at a time."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks._common import ROOT
from benchmarks._kill import DIMENSION, run, wait_for
from benchmarks.kill import trial
from mlr_rag.errors import StoreLockedError
from mlr_rag_edge import EdgeStore

_COUNT = 600


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long an ingest takes here when nobody kills it."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder / "kb", folder / "log", _COUNT).seconds


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_ingest_is_finished_by_running_it_again(tmp_path: Path, seconds: float, seed: int) -> None:
    kill = ("open", 0.01) if seed == 0 else ("ingest", random.Random(seed).uniform(0, seconds))
    done = trial(tmp_path / "kb", _COUNT, version=0, pause=0.02, kill=kill)
    assert done.faults_after_kill == []
    assert done.faults_after_rerun == []
    assert done.encoded_again == frozenset()


def test_a_killed_replacement_is_finished_by_running_it_again(tmp_path: Path) -> None:
    folder = tmp_path / "kb"
    run(folder, tmp_path / "log", _COUNT, pause=0.0)
    done = trial(folder, _COUNT, version=1, pause=0.02, kill=("encode", 0.05))
    assert done.faults_after_kill == []
    assert done.faults_after_rerun == []
    assert done.encoded_again == frozenset()


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    folder, log = tmp_path / "kb", tmp_path / "log"
    words = [str(folder), str(log), str(_COUNT), "0", "30"]  # half a minute for the first batch: it holds the folder
    holder = subprocess.Popen([sys.executable, "-m", "benchmarks._kill", *words], cwd=ROOT)
    try:
        wait_for(log, "encode", holder)
        with pytest.raises(StoreLockedError) as refused:
            EdgeStore(folder, DIMENSION)
    finally:
        holder.kill()
        holder.wait()
    assert str(folder.resolve()) in str(refused.value)
    assert "Close it there" in str(refused.value)
    with closing(EdgeStore(folder, DIMENSION)) as store:
        assert store.count() == 0
