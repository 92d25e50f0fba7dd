"""What goes into MLRVectorStore comes out the same, under its own id, and is encoded once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain_core.documents import Document

from mlr_rag import Document as OwnDocument
from mlr_rag import InvalidInputError, ModelMismatchError, Retriever
from mlr_rag.errors import DuplicateIdError, InvalidDocumentError, InvalidFilterError, StoreClosedError
from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLRVectorStore, from_langchain, to_langchain
from tests.langchain.material import Failing, documents, ids

UUID_ID = UUID("12345678-1234-5678-1234-567812345678")
RICH = [
    Document(
        "Größe  der\nStadt 北京 🦊",
        id="a/b c",
        metadata={
            "nested": {"list": [1, 2.5, None, {"deep": {"er": [True, "x"]}}], "empty": {}},
            "none": None,
            "yes": True,
            "one": 1,
            "float": 1.0,
            "big": 2**53 + 1,
            "ünïcode kéy": "ärger \u200b\u2028 \U0001f98a",
            "dotted.key with $": "x",
            "empty list": [],
            "empty text": "",
        },
    ),
    Document("plain", id=hashlib.sha256(b"plain").hexdigest()),
    Document("  spaces around  ", id="   ", metadata={"id": "mine", "text": "mine", "_id": 1, "metadata": {"a": 1}}),
]


def exactly(document: Document) -> tuple[Any, ...]:
    """With the types of its values: True == 1 == 1.0."""
    return document.id, document.page_content, repr(sorted(document.metadata.items()))


async def test_documents_come_back_as_they_went_in(url: str) -> None:
    before = [exactly(document) for document in RICH]
    with MLRVectorStore.open(url, HashEncoder()) as store:
        assert store.add_documents(RICH) == ids(RICH)
        assert [exactly(document) for document in RICH] == before, "ours to read, not to change"
        assert [exactly(found) for found in store.get_by_ids([d.id for d in RICH])] == before
        assert [exactly(found) for found in await store.aget_by_ids([d.id for d in RICH])] == before
        for document in RICH:
            (best,) = store.similarity_search(document.page_content, 1)
            assert exactly(best) == exactly(document)
            (best,) = await store.asimilarity_search(document.page_content, 1)
            assert exactly(best) == exactly(document)


async def test_ids_of_any_kind(url: str) -> None:
    given: list[Any] = [hashlib.sha256(b"a").hexdigest(), "a/b c", 7, UUID_ID, "名前", "-1", 0, "x" * 4096]
    kept = [str(id) for id in given]
    with MLRVectorStore.open(url, HashEncoder()) as store:
        assert store.add_texts([f"text {i}" for i in range(len(given))], ids=given) == kept
        assert ids(store.get_by_ids(given)) == kept
        assert ids(store.get_by_ids(list(reversed(given)))) == list(reversed(kept)), "in the order asked for"
        assert ids(store.get_by_ids(["nobody", UUID_ID, "nobody's"])) == [str(UUID_ID)]
        assert store.delete([7, UUID_ID, "nobody"]) is True
        assert await store.adelete(["a/b c"]) is True
        assert {d.id for d in store.similarity_search("text", 20)} == set(kept) - {"7", str(UUID_ID), "a/b c"}


def test_given_ids_come_before_the_documents_own(store: MLRVectorStore) -> None:
    own = Document("own", id="own")
    none = Document("none")
    assert store.add_documents([own, none], ids=["given", 7]) == ["given", "7"]
    hashed = OwnDocument("none").id
    assert store.add_documents([own, none], ids=[None, None]) == ["own", hashed]
    assert store.add_documents([own, none]) == ["own", hashed]
    assert store.add_texts(["own", "none"], ids=[None, "x"]) == [OwnDocument("own").id, "x"]
    assert ids(store.get_by_ids(["own", "given", "7", hashed])) == ["own", "given", "7", hashed]
    assert own.id == "own"
    assert none.id is None


def test_documents_without_ids_are_known_by_their_content(store: MLRVectorStore) -> None:
    first = store.add_documents([Document("a", metadata={"n": 1}), Document("a", metadata={"n": 2})])
    assert len(set(first)) == 2
    assert store.add_texts(["a", "a"], [{"n": 2}, {"n": 1}]) == first[::-1]
    assert store.retriever.count() == 2


async def test_iterables_of_any_kind(store: MLRVectorStore) -> None:
    def each(*values: Any) -> Iterator[Any]:
        yield from values

    assert store.add_texts(each("a", "b"), each({"n": 1}, None), ids=each("1", "2")) == ["1", "2"]
    assert store.add_documents(each(Document("c"), Document("d")), ids=each("3", "4")) == ["3", "4"]
    assert await store.aadd_texts(each("e"), each({"n": 5}), ids=each("5")) == ["5"]
    assert await store.aadd_documents(each(Document("f")), ids=each("6")) == ["6"]
    assert [d.metadata for d in store.get_by_ids(each("1", "2", "5"))] == [{"n": 1}, {}, {"n": 5}]
    assert store.delete(each("1", "2")) is True
    assert await store.adelete({"3"}) is True
    assert store.retriever.count() == 3
    assert store.add_texts([]) == store.add_documents([]) == store.add_documents(each()) == []
    assert store.get_by_ids([]) == []
    assert store.delete([]) is True
    assert store.retriever.count() == 3


async def test_a_source_is_read_in_another_thread(store: MLRVectorStore) -> None:
    """Reading may wait for a disk, so that the event loop would wait with it."""
    readers = []

    def read(value: Any) -> Iterator[Any]:
        readers.append(threading.current_thread())
        yield value

    await store.aadd_texts(read("a"))
    await store.aadd_documents(read(Document("b")))
    await store.async_(read(Document("c")))
    await MLRVectorStore.afrom_texts(read("d"), HashEncoder())
    await MLRVectorStore.afrom_documents(read(Document("e")), HashEncoder())
    assert len(readers) == 5
    assert threading.main_thread() not in readers


WRONG_LENGTHS: dict[str, Callable[[MLRVectorStore], Any]] = {
    "few metadatas": lambda store: store.add_texts(["a", "b"], [{}]),
    "many metadatas": lambda store: store.add_texts(["a"], [{}, {}]),
    "few ids": lambda store: store.add_texts(["a", "b"], ids=["1"]),
    "many ids": lambda store: store.add_texts(["a"], ids=["1", "2"]),
    "few ids of documents": lambda store: store.add_documents([Document("a"), Document("b")], ids=["1"]),
    "many ids of documents": lambda store: store.add_documents([Document("a")], ids=["1", "2"]),
}


@pytest.mark.parametrize("call", WRONG_LENGTHS.values(), ids=list(WRONG_LENGTHS))
def test_lists_of_other_lengths_write_nothing(store: MLRVectorStore, call: Callable[[MLRVectorStore], Any]) -> None:
    encoded = len(store.retriever.model.encoded)
    with pytest.raises(InvalidDocumentError, match="not as many"):
        call(store)
    assert store.retriever.count() == 0
    assert len(store.retriever.model.encoded) == encoded


async def test_one_id_twice_in_one_call(url: str) -> None:
    with MLRVectorStore.open(url, HashEncoder()) as store:
        for call in (
            lambda: store.add_texts(["a", "b", "c"], ids=["x", "y", "x"]),
            lambda: store.add_documents([Document("a", id="x"), Document("b", id="x")]),
            lambda: store.add_documents([Document("a"), Document("b")], ids=[1, "1"]),
        ):
            with pytest.raises(DuplicateIdError, match="two different documents have one id"):
                call()
        with pytest.raises(DuplicateIdError):
            await store.aadd_texts(["a", "b"], ids=["x", "x"])
        assert store.retriever.count() == 0
        assert store.add_texts(["a", "a"], ids=["x", "x"]) == ["x", "x"], "twice the same is no contradiction"
        assert store.retriever.count() == 1


def test_one_bad_document_among_good_ones_writes_nothing(store: MLRVectorStore) -> None:
    with pytest.raises(InvalidDocumentError, match=r"document 2.*blank"):
        store.add_documents([Document("a"), Document("b"), Document(" ")])
    with pytest.raises(InvalidDocumentError, match=r"text 1.*finite"):
        store.add_texts(["a", "b"], [{}, {"n": float("nan")}])
    assert store.retriever.count() == 0


def test_what_is_unchanged_is_not_encoded_again(url: str) -> None:
    encoder = HashEncoder()
    with MLRVectorStore.open(url, encoder) as store:
        store.add_documents(documents(5))
        encoded = len(encoder.encoded)
        assert store.add_documents(documents(5)) == ids(documents(5))
        assert store.add_texts(["text 0"], [documents(1)[0].metadata], ids=["id 0"]) == ["id 0"]
        assert len(encoder.encoded) == encoded
        store.add_documents([*documents(4), Document("changed", id="id 4")])
        assert encoder.encoded[encoded:] == ["changed"]
        assert store.get_by_ids(["id 4"]) == [Document("changed", id="id 4")]


async def test_deleting(store: MLRVectorStore) -> None:
    store.add_documents(documents(10))
    for wrong in ({}, {"ids": None}, {"ids": ["id 1"], "filter": {"n": 1}}, {"filter": {}}, {"filter": {"$or": [{}]}}):
        with pytest.raises(InvalidInputError):
            store.delete(**wrong)
        with pytest.raises(InvalidInputError):
            await store.adelete(**wrong)
    with pytest.raises(InvalidInputError, match="delete_all"):
        store.delete(["id 1"], delete_all=True)
    with pytest.raises(InvalidInputError, match="delete_all"):
        await store.adelete(["id 1"], delete_all=True)
    with pytest.raises(InvalidFilterError, match=r"\$like"):
        store.delete(filter={"n": {"$like": 1}})
    assert store.retriever.count() == 10, "never all of them"
    assert store.delete("id 1") is True, "one id is one id, and not four"
    assert store.delete(filter={"n": {"$gte": 7}}) is True
    assert await store.adelete(filter={"even": True}) is True
    assert sorted(d.id or "" for d in store.similarity_search("x", 20)) == ["id 3", "id 5"]


# -- opening -----------------------------------------------------------------------------------------------------


async def test_from_texts_and_documents(url: str) -> None:
    made = MLRVectorStore.from_texts(["a", "b"], HashEncoder(), [{"n": 1}, {}], ids=["1", "2"], url=url)
    with made:
        assert made.get_by_ids(["1", "2"]) == [Document("a", id="1", metadata={"n": 1}), Document("b", id="2")]
        with pytest.raises(InvalidInputError, match="collection_name"):
            MLRVectorStore.from_texts(["a"], HashEncoder(), collection_name="x")
        with pytest.raises(InvalidInputError, match="collection_name"):
            MLRVectorStore.from_documents([Document("a")], HashEncoder(), collection_name="x")


FROM: dict[str, Callable[..., Any]] = {
    "texts": lambda texts, model, url: MLRVectorStore.from_texts((text for text in texts), model, url=url),
    "documents": lambda texts, model, url: MLRVectorStore.from_documents(
        (Document(text) for text in texts), model, url=url
    ),
    "core": lambda texts, model, url: MLRVectorStore(
        Retriever.from_langchain_documents((Document(text) for text in texts), url, model)
    ),
}
AFROM: dict[str, Callable[..., Any]] = {
    "texts": lambda texts, model, url: MLRVectorStore.afrom_texts(list(texts), model, url=url),
    "documents": lambda texts, model, url: MLRVectorStore.afrom_documents(
        (Document(text) for text in texts), model, url=url
    ),
}


@pytest.mark.parametrize("make", FROM.values(), ids=list(FROM))
def test_made_from_what_there_is(make: Callable[..., MLRVectorStore], tmp_path: Path) -> None:
    url = f"edge:{tmp_path}/kb"
    with make(["a", "b"], HashEncoder(), url) as store:
        assert sorted(d.page_content for d in store.similarity_search("a")) == ["a", "b"]
    with make(["b", "c"], HashEncoder(), url) as store:
        assert store.retriever.count() == 3, "what was there stays"


@pytest.mark.parametrize("make", AFROM.values(), ids=list(AFROM))
async def test_made_from_what_there_is_in_async(make: Callable[..., Any], tmp_path: Path) -> None:
    with await make(["a", "b"], HashEncoder(), f"edge:{tmp_path}/kb") as store:
        assert sorted(d.page_content for d in store.similarity_search("a")) == ["a", "b"]


def test_ids_of_documents_are_kept_by_from_documents() -> None:
    kept = MLRVectorStore.from_documents([Document("a", id="x"), Document("b")], HashEncoder())
    assert ids(kept.get_by_ids(["x", OwnDocument("b").id])) == ["x", OwnDocument("b").id]
    given = MLRVectorStore.from_documents([Document("a", id="x")], HashEncoder(), ids=[7])
    assert ids(given.similarity_search("a")) == ["7"]


@pytest.mark.parametrize("make", FROM.values(), ids=list(FROM))
def test_a_failure_leaves_an_empty_collection_that_can_be_opened(
    make: Callable[..., MLRVectorStore], tmp_path: Path
) -> None:
    url = f"edge:{tmp_path}/kb"
    with pytest.raises(RuntimeError, match="boom") as raised:
        make(["a", "boom"], Failing(), url)
    script = f"from mlr_rag.stores import open_store; print(open_store({url!r}).count())"
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert elsewhere.stdout == "0\n", elsewhere.stderr
    with MLRVectorStore.open(url, Failing()) as store:
        assert store.similarity_search("a") == []
    assert raised.traceback, "kept until here, and in it the store: it was closed, and not only forgotten"


@pytest.mark.parametrize("make", FROM.values(), ids=list(FROM))
def test_bad_documents_make_no_collection(make: Callable[..., MLRVectorStore], tmp_path: Path) -> None:
    with pytest.raises(InvalidDocumentError, match="blank"):
        make(["a", " "], HashEncoder(), f"edge:{tmp_path}/kb")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", FROM.values(), ids=list(FROM))
def test_another_model_is_refused_by_every_way_in(make: Callable[..., MLRVectorStore], tmp_path: Path) -> None:
    url = f"edge:{tmp_path}/kb"
    make(["a"], HashEncoder(), url).close()
    other = HashEncoder(version="2")
    with pytest.raises(ModelMismatchError, match="reindex"):
        make(["b"], other, url)
    with pytest.raises(ModelMismatchError, match="reindex"):
        MLRVectorStore.open(url, other)
    with MLRVectorStore.open(url, HashEncoder()) as store:
        assert store.retriever.count() == 1


def test_a_closed_store_says_so(url: str) -> None:
    with MLRVectorStore.open(url, HashEncoder()) as store:
        store.add_texts(["a"])
    store.close()
    for call in (
        lambda: store.similarity_search("a"),
        lambda: store.max_marginal_relevance_search("a"),
        lambda: store.add_texts(["b"]),
        lambda: store.delete(["b"]),
        lambda: store.get_by_ids(["b"]),
    ):
        with pytest.raises(StoreClosedError):
            call()


def test_both_ways_and_back() -> None:
    there = list(from_langchain(RICH))
    assert [(d.id, d.text, d.metadata) for d in there] == [(d.id, d.page_content, d.metadata) for d in RICH]
    assert [to_langchain(document) for document in there] == RICH
    with pytest.raises(InvalidDocumentError, match=r"document 1.*not a LangChain Document.*dict"):
        list(from_langchain([Document("a"), {"page_content": "b"}]))  # type: ignore[list-item]
