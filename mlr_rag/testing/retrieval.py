"""A retriever over the store: the same documents, scores and refusals whatever is beneath."""

from __future__ import annotations

import pytest

from mlr_rag.documents import Document
from mlr_rag.errors import ModelMismatchError
from mlr_rag.retriever import Retriever
from mlr_rag.testing.base import Make, Suite
from mlr_rag.testing.encoder import HashEncoder


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
