"""What a store that outlives its process must hold to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlr_rag.errors import ModelMismatchError
from mlr_rag.testing import migrate
from mlr_rag.testing.base import Make, Suite
from mlr_rag.testing.kill import DIMENSION, run, trial
from mlr_rag.testing.vectors import records, vector_of


class Persistence(Suite):
    """Reopening, handles that share a collection, and kill -9."""

    def test_everything_survives_reopening(self, make: Make) -> None:
        written = records(30)
        store = make(8)
        store.upsert(written)
        store.delete(ids=["id 5"])
        store.write_info({"passport": {"digest": "d"}})
        store.close()
        again = make(8)
        assert again.info == {"passport": {"digest": "d"}}
        assert again.count() == 29
        found = again.get([record.document.id for record in written], with_vectors=True)
        for record, original in zip(found, [*written[:5], *written[6:]], strict=True):
            assert record.document == original.document
            np.testing.assert_allclose(vector_of(record), vector_of(original), atol=1e-6)
        again.close()

    def test_two_handles_share_one_collection(self, make: Make) -> None:
        """A notebook runs its cell again while the old object still lives."""
        one, other = make(8), make(8)
        one.upsert(records(3))
        one.close()
        assert other.count() == 3
        other.close()

    def test_wrong_dimension(self, make: Make) -> None:
        make(8).close()
        for shape in ((16, 1), (8, 2)):
            with pytest.raises(ModelMismatchError, match="another shape"):
                make(*shape)
        make(8).close()

    def test_generations_survive_reopening(self, make: Make) -> None:
        first = make(8)
        first.upsert(records(3))
        side = first.beside(2, 16)
        side.write_info({"n": 2})
        first.switch(2)
        for handle in (side, first):
            handle.close()
        with pytest.raises(ModelMismatchError, match="another shape"):
            make(8)
        again = make(16)
        assert (again.generation, again.dimension, again.info, again.count()) == (2, 16, {"n": 2}, 0)
        old = again.beside(1)
        assert (old.dimension, old.count()) == (8, 3)
        old.drop()
        again.close()
        again = make(16)
        assert (again.generations(), again.current()) == ([2], 2)
        again.close()

    @pytest.mark.parametrize("moment", [("open", 0.01), ("ingest", 0.05), ("ack", 0.02)], ids=str)
    def test_a_killed_ingest_is_finished_by_running_it_again(
        self, make: Make, tmp_path: Path, moment: tuple[str, float]
    ) -> None:
        url = _address(make)
        done = trial(url, tmp_path / "logs", 600, version=0, pause=0.02, kill=moment)
        assert done.faults_after_kill == []
        assert done.faults_after_rerun == []
        assert done.encoded_again == frozenset()

    def test_a_killed_replacement_is_finished_by_running_it_again(self, make: Make, tmp_path: Path) -> None:
        url = _address(make)
        run(url, tmp_path / "log", 600, pause=0.0)
        done = trial(url, tmp_path / "logs", 600, version=1, pause=0.02, kill=("encode", 0.05))
        assert done.faults_after_kill == []
        assert done.faults_after_rerun == []
        assert done.encoded_again == frozenset()

    def test_a_killed_migration_is_finished_by_running_it_again(self, make: Make, tmp_path: Path) -> None:
        moments = iter([0.05, 0.3])
        assert migrate.trial(_address(make), tmp_path / "logs", lambda: next(moments), 2, count=400, pause=0.04) == []


def _address(make: Make) -> str:
    """The URL of the collection, which is not there yet."""
    store = make(DIMENSION)
    store.drop()
    return store.url
