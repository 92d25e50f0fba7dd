"""The contract of VectorStore, call by call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidInputError, MlrRagError, StoreClosedError
from mlr_rag.filters import parse
from mlr_rag.stores import Record, VectorStore
from mlr_rag.testing.base import Make, Suite
from mlr_rag.testing.vectors import records, unit_rows, vector_of

METADATA: list[dict[str, Any]] = [
    {},
    {"none": None, "yes": True, "no": False, "zero": 0, "float": 1.0, "int": 1, "minus": -0.0},
    {"big": 2**63 - 1, "small": -(2**63), "huge": 1e308, "tiny": 5e-324, "third": 1 / 3},
    {"text": "naïve – 東京 🚲 \n\t\"quoted\" 'single' \\ back", "empty": ""},
    {"list": [1, 1.5, "a", None, True, [2], {"x": []}], "nested": {"a": {"b": [{"c": None}]}}, "empty": [], "none": {}},
    {"dotted.key": 1, "key with spaces": 2, 'a"b': 3, "a[]": 4, "": 5, "$money": 6, "é": 7, "id": 8, "text": 9},
]


def bad_vectors() -> dict[str, Any]:
    """By kind: what is no unit vector of 8 dimensions."""
    row = unit_rows(1)[0]
    return {
        "none": None, "short": row[:5], "matrix": np.stack([row, row]), "zero": np.zeros(8, np.float32),
        "nan": np.full(8, np.nan, np.float32), "long": 2 * row,
    }  # fmt: skip


class Contract(Suite):
    """Every method of the protocol, on its own."""

    def test_it_is_a_vector_store(self, store: VectorStore) -> None:
        assert isinstance(store, VectorStore)
        assert (store.dimension, store.vectors_per_document, store.generation) == (8, 1, 1)

    def test_empty(self, store: VectorStore) -> None:
        assert store.count() == 0
        assert store.get(["a"]) == []
        assert store.hashes(["a"]) == {}
        assert store.hashes([]) == {}
        assert store.query(unit_rows(1)[0], 5) == []
        assert list(store.scan()) == []
        assert store.delete(ids=["a"]) == 0
        assert store.delete(ids=[]) == 0
        store.upsert([])
        assert store.count() == 0

    def test_get_is_exact_and_in_order(self, store: VectorStore) -> None:
        written = records()
        store.upsert(written)
        found = store.get(["id 7", "missing", "id 3"], with_vectors=True)
        assert [record.document for record in found] == [written[7].document, written[3].document]
        np.testing.assert_allclose(vector_of(found[0]), vector_of(written[7]), atol=1e-6)
        assert store.get(["id 1"])[0].vector is None
        assert store.hashes(["id 1", "missing"]) == {"id 1": written[1].document.content_hash}

    @pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
    def test_metadata_comes_back_exactly(self, store: VectorStore, metadata: dict[str, Any]) -> None:
        document = Document("a text", "x", metadata)
        store.upsert([Record(document, unit_rows(1)[0])])
        for found in (store.get(["x"])[0], store.query(unit_rows(1)[0], 1)[0].record, next(store.scan())[0]):
            assert found.document == document
            assert repr(found.document.metadata) == repr(metadata), "1 and 1.0, True and 1, -0.0 and 0.0 stay apart"

    @pytest.mark.parametrize(
        "id", ["a", "x" * 4096, "with space", "ключ/東京?#%", "0", "-1", "True", "a\nb", "../../etc"]
    )
    def test_any_string_is_an_id(self, store: VectorStore, id: str) -> None:
        store.upsert([Record(Document("a text", id), unit_rows(1)[0])])
        assert store.get([id])[0].document.id == id
        assert store.delete(ids=[id]) == 1
        assert store.count() == 0

    @pytest.mark.parametrize("text", ["x", "東京 🚲\r\n", "a" * 1_000_000, " padded ", "\u2028 \x7f \x01"])
    def test_any_text_comes_back_exactly(self, store: VectorStore, text: str) -> None:
        store.upsert([Record(Document(text, "x"), unit_rows(1)[0])])
        assert store.get(["x"])[0].document.text == text

    def test_upsert_replaces_the_whole_record(self, store: VectorStore) -> None:
        first, second = unit_rows(2, seed=3)
        store.upsert([Record(Document("old", "x", {"old": 1, "both": 1}), first)])
        store.upsert([Record(Document("new", "x", {"both": 2}), second)])
        (found,) = store.get(["x"], with_vectors=True)
        assert found.document == Document("new", "x", {"both": 2})
        np.testing.assert_allclose(vector_of(found), second, atol=1e-6)
        assert store.count() == 1
        assert store.count(parse({"old": {"$exists": True}})) == 0
        assert store.count(parse({"both": 1})) == 0

    def test_the_last_of_equal_ids_wins(self, store: VectorStore) -> None:
        first, second = unit_rows(2)
        store.upsert([Record(Document("one", "x"), first), Record(Document("two", "x"), second)])
        assert [record.document.text for record in store.get(["x"])] == ["two"]
        assert store.count() == 1

    def test_query_is_exact_search(self, store: VectorStore) -> None:
        written = records(300)
        store.upsert(written)
        for query in unit_rows(10, seed=9):
            scores = {record.document.id: float(vector_of(record) @ query) for record in written}
            expected = [id for _, id in sorted((-score, id) for id, score in scores.items())][:10]
            found = store.query(query, 10)
            assert [match.record.document.id for match in found] == expected
            np.testing.assert_allclose([match.score for match in found], [scores[id] for id in expected], atol=1e-5)
            assert found[0].record.vector is None
        assert store.query(vector_of(written[0]), 1, with_vectors=True)[0].record.vector is not None

    def test_scores_are_cosines(self, store: VectorStore) -> None:
        axis = np.eye(8, dtype=np.float32)
        store.upsert([Record(Document("same", "a"), axis[0]), Record(Document("across", "b"), axis[1])])
        store.upsert([Record(Document("against", "c"), -axis[0])])
        found = store.query(axis[0], 3)
        assert [(match.record.document.id, round(match.score, 6)) for match in found] == [("a", 1), ("b", 0), ("c", -1)]

    def test_scores_never_leave_the_range_of_a_cosine(self, store: VectorStore) -> None:
        rows = unit_rows(200)
        store.upsert([Record(Document(f"text {i}", str(i)), row) for i, row in enumerate(rows)])
        assert all(-1 <= match.score <= 1 for row in rows for match in store.query(row, 200))

    def test_ties_are_sorted_by_id(self, store: VectorStore) -> None:
        row = unit_rows(1)[0]
        store.upsert([Record(Document("same", id), row) for id in ("c", "a", "d", "b")])
        assert [match.record.document.id for match in store.query(row, 4)] == ["a", "b", "c", "d"]

    def test_ties_in_many_dimensions(self, make: Make) -> None:
        """A product of matrices gives equal rows scores that differ in their last bits; a store must not."""
        store, rows = make(384), unit_rows(200, 384)
        rows[::29] = rows[0]
        store.upsert([Record(Document("text", f"{i:03}"), rows[i]) for i in reversed(range(200))])
        found = store.query(rows[0], 7)
        assert [match.record.document.id for match in found] == [f"{i:03}" for i in range(0, 200, 29)]
        store.close()

    def test_ties_beyond_k_are_left_out_by_id(self, store: VectorStore) -> None:
        near, far = unit_rows(2)
        store.upsert([Record(Document("same", f"{i:03}"), near) for i in reversed(range(50))])
        store.upsert([Record(Document("other", "x"), far)])
        assert [match.record.document.id for match in store.query(near, 3)] == ["000", "001", "002"]

    def test_what_is_done_to_a_result_is_not_done_to_the_store(self, store: VectorStore) -> None:
        store.upsert([Record(Document("a", "x", {"tags": ["b"]}), unit_rows(1)[0])])
        store.get(["x"])[0].document.metadata["tags"].append("c")
        vector_of(store.query(unit_rows(1)[0], 1, with_vectors=True)[0].record)[:] = 0
        assert store.get(["x"])[0].document.metadata == {"tags": ["b"]}
        assert store.query(unit_rows(1)[0], 1)[0].score == pytest.approx(1)

    def test_more_than_there_are(self, store: VectorStore) -> None:
        store.upsert(records(3))
        assert len(store.query(unit_rows(1)[0], 1000)) == 3

    def test_filtered_query(self, store: VectorStore) -> None:
        written = records(50)
        store.upsert(written)
        query = unit_rows(1, seed=4)[0]
        found = store.query(query, 5, parse({"even": True, "n": {"$lt": 20}}))
        allowed = [
            record for record in written if record.document.metadata["even"] and record.document.metadata["n"] < 20
        ]
        expected = sorted(allowed, key=lambda record: -float(vector_of(record) @ query))[:5]
        assert [match.record.document.id for match in found] == [record.document.id for record in expected]
        assert store.query(query, 5, parse({"n": {"$gt": 1000}})) == []

    def test_delete(self, store: VectorStore) -> None:
        store.upsert(records(20))
        assert store.delete(ids=["id 0", "id 1", "missing", "id 0"]) == 2
        assert store.delete(filter=parse({"even": True})) == 9
        assert store.delete(filter=parse({"even": True})) == 0
        assert store.count() == 9
        assert {r.document.metadata["even"] for batch in store.scan() for r in batch} == {False}

    def test_delete_never_means_all(self, store: VectorStore) -> None:
        store.upsert(records(3))
        wrongs: tuple[dict[str, Any], ...] = ({}, {"ids": ["id 0"], "filter": parse({"n": 1})})
        for wrong in wrongs:
            with pytest.raises(InvalidInputError, match="exactly one"):
                store.delete(**wrong)
        assert store.count() == 3

    def test_scan_gives_each_once(self, store: VectorStore) -> None:
        store.upsert(records(50))
        batches = list(store.scan(batch=7, with_vectors=True))
        assert all(0 < len(batch) <= 7 for batch in batches)
        assert sorted(r.document.metadata["n"] for batch in batches for r in batch) == list(range(50))
        assert batches[0][0].vector is not None
        assert sum(len(batch) for batch in store.scan(parse({"even": True}), batch=4)) == 25

    def test_large_batches(self, store: VectorStore) -> None:
        store.upsert(records(6000))
        assert store.count() == 6000
        assert len(store.get([f"id {i}" for i in range(6000)])) == 6000
        assert len(store.hashes([f"id {i}" for i in range(6000)])) == 6000
        assert store.delete(ids=[f"id {i}" for i in range(6000)]) == 6000

    @pytest.mark.parametrize("kind", ["none", "short", "matrix", "zero", "nan", "long"])
    def test_a_bad_vector_leaves_the_store_as_it_was(self, store: VectorStore, kind: str) -> None:
        good, bad = unit_rows(1, seed=2)[0], bad_vectors()[kind]
        with pytest.raises(InvalidInputError, match="'bad'"):
            store.upsert([Record(Document("fine", "good"), good), Record(Document("not", "bad"), bad)])
        assert store.count() == 0

    def test_a_bad_query_vector(self, store: VectorStore) -> None:
        for vector in (unit_rows(1, dimension=7)[0], np.full(8, np.nan, np.float32)):
            with pytest.raises(InvalidInputError, match="query vector"):
                store.query(vector, 3)

    def test_info(self, store: VectorStore) -> None:
        assert store.info is None
        store.write_info({"passport": {"model": "a"}, "n": [1, None, "é"]})
        store.write_info({"passport": {"model": "b"}, "n": [1, None, "é"]})
        assert store.info == {"passport": {"model": "b"}, "n": [1, None, "é"]}

    def test_closed(self, store: VectorStore) -> None:
        store.close()
        store.close()
        row = unit_rows(1)[0]
        calls: list[Callable[[], Any]] = [
            store.count, lambda: store.get(["a"]), lambda: store.hashes(["a"]), lambda: store.query(row, 1),
            lambda: store.upsert([Record(Document("a"), row)]), lambda: store.delete(ids=["a"]),
            lambda: list(store.scan()),
            lambda: store.info, lambda: store.write_info({}), store.drop, store.generations, store.current,
            lambda: store.switch(1), lambda: store.beside(2, 8),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(StoreClosedError):
                call()

    def test_drop(self, make: Make) -> None:
        store = make(8)
        store.upsert(records(3))
        store.drop()
        again = make(8)
        assert again.count() == 0
        assert again.info is None
        again.close()

    def test_several_vectors_a_document_score_by_the_best(self, make: Make) -> None:
        if not self.several:
            with pytest.raises(MlrRagError, match="several"):
                make(8, 3)
            return
        store = make(8, 3)
        rows = unit_rows(90).reshape(30, 3, 8)
        store.upsert([Record(Document(f"text {i}", str(i), {"n": i}), rows[i]) for i in range(30)])
        query = unit_rows(1, seed=5)[0]
        best = (rows @ query).max(1)
        found = store.query(query, 5)
        assert [match.record.document.metadata["n"] for match in found] == np.argsort(-best)[:5].tolist()
        np.testing.assert_allclose([match.score for match in found], np.sort(best)[::-1][:5], atol=1e-5)
        np.testing.assert_allclose(vector_of(store.get(["4"], with_vectors=True)[0]), rows[4], atol=1e-6)
        with pytest.raises(InvalidInputError, match="shape"):
            store.upsert([Record(Document("flat", "x"), rows[0, 0])])
        store.close()
