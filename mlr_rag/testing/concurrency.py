"""Many threads and many coroutines at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlr_rag.documents import Document
from mlr_rag.filters import parse
from mlr_rag.stores import Record, VectorStore
from mlr_rag.testing.base import Suite
from mlr_rag.testing.vectors import unit_rows, vector_of


class Concurrency(Suite):
    """Mixed reads and writes: nothing lost, nothing torn, every vector with its own text."""

    def test_sixteen_threads(self, store: VectorStore) -> None:
        """Mixed reads and writes: nothing lost, nothing torn, every vector with its own text."""
        rows = unit_rows(16 * 30)
        barrier = threading.Barrier(16)

        def work(worker: int) -> None:
            barrier.wait()
            for i in range(worker * 30, worker * 30 + 30):
                store.upsert([Record(Document(f"text {i}", str(i), {"n": i}), rows[i])])
                assert store.get([str(i)])[0].document.text == f"text {i}"
                assert store.query(rows[i], 3)
                if i % 10 == 9:
                    store.delete(ids=[str(i)])
                store.count(parse({"n": {"$gte": 0}}))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        found = {r.document.id: r for batch in store.scan(with_vectors=True) for r in batch}
        assert set(found) == {str(i) for i in range(16 * 30) if i % 10 != 9}
        for id, record in found.items():
            assert record.document.text == f"text {id}"
            np.testing.assert_allclose(vector_of(record), rows[int(id)], atol=1e-6)
