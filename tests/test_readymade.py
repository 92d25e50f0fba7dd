"""Vectors that come ready-made: added, searched for, and refused where another model made them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from mlr_rag import Document, InvalidInputError, ModelMismatchError, Retriever
from mlr_rag import retriever as retriever_module
from mlr_rag.errors import DuplicateIdError, InvalidQueryError
from mlr_rag.memory import MemoryStore
from mlr_rag.testing import HashEncoder

TEXTS = [f"text {n}" for n in range(700)]


@pytest.fixture
def kb(encoder: HashEncoder) -> Retriever:
    return Retriever(encoder, MemoryStore(16))


def test_vectors_are_stored_as_they_are(kb: Retriever, encoder: HashEncoder) -> None:
    vectors = 3 * encoder.encode_document(TEXTS).astype(np.float64)
    encoder.encoded.clear()
    report = kb.add_vectors(TEXTS, vectors.tolist())
    assert (report.added, report.skipped) == (700, 0)
    assert encoder.encoded == [TEXTS[0], TEXTS[-1]], "no more than is needed to see who made them"
    reference = Retriever(HashEncoder(16), MemoryStore(16))
    reference.add(TEXTS)
    hits, others = kb.search("a question", 50), reference.search("a question", 50)
    assert [hit.document for hit in hits] == [hit.document for hit in others]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in others], abs=1e-6)
    assert kb.add(TEXTS).skipped == 700
    assert kb.add_vectors([], []).added == 0


def test_several_vectors_a_document() -> None:
    class Several(HashEncoder):
        vectors_per_document = 2

        def encode_document(self, inputs: Any) -> np.ndarray:
            return np.stack([super(Several, self).encode_document([f"{x} a", f"{x} b"]) for x in inputs])

    kb = Retriever(Several(8), MemoryStore(8, 2))
    kb.add_vectors(["x", "y"], kb.model.encode_document(["x", "y"]))
    assert kb.search("y b", 1)[0].document.text == "y"
    with pytest.raises(ModelMismatchError, match=r"document .* was not made by the model"):
        kb.add_vectors(["z"], kb.model.encode_document(["y"]))


@pytest.mark.parametrize("wrong", [0, 699], ids=["first", "last"])
def test_another_models_vectors_are_refused(kb: Retriever, encoder: HashEncoder, wrong: int) -> None:
    vectors = encoder.encode_document(TEXTS)
    vectors[wrong] = HashEncoder(16, version="2").encode_document([TEXTS[wrong]])[0]
    with pytest.raises(ModelMismatchError, match=r"found a cosine of -?0\.\d+ to hash-encoder's own, expected 0.9999"):
        kb.add_vectors(TEXTS, vectors)
    with pytest.raises(ModelMismatchError, match="another length than this collection's: found 8, expected 16"):
        kb.add_vectors(TEXTS, vectors[:, :8])
    assert kb.count() == 0


NOT_VECTORS = {
    "too few": [[1.0] * 16],
    "none": None,
    "ragged": [[1.0] * 16, [1.0]],
    "zero": np.zeros((2, 16)),
    "not finite": np.full((2, 16), np.nan),
    "no numbers": ["a", "b"],
    "no rows": np.ones(16),
}


@pytest.mark.parametrize("vectors", NOT_VECTORS.values(), ids=NOT_VECTORS)
def test_what_are_no_vectors_is_refused(kb: Retriever, vectors: Any) -> None:
    with pytest.raises(InvalidInputError):
        kb.add_vectors(["a", "b"], vectors)
    assert kb.count() == 0


def test_rows_of_several_lengths_are_named(kb: Retriever) -> None:
    with pytest.raises(
        InvalidInputError, match=r"found rows of \[1, 16\] numbers, expected numbers, of shape \(2, 16\)"
    ):
        kb.add_vectors(["a", "b"], [[1.0] * 16, [1.0]])


def test_of_a_document_that_comes_twice_the_first_vector_counts(kb: Retriever, encoder: HashEncoder) -> None:
    right, other = encoder.encode_document(["a"])[0], HashEncoder(16, version="2").encode_document(["a"])[0]
    kb.add_vectors(["a", "a"], [right, other])
    assert kb.search("a", 1)[0].score == pytest.approx(1)
    with pytest.raises(DuplicateIdError):
        kb.add_vectors([Document("a", "1"), Document("b", "1")], encoder.encode_document(["a", "b"]))


def test_a_migration_between_the_look_and_the_write(kb: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors are the old model's then: the new one must make its own."""
    old, new = kb.model, HashEncoder(16, version="2")
    look = retriever_module.check_document_vectors

    def look_and_migrate(*arguments: Any) -> None:
        look(*arguments)
        kb.reindex(new)

    kb.add(["something to move"])
    monkeypatch.setattr(retriever_module, "check_document_vectors", look_and_migrate)
    kb.add_vectors(["a", "b"], old.encode_document(["a", "b"]))
    assert kb.search("a", 1)[0].score == pytest.approx(1)
    assert kb.search("b", 1)[0].score == pytest.approx(1)


def test_a_querys_vector_is_compared_with_its_text(kb: Retriever, encoder: HashEncoder) -> None:
    kb.add(TEXTS)
    vector = 0.5 * encoder.encode_query(["a question"])[0]
    hits = kb.search("a question", 5)
    for found in (
        kb.search_by_vector(vector, 5, text="a question"),
        kb.search_by_vector(vector.tolist(), 5),
        asyncio.run(kb.asearch_by_vector(vector, 5, text="a question")),
    ):
        assert [hit.document for hit in found] == [hit.document for hit in hits]
    for text, error in (("another question", ModelMismatchError), (" ", InvalidQueryError), (5, InvalidQueryError)):
        with pytest.raises(error):
            kb.search_by_vector(vector, 5, text=text)
    with pytest.raises(ModelMismatchError, match="another length"):
        kb.search_by_vector([1.0] * 8)


def test_a_search_among_ids(kb: Retriever) -> None:
    kb.add([Document(text, str(n), {"n": n}) for n, text in enumerate(TEXTS)])
    everything = kb.search("a question", 700)
    among = [hit.document.id for hit in everything[100:200]]
    assert kb.search("a question", 10, ids=among) == everything[100:110]
    assert asyncio.run(kb.asearch("a question", 10, ids=iter(among))) == everything[100:110]
    small = kb.search("a question", 10, ids=among, filter={"n": {"$lt": 100}}, min_score=-0.5)
    assert small == [hit for hit in everything[100:200] if int(hit.document.id) < 100 and hit.score >= -0.5][:10]
    assert kb.search("a question", 10, ids=[]) == []
    assert kb.search("a question", 10, ids="7") == [hit for hit in everything if hit.document.id == "7"]
    assert len(kb.search("a question", 10, ids=among, diversity=0.5)) == 10
    with pytest.raises(InvalidInputError):
        kb.search("a question", ids=[7])


def test_a_search_among_many_ids_is_exact_and_asks_for_little(kb: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    kb.add([Document(text, str(n)) for n, text in enumerate(TEXTS)])
    everything, asked = kb.search("a question", 700), []
    query = MemoryStore.query
    monkeypatch.setattr(MemoryStore, "query", lambda *arguments: asked.append(arguments[2]) or query(*arguments))
    nearest, farthest = ([hit.document.id for hit in hits] for hits in (everything[:400], everything[-400:]))
    assert kb.search("a question", 10, ids=nearest) == everything[:10]
    assert asked == [20]
    assert kb.search("a question", 10, ids=farthest) == everything[300:310]
    assert kb.search("a question", 500, ids=farthest) == everything[300:]
    assert len(kb.search("a question", 10, ids=farthest, diversity=0.5)) == 10
    assert kb.search("a question", 10, ids=[f"no {n}" for n in range(300)]) == []


def test_a_collections_id_stays_and_is_its_own(kb: Retriever) -> None:
    kb.add(["a"])
    before = kb.info().id
    kb.reindex(HashEncoder(16, version="2"))
    assert kb.info().id == before
    kb.rollback(HashEncoder(16))
    assert kb.info().id == before
    copied = MemoryStore(16)
    kb.copy_to(copied)
    assert (
        len(
            {
                before,
                Retriever(HashEncoder(16), copied).info().id,
                Retriever(HashEncoder(16), MemoryStore(16)).info().id,
            }
        )
        == 3
    )
