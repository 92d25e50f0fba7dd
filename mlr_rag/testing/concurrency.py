"""Many threads and many coroutines at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlr_rag.documents import Document
from mlr_rag.filters import parse
from mlr_rag.retriever import Retriever
from mlr_rag.stores import Record, VectorStore
from mlr_rag.testing.base import Make, Suite
from mlr_rag.testing.encoder import HashEncoder
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

    def test_two_handles_write_one_id(self, store: VectorStore) -> None:
        """Of two records with different fields one is left whole, and filters see nothing of the other."""
        other = store.beside(1)
        rows = unit_rows(2)
        barrier = threading.Barrier(2, timeout=60)
        versions: list[tuple[str, dict[str, int]]] = [("text a", {"a": 1}), ("text b", {"b": 2})]

        def work(handle: VectorStore, version: int) -> None:
            for i in range(50):
                barrier.wait()  # each id is new to both
                text, metadata = versions[version]
                handle.upsert([Record(Document(text, str(i), metadata), rows[version])])

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, [store, other], range(2)))
        left = {record.document.id: record for batch in store.scan(with_vectors=True) for record in batch}
        assert len(left) == 50
        for record in left.values():
            version = versions.index((record.document.text, record.document.metadata))
            np.testing.assert_allclose(vector_of(record), rows[version], atol=1e-6)
        ones = {id for id, record in left.items() if record.document.text == "text a"}
        for filter, expected in (
            ({"a": 1}, ones),
            ({"a": {"$gte": 0}}, ones),
            ({"a": {"$ne": 1}}, set(left) - ones),
            ({"b": {"$in": [2, 3]}}, set(left) - ones),
            ({"b": {"$lt": 3}}, set(left) - ones),
            ({"$not": {"b": {"$lt": 3}}}, ones),
        ):
            seen = {record.document.id for batch in store.scan(parse(filter)) for record in batch}
            assert seen == expected, filter
        other.close()

    def test_two_hundred_coroutines(self, make: Make) -> None:
        """Searches, adds and deletes of one retriever, all awaited at once."""
        kb = Retriever(HashEncoder(8), make(8))
        kb.add([f"text {i}" for i in range(50)])

        async def work(i: int) -> None:
            document = Document(f"coroutine {i}", f"c{i}", {"i": i})
            if i % 2:
                assert len(await kb.asearch(f"text {i}", 5)) == 5
                return
            assert (await kb.aadd([document])).added == 1
            assert await kb.aget(f"c{i}") == [document]
            if i % 20 == 0:
                assert await kb.adelete(f"c{i}") == 1

        async def all_at_once() -> None:
            await asyncio.gather(*(work(i) for i in range(200)))

        asyncio.run(all_at_once())
        kept = [f"c{i}" for i in range(0, 200, 2) if i % 20]
        assert [document.id for document in kb.get([f"c{i}" for i in range(200)])] == kept
        assert kb.count() == 50 + len(kept)
        kb.close()
