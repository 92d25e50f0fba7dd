"""The contract of VectorStore, the same for every store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlr_rag import Document, InvalidInputError, ModelMismatchError
from mlr_rag.errors import StoreClosedError
from mlr_rag.filters import parse
from mlr_rag.stores import Record, VectorStore
from tests.conformance.stores import PERSISTENT, STORES, Make

Unit = Callable[..., np.ndarray]


@pytest.fixture(params=sorted(STORES))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    return STORES[request.param](tmp_path)


@pytest.fixture
def store(make: Make) -> Iterator[VectorStore]:
    store = make(8)
    yield store
    store.close()


def records(unit: Unit, n: int = 20, seed: int = 0) -> list[Record]:
    rows = unit(n, seed=seed)
    return [Record(Document(f"text {i}", f"id {i}", {"n": i, "even": i % 2 == 0}), rows[i]) for i in range(n)]


def test_it_is_a_vector_store(store: VectorStore) -> None:
    assert isinstance(store, VectorStore)
    assert (store.dimension, store.vectors_per_document) == (8, 1)


def test_empty(store: VectorStore, unit: Unit) -> None:
    assert store.count() == 0
    assert store.get(["a"]) == []
    assert store.hashes(["a"]) == {}
    assert store.hashes([]) == {}
    assert store.query(unit(1)[0], 5) == []
    assert list(store.scan()) == []
    assert store.delete(ids=["a"]) == 0
    assert store.delete(ids=[]) == 0
    store.upsert([])
    assert store.count() == 0


def test_get_is_exact_and_in_order(store: VectorStore, unit: Unit) -> None:
    written = records(unit)
    store.upsert(written)
    found = store.get(["id 7", "missing", "id 3"], with_vectors=True)
    assert [record.document for record in found] == [written[7].document, written[3].document]
    np.testing.assert_allclose(found[0].vector, written[7].vector, atol=1e-6)
    assert store.get(["id 1"])[0].vector is None
    assert store.hashes(["id 1", "missing"]) == {"id 1": written[1].document.content_hash}


METADATA: list[dict[str, Any]] = [
    {},
    {"none": None, "yes": True, "no": False, "zero": 0, "float": 1.0, "int": 1, "minus": -0.0},
    {"big": 2**63 - 1, "small": -(2**63), "huge": 1e308, "tiny": 5e-324, "third": 1 / 3},
    {"text": "naïve – 東京 🚲 \n\t\"quoted\" 'single' \\ back", "empty": ""},
    {"list": [1, 1.5, "a", None, True, [2], {"x": []}], "nested": {"a": {"b": [{"c": None}]}}, "empty": [], "none": {}},
    {"dotted.key": 1, "key with spaces": 2, 'a"b': 3, "a[]": 4, "": 5, "$money": 6, "é": 7, "id": 8, "text": 9},
]


@pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
def test_metadata_comes_back_exactly(store: VectorStore, unit: Unit, metadata: dict[str, Any]) -> None:
    document = Document("a text", "x", metadata)
    store.upsert([Record(document, unit(1)[0])])
    for found in (store.get(["x"])[0], store.query(unit(1)[0], 1)[0].record, next(store.scan())[0]):
        assert found.document == document
        assert repr(found.document.metadata) == repr(metadata), "1 and 1.0, True and 1, -0.0 and 0.0 stay apart"


@pytest.mark.parametrize("id", ["a", "x" * 4096, "with space", "ключ/東京?#%", "0", "-1", "True", "a\nb", "../../etc"])
def test_any_string_is_an_id(store: VectorStore, unit: Unit, id: str) -> None:
    store.upsert([Record(Document("a text", id), unit(1)[0])])
    assert store.get([id])[0].document.id == id
    assert store.delete(ids=[id]) == 1
    assert store.count() == 0


@pytest.mark.parametrize("text", ["x", "東京 🚲\r\n", "a" * 1_000_000, " padded ", "\u2028 \x7f \x01"])
def test_any_text_comes_back_exactly(store: VectorStore, unit: Unit, text: str) -> None:
    store.upsert([Record(Document(text, "x"), unit(1)[0])])
    assert store.get(["x"])[0].document.text == text


def test_upsert_replaces_the_whole_record(store: VectorStore, unit: Unit) -> None:
    first, second = unit(2, seed=3)
    store.upsert([Record(Document("old", "x", {"old": 1, "both": 1}), first)])
    store.upsert([Record(Document("new", "x", {"both": 2}), second)])
    (found,) = store.get(["x"], with_vectors=True)
    assert found.document == Document("new", "x", {"both": 2})
    np.testing.assert_allclose(found.vector, second, atol=1e-6)
    assert store.count() == 1
    assert store.count(parse({"old": {"$exists": True}})) == 0
    assert store.count(parse({"both": 1})) == 0


def test_the_last_of_equal_ids_wins(store: VectorStore, unit: Unit) -> None:
    first, second = unit(2)
    store.upsert([Record(Document("one", "x"), first), Record(Document("two", "x"), second)])
    assert [record.document.text for record in store.get(["x"])] == ["two"]
    assert store.count() == 1


def test_query_is_exact_search(store: VectorStore, unit: Unit) -> None:
    written = records(unit, 300)
    store.upsert(written)
    for query in unit(10, seed=9):
        scores = {record.document.id: float(record.vector @ query) for record in written}
        expected = sorted(scores, key=lambda id: (-scores[id], id))[:10]
        found = store.query(query, 10)
        assert [match.record.document.id for match in found] == expected
        np.testing.assert_allclose([match.score for match in found], [scores[id] for id in expected], atol=1e-5)
        assert found[0].record.vector is None
    assert store.query(written[0].vector, 1, with_vectors=True)[0].record.vector is not None


def test_scores_are_cosines(store: VectorStore) -> None:
    axis = np.eye(8, dtype=np.float32)
    store.upsert([Record(Document("same", "a"), axis[0]), Record(Document("across", "b"), axis[1])])
    store.upsert([Record(Document("against", "c"), -axis[0])])
    found = store.query(axis[0], 3)
    assert [(match.record.document.id, round(match.score, 6)) for match in found] == [("a", 1), ("b", 0), ("c", -1)]


def test_scores_never_leave_the_range_of_a_cosine(store: VectorStore, unit: Unit) -> None:
    rows = unit(200)
    store.upsert([Record(Document(f"text {i}", str(i)), row) for i, row in enumerate(rows)])
    assert all(-1 <= match.score <= 1 for row in rows for match in store.query(row, 200))


def test_ties_are_sorted_by_id(store: VectorStore, unit: Unit) -> None:
    row = unit(1)[0]
    store.upsert([Record(Document("same", id), row) for id in ("c", "a", "d", "b")])
    assert [match.record.document.id for match in store.query(row, 4)] == ["a", "b", "c", "d"]


def test_ties_beyond_k_are_left_out_by_id(store: VectorStore, unit: Unit) -> None:
    near, far = unit(2)
    store.upsert([Record(Document("same", f"{i:03}"), near) for i in reversed(range(50))])
    store.upsert([Record(Document("other", "x"), far)])
    assert [match.record.document.id for match in store.query(near, 3)] == ["000", "001", "002"]


def test_what_is_done_to_a_result_is_not_done_to_the_store(store: VectorStore, unit: Unit) -> None:
    store.upsert([Record(Document("a", "x", {"tags": ["b"]}), unit(1)[0])])
    store.get(["x"])[0].document.metadata["tags"].append("c")
    store.query(unit(1)[0], 1, with_vectors=True)[0].record.vector[:] = 0
    assert store.get(["x"])[0].document.metadata == {"tags": ["b"]}
    assert store.query(unit(1)[0], 1)[0].score == pytest.approx(1)


def test_more_than_there_are(store: VectorStore, unit: Unit) -> None:
    store.upsert(records(unit, 3))
    assert len(store.query(unit(1)[0], 1000)) == 3


def test_filtered_query(store: VectorStore, unit: Unit) -> None:
    written = records(unit, 50)
    store.upsert(written)
    query = unit(1, seed=4)[0]
    found = store.query(query, 5, parse({"even": True, "n": {"$lt": 20}}))
    allowed = [record for record in written if record.document.metadata["even"] and record.document.metadata["n"] < 20]
    expected = sorted(allowed, key=lambda record: -float(record.vector @ query))[:5]
    assert [match.record.document.id for match in found] == [record.document.id for record in expected]
    assert store.query(query, 5, parse({"n": {"$gt": 1000}})) == []


def test_delete(store: VectorStore, unit: Unit) -> None:
    store.upsert(records(unit, 20))
    assert store.delete(ids=["id 0", "id 1", "missing", "id 0"]) == 2
    assert store.delete(filter=parse({"even": True})) == 9
    assert store.delete(filter=parse({"even": True})) == 0
    assert store.count() == 9
    assert {r.document.metadata["even"] for batch in store.scan() for r in batch} == {False}


def test_delete_never_means_all(store: VectorStore, unit: Unit) -> None:
    store.upsert(records(unit, 3))
    for wrong in ({}, {"ids": ["id 0"], "filter": parse({"n": 1})}):
        with pytest.raises(InvalidInputError, match="exactly one"):
            store.delete(**wrong)
    assert store.count() == 3


def test_scan_gives_each_once(store: VectorStore, unit: Unit) -> None:
    store.upsert(records(unit, 50))
    batches = list(store.scan(batch=7, with_vectors=True))
    assert all(0 < len(batch) <= 7 for batch in batches)
    assert sorted(r.document.metadata["n"] for batch in batches for r in batch) == list(range(50))
    assert batches[0][0].vector is not None
    assert sum(len(batch) for batch in store.scan(parse({"even": True}), batch=4)) == 25


def test_large_batches(store: VectorStore, unit: Unit) -> None:
    store.upsert(records(unit, 6000))
    assert store.count() == 6000
    assert len(store.get([f"id {i}" for i in range(6000)])) == 6000
    assert len(store.hashes([f"id {i}" for i in range(6000)])) == 6000
    assert store.delete(ids=[f"id {i}" for i in range(6000)]) == 6000


def bad_vectors(unit: Unit) -> dict[str, Any]:
    row = unit(1)[0]
    return {
        "none": None, "short": row[:5], "matrix": np.stack([row, row]), "zero": np.zeros(8, np.float32),
        "nan": np.full(8, np.nan, np.float32), "long": 2 * row,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["none", "short", "matrix", "zero", "nan", "long"])
def test_a_bad_vector_leaves_the_store_as_it_was(store: VectorStore, unit: Unit, kind: str) -> None:
    good, bad = unit(1, seed=2)[0], bad_vectors(unit)[kind]
    with pytest.raises(InvalidInputError, match="'bad'"):
        store.upsert([Record(Document("fine", "good"), good), Record(Document("not", "bad"), bad)])
    assert store.count() == 0


def test_a_bad_query_vector(store: VectorStore, unit: Unit) -> None:
    for vector in (unit(1, dimension=7)[0], np.full(8, np.nan, np.float32)):
        with pytest.raises(InvalidInputError, match="query vector"):
            store.query(vector, 3)


def test_info(store: VectorStore) -> None:
    assert store.info is None
    store.write_info({"passport": {"model": "a"}, "n": [1, None, "é"]})
    store.write_info({"passport": {"model": "b"}, "n": [1, None, "é"]})
    assert store.info == {"passport": {"model": "b"}, "n": [1, None, "é"]}


def test_closed(store: VectorStore, unit: Unit) -> None:
    store.close()
    store.close()
    row = unit(1)[0]
    calls: list[Callable[[], Any]] = [
        store.count, lambda: store.get(["a"]), lambda: store.hashes(["a"]), lambda: store.query(row, 1),
        lambda: store.upsert([Record(Document("a"), row)]), lambda: store.delete(ids=["a"]), lambda: list(store.scan()),
        lambda: store.info, lambda: store.write_info({}), store.drop,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreClosedError):
            call()


def test_drop(make: Make, unit: Unit) -> None:
    store = make(8)
    store.upsert(records(unit, 3))
    store.drop()
    again = make(8)
    assert again.count() == 0
    assert again.info is None
    again.close()


def test_several_vectors_a_document_score_by_the_best(make: Make, unit: Unit) -> None:
    store = make(8, 3)
    rows = unit(90).reshape(30, 3, 8)
    store.upsert([Record(Document(f"text {i}", str(i), {"n": i}), rows[i]) for i in range(30)])
    query = unit(1, seed=5)[0]
    best = (rows @ query).max(1)
    found = store.query(query, 5)
    assert [match.record.document.metadata["n"] for match in found] == np.argsort(-best)[:5].tolist()
    np.testing.assert_allclose([match.score for match in found], np.sort(best)[::-1][:5], atol=1e-5)
    np.testing.assert_allclose(store.get(["4"], with_vectors=True)[0].vector, rows[4], atol=1e-6)
    with pytest.raises(InvalidInputError, match="shape"):
        store.upsert([Record(Document("flat", "x"), rows[0, 0])])
    store.close()


def test_sixteen_threads(store: VectorStore, unit: Unit) -> None:
    """Mixed reads and writes: nothing lost, nothing torn, every vector with its own text."""
    rows = unit(16 * 30)
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
        np.testing.assert_allclose(record.vector, rows[int(id)], atol=1e-6)


@pytest.mark.parametrize("name", PERSISTENT)
class TestPersistence:
    def test_everything_survives_reopening(self, name: str, tmp_path: Path, unit: Unit) -> None:
        make = STORES[name](tmp_path)
        written = records(unit, 30)
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
            np.testing.assert_allclose(record.vector, original.vector, atol=1e-6)
        again.close()

    def test_two_handles_share_one_collection(self, name: str, tmp_path: Path, unit: Unit) -> None:
        """A notebook runs its cell again while the old object still lives."""
        make = STORES[name](tmp_path)
        one, other = make(8), make(8)
        one.upsert(records(unit, 3))
        one.close()
        assert other.count() == 3
        other.close()

    def test_wrong_dimension(self, name: str, tmp_path: Path) -> None:
        make = STORES[name](tmp_path)
        make(8).close()
        for shape in ((16, 1), (8, 2)):
            with pytest.raises(ModelMismatchError, match="another shape"):
                make(*shape)
        make(8).close()
