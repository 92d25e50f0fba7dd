"""Bad documents through every door: our message under the type that LangChain expects, and nothing written."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document

from mlr_rag import Retriever
from mlr_rag.errors import InvalidDocumentError, InvalidInputError, MlrRagError
from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLRVectorStore


def unchecked(text: Any = "fine", **fields: Any) -> Document:
    """What LangChain's own checks would not let through, as programs make it."""
    return Document.model_construct(page_content=text, **{"metadata": {}, "id": None, "type": "Document", **fields})


TEXTS: dict[str, Any] = {
    "none": None,
    "empty": "",
    "blank": " \n\t",
    "number": 7,
    "bytes": b"text",
    "nul": "a\0b",
    "surrogate": "half \ud83d",
}
METADATA: dict[str, Any] = {
    "nan": {"a": float("nan")},
    "date": {"a": datetime.date(2020, 1, 1)},
    "tuple": {"a": (1, 2)},
    "key": {1: "a"},
    "object": {"a": object()},
    "string": "a=1",
    "list": [("a", 1)],
}
IDS: dict[str, Any] = {"float": 1.5, "bool": True, "bytes": b"x", "long": "x" * 5000, "list": ["x"], "nul": "a\0b"}
LISTS: dict[str, Any] = {"none": None, "string": "text", "number": 7, "bytes": b"text"}

Call = Callable[[MLRVectorStore], Any]
CALLS: dict[str, Call] = {
    **{f"texts {k}": lambda store, v=v: store.add_texts(["fine", v]) for k, v in TEXTS.items()},
    **{f"document {k}": lambda store, v=v: store.add_documents([unchecked(v)]) for k, v in TEXTS.items()},
    **{f"sync {k}": lambda store, v=v: store.sync([unchecked(v)]) for k, v in TEXTS.items()},
    **{f"from texts {k}": lambda store, v=v: MLRVectorStore.from_texts(["fine", v], None) for k, v in TEXTS.items()},
    **{
        f"from documents {k}": lambda store, v=v: MLRVectorStore.from_documents([unchecked(v)], None)
        for k, v in TEXTS.items()
    },
    **{
        f"core {k}": lambda store, v=v: Retriever.from_langchain_documents([unchecked(v)], model=HashEncoder())
        for k, v in TEXTS.items()
    },
    **{f"metadata {k}": lambda store, v=v: store.add_texts(["fine"], [v]) for k, v in METADATA.items()},
    **{
        f"of document {k}": lambda store, v=v: store.add_documents([unchecked(metadata=v)]) for k, v in METADATA.items()
    },
    **{f"id {k}": lambda store, v=v: store.add_texts(["fine"], ids=[v]) for k, v in IDS.items()},
    **{f"id of document {k}": lambda store, v=v: store.add_documents([unchecked()], ids=[v]) for k, v in IDS.items()},
    **{f"get id {k}": lambda store, v=v: store.get_by_ids(["kept", v]) for k, v in IDS.items()},
    **{f"delete id {k}": lambda store, v=v: store.delete(["kept", v]) for k, v in IDS.items()},
    **{f"add texts {k}": lambda store, v=v: store.add_texts(v) for k, v in LISTS.items()},
    **{f"add documents {k}": lambda store, v=v: store.add_documents(v) for k, v in LISTS.items()},
    **{f"from texts, {k}": lambda store, v=v: MLRVectorStore.from_texts(v, None) for k, v in LISTS.items()},
    **{f"from documents, {k}": lambda store, v=v: MLRVectorStore.from_documents(v, None) for k, v in LISTS.items()},
    **{f"sync, {k}": lambda store, v=v: store.sync(v) for k, v in LISTS.items()},
    **{
        f"core, {k}": lambda store, v=v: Retriever.from_langchain_documents(v, model=HashEncoder())
        for k, v in LISTS.items()
    },
    **{
        f"metadatas {k}": lambda store, v=v: store.add_texts(["t", "e", "x", "t"], v)
        for k, v in LISTS.items()
        if v is not None
    },
    **{
        f"ids {k}": lambda store, v=v: store.add_texts(["t", "e", "x", "t"], ids=v)
        for k, v in LISTS.items()
        if v is not None
    },
    "ids of documents": lambda store: store.add_documents([Document("a"), Document("b")], ids="ab"),
    "metadatas a dict": lambda store: store.add_texts(["a"], {"a": 1}),
    "a document for documents": lambda store: store.add_documents(Document("a")),
    "a document to sync": lambda store: store.sync(Document("a")),
    "none among documents": lambda store: store.add_documents([Document("a"), None]),
    "a dict among documents": lambda store: store.add_documents([{"page_content": "a"}]),
    "texts for documents": lambda store: store.add_documents(["a", "b"]),
    "documents for texts": lambda store: store.add_texts([Document("a")]),
    "none among documents to keep": lambda store: MLRVectorStore.from_documents([Document("a"), None], None),
    "get none": lambda store: store.get_by_ids(None),
    "get none of them": lambda store: store.get_by_ids([None]),
    "delete none of them": lambda store: store.delete([None]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_bad_documents(store: MLRVectorStore, call: Call) -> None:
    store.add_texts(["kept"], ids=["kept"])
    with pytest.raises(InvalidDocumentError) as raised:
        call(store)
    told(raised.value)
    assert store.get_by_ids(["kept"]) == store.similarity_search("kept") == [Document("kept", id="kept")]


def told(error: MlrRagError) -> None:
    assert isinstance(error, ValueError)
    assert error.expected is not None
    assert len(str(error)) < 700


OPTIONS: dict[str, Call] = {
    "add texts": lambda store: store.add_texts(["a"], namespace="x"),
    "add documents": lambda store: store.add_documents([Document("a")], namespace="x"),
    "delete": lambda store: store.delete(["a"], namespace="x"),
    "from texts": lambda store: MLRVectorStore.from_texts(["a"], None, namespace="x"),
    "from documents": lambda store: MLRVectorStore.from_documents([Document("a")], None, namespace="x"),
}


@pytest.mark.parametrize("call", OPTIONS.values(), ids=list(OPTIONS))
def test_options_that_are_not_there(store: MLRVectorStore, call: Call) -> None:
    with pytest.raises(InvalidInputError, match="no such option: found namespace") as raised:
        call(store)
    told(raised.value)


ASYNC: dict[str, Call] = {
    "texts": lambda store: store.aadd_texts(["fine", None]),
    "a string": lambda store: store.aadd_texts("text"),
    "documents": lambda store: store.aadd_documents([Document("a"), None]),
    "a string for documents": lambda store: store.aadd_documents("text"),
    "ids": lambda store: store.aadd_texts(["a", "b"], ids="ab"),
    "get": lambda store: store.aget_by_ids([1.5]),
    "delete": lambda store: store.adelete([1.5]),
    "sync": lambda store: store.async_([None]),
    "from texts": lambda store: MLRVectorStore.afrom_texts([" "], HashEncoder()),
    "from documents": lambda store: MLRVectorStore.afrom_documents([None], HashEncoder()),
}


@pytest.mark.parametrize("call", ASYNC.values(), ids=list(ASYNC))
async def test_bad_documents_in_async(store: MLRVectorStore, call: Call) -> None:
    with pytest.raises(InvalidDocumentError) as raised:
        await call(store)
    told(raised.value)
    assert store.retriever.count() == 0


@pytest.mark.parametrize("call", ["add_texts", "add_documents", "delete"])
async def test_options_that_are_not_there_in_async(store: MLRVectorStore, call: str) -> None:
    with pytest.raises(InvalidInputError, match="no such option: found namespace"):
        await getattr(store, f"a{call}")([], namespace="x")


@pytest.mark.parametrize("model", [42, object(), ["name"]])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(InvalidInputError, match="not a model"):
        MLRVectorStore.open("memory:", model)
    with pytest.raises(InvalidInputError, match="not a model"):
        MLRVectorStore.from_texts(["a"], model)


@pytest.mark.parametrize("retriever", [None, "./kb", HashEncoder(), MLRVectorStore])
def test_what_is_no_retriever(retriever: Any) -> None:
    with pytest.raises(InvalidInputError, match="etriever"):
        MLRVectorStore(retriever)


@pytest.mark.parametrize("url", ["", None, 7, "nothing:x"])
def test_what_is_no_place(url: Any) -> None:
    with pytest.raises(InvalidInputError):
        MLRVectorStore.open(url, HashEncoder())
    with pytest.raises(InvalidInputError):
        MLRVectorStore.from_texts(["a"], HashEncoder(), url=url)
