"""Keeping a collection in step with its source: LangChain's index(), and sync, which needs no record manager."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from mlr_rag import InvalidInputError, MLRModel, ModelMismatchError, Retriever
from mlr_rag.errors import InvalidDocumentError, InvalidFilterError
from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLRVectorStore
from tests.langchain.material import Failing


def source(name: str, *texts: str) -> list[Document]:
    return [Document(text, metadata={"source": name}) for text in texts]


def texts(store: MLRVectorStore) -> list[str]:
    return sorted(document.page_content for document in store.similarity_search("text", 100))


def keeper(store: MLRVectorStore) -> InMemoryRecordManager:
    manager = InMemoryRecordManager(store.namespace)
    manager.create_schema()
    return manager


def counts(added: int = 0, updated: int = 0, skipped: int = 0, deleted: int = 0) -> dict[str, int]:
    return {"num_added": added, "num_updated": updated, "num_skipped": skipped, "num_deleted": deleted}


# -- index() -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_encoder", ["sha256", "blake2b", "sha512"])
def test_index_and_again(url: str, key_encoder: Any) -> None:
    encoder = HashEncoder()
    with MLRVectorStore.open(url, encoder) as store:
        manager, documents = keeper(store), source("a", "one", "two") + source("b", "three")
        options: dict[str, Any] = {"key_encoder": key_encoder, "source_id_key": "source", "cleanup": "incremental"}
        assert index(documents, manager, store, **options) == counts(added=3)
        encoded = len(encoder.encoded)
        assert index(documents, manager, store, **options) == counts(skipped=3)
        assert index(documents, manager, store, force_update=True, **options) == counts(updated=3)
        assert len(encoder.encoded) == encoded, "even what is written again is not encoded again"
        found = {document.page_content: document for document in store.similarity_search("one")}
        assert len(found["one"].id or "") in (64, 128)
        assert found["one"].metadata == {"source": "a"}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("cleanup", ["incremental", "full", "scoped_full"])
async def test_cleanups(store: MLRVectorStore, cleanup: Any, way: str) -> None:
    manager = keeper(store)

    async def run(documents: list[Document]) -> Any:
        options: dict[str, Any] = {"cleanup": cleanup, "source_id_key": "source", "key_encoder": "sha256"}
        if way == "sync":
            return index(documents, manager, store, batch_size=2, **options)
        return await aindex(documents, manager, store, batch_size=2, **options)

    assert await run(source("a", "one", "two") + source("b", "three")) == counts(added=3)
    if cleanup == "full":
        assert await run(source("a", "one")) == counts(skipped=1, deleted=2)
        assert texts(store) == ["one"]
        assert await run([]) == counts(deleted=1)
    else:
        assert await run(source("a", "one", "four")) == counts(added=1, skipped=1, deleted=1)
        assert texts(store) == ["four", "one", "three"]


def test_index_notices_another_model(tmp_path: Path) -> None:
    """Stock stores answer "all skipped" here, and go on with the old vectors."""
    url, documents = f"edge:{tmp_path}/kb", source("a", "one", "two")
    with MLRVectorStore.open(url, HashEncoder()) as store:
        manager = keeper(store)
        index(documents, manager, store, key_encoder="sha256")
    with pytest.raises(ModelMismatchError, match="reindex"):
        MLRVectorStore.open(url, HashEncoder(version="2"))
    with MLRVectorStore.open(url, HashEncoder()) as store:
        assert store.namespace == manager.namespace, "the same collection, tomorrow too"
        new = HashEncoder(24, "2")
        store.retriever.reindex(new)
        assert store.namespace == manager.namespace, "all documents moved with it: the records are true"
        assert index(documents, manager, store, key_encoder="sha256") == counts(skipped=2)
        assert store.retriever.model is new
        assert texts(store) == ["one", "two"]


@pytest.mark.parametrize("version", ["1", "2"])
def test_records_of_another_collection_do_not_apply(tmp_path: Path, version: str) -> None:
    """Of one that was deleted, in whose place is one with another model, or the same."""
    url, documents = f"edge:{tmp_path}/kb", source("a", "one", "two")
    with MLRVectorStore.open(url, HashEncoder()) as store:
        first = store.namespace
        index(documents, keeper(store), store, key_encoder="sha256")
    shutil.rmtree(tmp_path / "kb")
    with MLRVectorStore.open(url, HashEncoder(version=version)) as store:
        assert store.namespace != first
        assert index(documents, keeper(store), store, key_encoder="sha256") == counts(added=2)
        assert texts(store) == ["one", "two"]


def test_every_collection_has_a_namespace(url: str) -> None:
    with MLRVectorStore.open(url, HashEncoder()) as one, MLRVectorStore.open("memory:", HashEncoder()) as other:
        assert one.namespace == one.namespace != other.namespace
        assert len({one.namespace, other.namespace, ""}) == 3


def test_index_notices_a_model_that_was_trained_in_place(tiny_model: MLRModel, tmp_path: Path) -> None:
    with MLRVectorStore.open(tmp_path / "kb", tiny_model) as store:
        manager = keeper(store)
        index(source("a", "paris", "water"), manager, store, key_encoder="sha256")
        for weight in tiny_model.parameters():
            weight.data *= 1.5
        with pytest.raises(ModelMismatchError):
            index(source("a", "paris", "water", "france"), manager, store, key_encoder="sha256")
        assert store.retriever.count() == 2


# -- sync --------------------------------------------------------------------------------------------------------


async def test_sync(url: str) -> None:
    encoder = HashEncoder()
    with MLRVectorStore.open(url, encoder) as store:
        report = store.sync(source("a", "one", "two", "three"))
        assert (report.added, report.skipped, report.deleted) == (3, 0, 0)
        encoded = len(encoder.encoded)
        report = store.sync(document for document in source("a", "two", "three", "four"))
        assert (report.added, report.skipped, report.deleted) == (1, 2, 1)
        assert encoder.encoded[encoded:] == ["four"]
        assert texts(store) == ["four", "three", "two"]
        report = await store.async_(source("a", "two"))
        assert (report.added, report.skipped, report.deleted) == (0, 1, 2)
        assert texts(store) == ["two"]


async def test_sync_of_one_source(store: MLRVectorStore) -> None:
    store.sync(source("a", "one", "two") + source("b", "three"))
    assert store.sync(source("a", "two"), within={"source": "a"}).deleted == 1
    assert texts(store) == ["three", "two"]
    assert (await store.async_(source("b", "four"), within={"source": "b"})).deleted == 1
    assert texts(store) == ["four", "two"]
    assert store.sync(source("a", "five"), keep=lambda document: document.text == "four").deleted == 1
    assert texts(store) == ["five", "four"]
    with pytest.raises(InvalidFilterError):
        store.sync(source("a", "two"), within={"source": {"$like": "a"}})
    assert texts(store) == ["five", "four"]


async def test_a_source_that_fails_deletes_nothing(store: MLRVectorStore) -> None:
    store.sync(source("a", "one", "two"))

    def failing() -> Iterator[Document]:
        yield from source("a", "one")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        store.sync(failing())
    with pytest.raises(OSError, match="the disk is gone"):
        await store.async_(failing())
    with pytest.raises(InvalidInputError, match="would delete all"):
        store.sync([])
    with pytest.raises(InvalidDocumentError, match=r"document 1.*not a LangChain Document"):
        store.sync([*source("a", "one"), None])  # type: ignore[list-item]
    assert texts(store) == ["one", "two"]


def test_sync_goes_on_where_it_failed(tmp_path: Path) -> None:
    encoder = Failing()
    with MLRVectorStore.open(tmp_path / "kb", encoder) as store:
        store.sync(source("a", "one", "gone"))
        many = source("a", "one", *(f"text {i}" for i in range(3000)))
        with pytest.raises(RuntimeError, match="boom"):
            store.sync(document for document in [*many, *source("a", "boom")])
        assert {"gone", "one"} <= {d.page_content for d in store.similarity_search("x", 10**6)}, "nothing was deleted"
        written, encoded = store.retriever.count() - 2, len(encoder.encoded)
        assert written > 1000
        report = store.sync(many)
        assert report.deleted == 1
        assert len(encoder.encoded) - encoded == 3000 - written, "what was written is not encoded again"
        assert store.retriever.count() == 3001


def test_both_faces_write_the_same(tmp_path: Path) -> None:
    """What one of them has written is unchanged for the other."""
    with Retriever.from_langchain_documents(source("a", "one", "two"), tmp_path / "kb", HashEncoder()) as kb:
        report = MLRVectorStore(kb).sync(source("a", "one", "two"))
        assert (report.skipped, report.deleted) == (2, 0)
        assert {document.id for document in kb.as_langchain().invoke("one")} == {
            hit.document.id for hit in kb.search("one")
        }
