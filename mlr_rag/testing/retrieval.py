"""A retriever over the store: the same documents, scores and refusals whatever is beneath."""

from __future__ import annotations

import pytest

from mlr_rag.documents import Document
from mlr_rag.errors import ModelMismatchError, StoreNotFoundError
from mlr_rag.memory import MemoryStore
from mlr_rag.retriever import Retriever
from mlr_rag.stores import VectorStore
from mlr_rag.testing.base import Make, Suite
from mlr_rag.testing.encoder import HashEncoder
from mlr_rag.testing.vectors import vector_of


class Retrieval(Suite):
    """What a user of the store sees."""

    def test_documents_are_added_once(self, make: Make) -> None:
        with Retriever(HashEncoder(8), make(8)) as kb:
            documents = [Document(f"text {i}", metadata={"n": i}) for i in range(30)]
            assert kb.add(documents).added == 30
            assert kb.add(documents).skipped == 30
            assert kb.sync(documents[:10]).deleted == 20
            assert kb.count() == 10

    def test_a_threshold_is_inclusive(self, make: Make) -> None:
        with Retriever(HashEncoder(8), make(8)) as kb:
            kb.add([f"text {i}" for i in range(30)])
            hits = kb.search("a question", 30)
            kept = kb.search("a question", 30, min_score=hits[9].score)
            assert kept == [hit for hit in hits if hit.score >= hits[9].score]
            assert len(kept) >= 10
            assert kb.search("a question", 30, min_score=1) == []

    def test_another_model_is_refused(self, make: Make) -> None:
        store = make(8)
        Retriever(HashEncoder(8), store).add(["a text"])
        with pytest.raises(ModelMismatchError, match="another model"):
            Retriever(HashEncoder(8, version="2"), store)
        with pytest.raises(ModelMismatchError, match="another"):
            Retriever(HashEncoder(16), store)
        assert Retriever(HashEncoder(8), store).count() == 1
        store.close()

    def test_diversity_at_both_ends(self, make: Make) -> None:
        with Retriever(HashEncoder(8), make(8)) as kb:
            kb.add([f"text {i}" for i in range(40)])
            plain = kb.search("a question", 20)
            assert kb.search("a question", 5, diversity=0) == plain[:5]
            diverse = kb.search("a question", 5, diversity=1, candidates=20)
            assert [hit.document.id for hit in diverse] == _farthest(kb.store, [hit.document.id for hit in plain], 5)
            assert {hit.document.id: hit.score for hit in plain}.items() >= {
                hit.document.id: hit.score for hit in diverse
            }.items()
            least = plain[10].score
            assert min(hit.score for hit in kb.search("a question", 5, diversity=1, min_score=least)) >= least

    def test_a_migration_and_back(self, make: Make) -> None:
        """The whole way: beside, switched, answering as a new index would; back, and answering as before."""
        documents = [Document(f"text {i}", str(i), {"n": i}) for i in range(50)]
        old, new = HashEncoder(8), HashEncoder(16, version="2")
        kb = Retriever(old, make(8))
        kb.add(documents)
        before = kb.search("a question", 10)
        moved = kb.reindex(new)
        assert (moved.switched, moved.encoded, moved.documents, moved.generation) == (True, 50, 50, 2)
        reference = Retriever(new, MemoryStore(16))
        reference.add(documents)
        _assert_same_hits(kb, reference)
        kb.add([Document("later", "later")])
        kb.delete(["0"])
        reference.add([Document("later", "later")])
        reference.delete(["0"])
        _assert_same_hits(kb, reference)

        back = kb.rollback(old)
        assert (back.switched, back.encoded, back.deleted, back.generation) == (True, 1, 1, 1)
        kb.add([documents[0]])
        kb.delete(["later"])
        assert kb.search("a question", 10) == before
        assert kb.reindex(new).encoded == 1
        assert kb.prune() == 1
        assert kb.store.generations() == [2]
        with pytest.raises(StoreNotFoundError, match="roll back"):
            kb.rollback(old)
        assert len(kb.search("a question", 50)) == 50
        kb.store.drop()
        kb.close()

    def test_a_copy_is_the_same(self, make: Make) -> None:
        kb, target = Retriever(HashEncoder(8), make(8)), MemoryStore(8)
        documents = [Document(f"text {i}", str(i), {"n": i, "x": [None, 1.0, True]}) for i in range(300)]
        kb.add(documents)
        assert (kb.copy_to(target).written, kb.copy_to(MemoryStore(8)).documents) == (300, 300)
        kb.store.drop()
        fresh = make(8)
        copied = Retriever(HashEncoder(8), target)
        assert copied.copy_to(fresh).documents == 300
        with Retriever(HashEncoder(8), fresh) as again:
            assert sorted(again.get([d.id for d in documents]), key=lambda d: int(d.id)) == documents
            _assert_same_hits(again, copied)


def _assert_same_hits(one: Retriever, other: Retriever) -> None:
    for question in ("a question", "another", "text 7"):
        hits, others = one.search(question, 10), other.search(question, 10)
        assert [hit.document for hit in hits] == [hit.document for hit in others]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in others], abs=1e-6)


def _farthest(store: VectorStore, ids: list[str], k: int) -> list[str]:
    """The first, then each time the one whose largest cosine to those before is smallest."""
    vectors = {record.document.id: vector_of(record) for record in store.get(ids, with_vectors=True)}
    picked = ids[:1]
    while len(picked) < k:
        rest = [id for id in ids if id not in picked]
        picked.append(min(rest, key=lambda one: max(float(vectors[one] @ vectors[other]) for other in picked)))
    return picked
