"""Generations of a collection, side by side: what a migration stands on."""

from __future__ import annotations

import pytest

from mlr_rag.errors import ModelMismatchError, StoreError, StoreNotFoundError
from mlr_rag.stores import VectorStore
from mlr_rag.testing.base import Make, Suite
from mlr_rag.testing.vectors import records, unit_rows


class Generations(Suite):
    """Each has its own shape, description and records; a handle stays with its own."""

    def test_the_first(self, store: VectorStore) -> None:
        assert (store.generation, store.current(), store.generations()) == (1, 1, [1])

    def test_one_beside_another(self, store: VectorStore) -> None:
        store.write_info({"n": 1})
        store.upsert(records(5))
        side = store.beside(2, 16)
        assert (side.generation, side.dimension, side.info, side.count(), side.url) == (2, 16, None, 0, store.url)
        assert (store.current(), side.current(), store.generations()) == (1, 1, [1, 2])
        side.write_info({"n": 2})
        assert (store.info, store.count()) == ({"n": 1}, 5)
        side.close()
        again = store.beside(2)
        assert (again.dimension, again.info) == (16, {"n": 2})
        again.close()

    def test_a_handle_stays_with_its_generation(self, make: Make) -> None:
        store, written = make(8), records(6)
        store.upsert(written[:3])
        side = store.beside(2, 8)
        side.upsert(written[3:])
        store.switch(2)
        assert (store.current(), side.current()) == (2, 2)
        assert store.query(unit_rows(1)[0], 9) != side.query(unit_rows(1)[0], 9)
        store.upsert([written[5]])
        assert (store.count(), side.count()) == (4, 3)
        store.close()
        side.close()

    def test_there_and_back(self, store: VectorStore) -> None:
        side = store.beside(2, 8)
        for generation in (2, 2, 1, 2, 1):
            store.switch(generation)
            assert (store.current(), side.current()) == (generation, generation)
        side.close()

    def test_one_that_is_not_there(self, store: VectorStore) -> None:
        for call in (lambda: store.switch(2), lambda: store.beside(2)):
            with pytest.raises(StoreNotFoundError, match="2"):
                call()
        assert (store.current(), store.generations()) == (1, [1])

    def test_another_shape(self, store: VectorStore) -> None:
        store.beside(2, 16).close()
        with pytest.raises(ModelMismatchError, match="16"):
            store.beside(2, 8)

    def test_dropping_one_leaves_the_others(self, store: VectorStore) -> None:
        store.upsert(records(3))
        side = store.beside(2, 8)
        side.upsert(records(2))
        other = store.beside(2)
        side.drop()
        assert (store.generations(), store.count()) == ([1], 3)
        with pytest.raises(StoreError):
            other.upsert(records(1))
        with pytest.raises(StoreError):
            other.count()
        other.close()
        fresh = store.beside(2, 8)
        assert (fresh.count(), fresh.info) == (0, None)
        fresh.close()

    def test_dropping_the_first_when_it_is_not_current(self, store: VectorStore) -> None:
        store.upsert(records(3))
        side = store.beside(2, 8)
        side.upsert(records(2))
        store.switch(2)
        store.drop()
        assert (side.generations(), side.current(), side.count()) == ([2], 2, 2)
        third = side.beside(3, 8)
        side.switch(3)
        assert third.current() == 3
        third.drop()

    def test_dropping_the_current_one_drops_all(self, make: Make) -> None:
        store = make(8)
        side = store.beside(2, 16)
        side.write_info({"n": 2})
        store.switch(2)
        store.close()
        side.drop()
        again = make(8)
        assert (again.generations(), again.count(), again.info) == ([1], 0, None)
        again.close()
