"""A copy of a collection is the collection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from mlr_rag import Document, InvalidInputError, ModelMismatchError, Retriever, StoreError
from mlr_rag.memory import MemoryStore
from mlr_rag.stores import VectorStore, open_store
from mlr_rag.testing import HashEncoder
from mlr_rag_qdrant import QdrantStore

PLACES = {"edge": "edge:{}/edge", "qdrant": "qdrant:{}/qdrant/kb1", "chroma": "chroma:{}/chroma/kb1"}
DOCUMENTS = [Document(f"text {i}", f"id {i} / é", {"n": i, "x": [None, 1.0, 1, True, {"y": -0.0}]}) for i in range(60)]


def _place(name: str, folder: Path) -> str | VectorStore:
    return MemoryStore(16) if name == "memory" else PLACES[name].format(folder)


@pytest.mark.filterwarnings("ignore:.*unpickles.*:UserWarning")
@pytest.mark.parametrize("target", ["memory", *PLACES])
@pytest.mark.parametrize("source", ["memory", *PLACES])
def test_every_pair_of_stores(source: str, target: str, tmp_path: Path) -> None:
    encoder = HashEncoder(16)
    place = _place(source, tmp_path / "source")
    with Retriever(encoder, place) if not isinstance(place, str) else Retriever.open(place, encoder) as kb:
        kb.add(DOCUMENTS)
        encoder.encoded.clear()
        end = _place(target, tmp_path / "target")
        copied = kb.copy_to(end)
        assert (copied.documents, copied.written) == (60, 60)
        assert encoder.encoded == []
        original = {r.document.id: r for batch in kb.store.scan(with_vectors=True) for r in batch}
        answers = kb.search("a question", 60)
    store = open_store(end) if isinstance(end, str) else end
    with Retriever(encoder, store) as copy:
        records = {r.document.id: r for batch in copy.store.scan(with_vectors=True) for r in batch}
        assert records.keys() == original.keys()
        for id, record in records.items():
            assert repr(record.document) == repr(original[id].document)
            np.testing.assert_allclose(record.vector, original[id].vector, atol=1e-6)
        again = copy.search("a question", 60)
        assert [hit.document.id for hit in again] == [hit.document.id for hit in answers]
        assert [hit.score for hit in again] == pytest.approx([hit.score for hit in answers], abs=1e-6)


@pytest.fixture
def kb(tmp_path: Path) -> Retriever:
    kb = Retriever(HashEncoder(16), MemoryStore(16))
    kb.add(DOCUMENTS)
    return kb


def test_an_interrupted_copy_goes_on(kb: Retriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlr_rag.copying._BATCH", 16)
    target, calls = MemoryStore(16), iter(range(3))
    upsert = target.upsert

    def failing(records: object) -> None:
        if next(calls, None) is None:
            raise ConnectionError
        upsert(records)  # type: ignore[arg-type]

    monkeypatch.setattr(target, "upsert", failing)
    with pytest.raises(ConnectionError):
        kb.copy_to(target)
    assert target.count() == 48
    with pytest.raises(StoreError, match="unfinished copy"):
        Retriever(HashEncoder(16), target)
    monkeypatch.setattr(target, "upsert", upsert)
    kb.delete(["id 0 / é"])
    copied = kb.copy_to(target)
    assert (copied.documents, copied.written) == (59, 12)
    assert (target.info or {}).keys() == {"passport", "collection"}
    assert (target.info or {})["passport"] == (kb.store.info or {})["passport"]


def test_another_collection_is_not_touched(kb: Retriever) -> None:
    target = MemoryStore(16)
    Retriever(HashEncoder(16), target).add(["mine"])
    with pytest.raises(StoreError, match="holds another collection"):
        kb.copy_to(target)
    with pytest.raises(StoreError, match="holds another collection"):
        kb.copy_to(MemoryStore(8))
    assert target.count() == 1


def test_a_finished_copy_is_brought_up_to_date(kb: Retriever) -> None:
    target = MemoryStore(16)
    Retriever(HashEncoder(16), target)  # opened before, and empty
    assert kb.copy_to(target).written == 60
    assert kb.copy_to(target).written == 0
    kb.add([Document("changed", DOCUMENTS[3].id)])
    assert kb.copy_to(target).written == 1


def test_from_what_a_migration_left(kb: Retriever) -> None:
    with Retriever(HashEncoder(16), kb.store.beside(1)) as stale:
        kb.reindex(HashEncoder(8, "2"))
        with pytest.raises(ModelMismatchError, match="was migrated"):
            stale.copy_to(MemoryStore(16))


def test_between_two_clients_in_memory() -> None:
    stores = [QdrantStore(QdrantClient(":memory:"), "documents", 16) for _ in range(2)]
    with Retriever(HashEncoder(16), stores[0]) as kb:
        kb.add(DOCUMENTS)
        assert kb.copy_to(stores[1]).documents == 60
    stores[1].close()


def test_places_that_make_no_sense(kb: Retriever, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="onto itself"):
        kb.copy_to(kb.store)
    for url in ("memory:", "qdrant::memory:", "chroma::memory:/docs"):
        with pytest.raises(InvalidInputError, match="gone at once"):
            kb.copy_to(url)
    with pytest.raises(InvalidInputError, match="no store for this URL"):
        kb.copy_to("elastic:x")
    assert kb.copy_to(tmp_path / "kb").documents == 60
    with Retriever.open(tmp_path / "kb", HashEncoder(16)) as other, pytest.raises(InvalidInputError, match="itself"):
        other.copy_to(tmp_path / "kb")


def test_a_source_that_never_rests_is_told(kb: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    target, numbers = MemoryStore(16), iter(range(100))
    upsert = target.upsert

    def busy(records: object) -> None:
        upsert(records)  # type: ignore[arg-type]
        kb.add([f"more {next(numbers)}"])

    monkeypatch.setattr(target, "upsert", busy)
    with pytest.raises(StoreError, match="not yet the same") as error:
        kb.copy_to(target)
    assert "Pause the writers" in error.value.remedy


async def test_without_blocking(kb: Retriever) -> None:
    assert (await kb.acopy_to(MemoryStore(16))).documents == 60
