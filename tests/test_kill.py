"""A folder belongs to one process at a time. That an ingest survives kill -9 is shown in tests/conformance."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from mlr_rag.errors import StoreLockedError
from mlr_rag.testing.kill import DIMENSION, start, wait_for
from mlr_rag_edge import EdgeStore


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    folder, log = tmp_path / "kb", tmp_path / "log"
    holder = start(f"edge:{folder}", log, 600, pause=30)  # half a minute for the first batch: it holds the folder
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
