"""MLRRetriever: a Runnable like LangChain's own retrievers, whose errors arrive as errors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from pydantic import ValidationError

from mlr_rag import MLRModel, ModelMismatchError, Retriever
from mlr_rag.errors import (
    InvalidFilterError,
    InvalidQueryError,
    StoreClosedError,
    StoreUnavailableError,
)
from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLRRetriever, MLRVectorStore
from tests.fake_qdrant import FakeQdrant
from tests.langchain.material import AsyncHandler, Handler, documents, ids

QUERY = "a river"


@pytest.fixture
def kb() -> Iterator[Retriever]:
    with Retriever.from_langchain_documents(documents(30), model=HashEncoder()) as kb:
        yield kb


def core(kb: Retriever, *args: Any, **options: Any) -> list[str]:
    return [hit.document.id for hit in kb.search(QUERY, *args, **options)]


# -- what it finds -----------------------------------------------------------------------------------------------


async def test_it_finds_what_the_core_finds(full: MLRVectorStore) -> None:
    kb = full.retriever
    for query in ("a river", "water boils"):
        expected = [hit.document for hit in kb.search(query, 7)]
        for found in (kb.as_langchain(k=7).invoke(query), await kb.as_langchain(k=7).ainvoke(query)):
            assert [(d.id, d.page_content, d.metadata) for d in found] == [(d.id, d.text, d.metadata) for d in expected]
    assert len(kb.as_langchain().invoke(QUERY)) == 4


OPTIONS: list[dict[str, Any]] = [
    {"k": 2},
    {"filter": {"even": True}, "k": 9},
    {"min_score": 0.3},
    {"diversity": 0.9},
    {"diversity": 1.0, "candidates": 10, "k": 6},
    {"mode": "dense"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
async def test_fields_and_overrides_are_options_of_a_search(kb: Retriever, options: dict[str, Any]) -> None:
    expected = core(kb, **options)
    plain = kb.as_langchain()
    assert ids(kb.as_langchain(**options).invoke(QUERY)) == expected
    assert ids(MLRRetriever(retriever=kb, **options).invoke(QUERY)) == expected
    assert ids(plain.invoke(QUERY, **options)) == expected
    assert ids(await plain.ainvoke(QUERY, **options)) == expected
    assert ids(plain.invoke(QUERY)) == core(kb), "a call's options are that call's only"


async def test_an_override_comes_before_the_field(kb: Retriever) -> None:
    retriever = kb.as_langchain(k=9, filter={"even": True}, min_score=0.0, diversity=0.9, candidates=15)
    expected = core(kb, 3, filter={"even": False})
    overrides = {
        "k": 3,
        "filter": {"even": False},
        "min_score": None,
        "diversity": None,
        "candidates": None,
        "mode": "dense",
    }
    assert ids(retriever.invoke(QUERY, **overrides)) == expected
    assert ids(await retriever.ainvoke(QUERY, **overrides)) == expected
    assert ids(kb.as_langchain().invoke(QUERY, ids=["id 3", "id 5"])) == core(kb, ids=["id 3", "id 5"])


CONFIGURED: list[dict[str, Any]] = [
    {"k": 2},
    {"filter": {"even": True}},
    {"min_score": 0.3},
    {"diversity": 0.9},
    {"diversity": 0.9, "candidates": 7},
    {"mode": "dense"},
]


@pytest.mark.parametrize("chosen", CONFIGURED, ids=str)
async def test_fields_are_configurable(kb: Retriever, chosen: dict[str, Any]) -> None:
    fields = {name: ConfigurableField(id=f"my_{name}") for name in chosen}
    retriever = kb.as_langchain().configurable_fields(**fields)
    config: Any = {"configurable": {f"my_{name}": value for name, value in chosen.items()}}
    expected = core(kb, **chosen)
    assert ids(retriever.invoke(QUERY, config)) == expected
    assert ids(await retriever.ainvoke(QUERY, config)) == expected
    assert ids(retriever.with_config(config).invoke(QUERY)) == expected
    assert ids(retriever.invoke(QUERY)) == core(kb)


def test_configured_values_are_checked_too(kb: Retriever) -> None:
    retriever = kb.as_langchain().configurable_fields(k=ConfigurableField(id="k"), mode=ConfigurableField(id="mode"))
    with pytest.raises(ValidationError, match="k is not a number of documents"):
        retriever.invoke(QUERY, {"configurable": {"k": 0}})
    with pytest.raises(ValidationError, match="no such mode"):
        retriever.invoke(QUERY, {"configurable": {"mode": "hybrid"}})


# -- what it refuses ---------------------------------------------------------------------------------------------

BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"k": 0}, "k is not a number of documents"),
    ({"k": -1}, "k is not a number of documents"),
    ({"k": 2.5}, "k"),
    ({"k": None}, "k"),
    ({"filter": {"n": {"$like": 1}}}, "unknown operator"),
    ({"filter": {"$where": 1}}, "unknown operator"),
    ({"filter": "n = 1"}, "filter"),
    ({"min_score": 2.0}, "min_score is not a cosine"),
    ({"min_score": float("nan")}, "min_score is not a cosine"),
    ({"diversity": 1.5}, "diversity is out of range"),
    ({"candidates": 7}, "candidates without diversity"),
    ({"candidates": 0, "diversity": 0.5}, "candidates is not a number"),
    ({"mode": "hybrid"}, "no such mode of search"),
    ({"mode": None}, "mode"),
    ({"top_k": 3}, "top_k"),
    ({"search_kwargs": {"k": 3}}, "search_kwargs"),
    ({"search_type": "mmr"}, "search_type"),
    ({"retriever": None}, "retriever"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_FIELDS, ids=str)
def test_fields_are_checked_when_it_is_made(kb: Retriever, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as raised:
        MLRRetriever(**{"retriever": kb, **fields})
    assert isinstance(raised.value, ValueError)


BAD_CALLS: list[tuple[dict[str, Any], type[ValueError], str]] = [
    ({"k": 0}, InvalidQueryError, "k is not a number of documents"),
    ({"k": -1}, InvalidQueryError, "k is not a number of documents"),
    ({"k": 2.5}, InvalidQueryError, "k is not a number of documents"),
    ({"k": None}, InvalidQueryError, "k is not a number of documents"),
    ({"filter": {"n": {"$like": 1}}}, InvalidFilterError, "unknown operator"),
    ({"filter": "n = 1"}, InvalidFilterError, "not a dict"),
    ({"min_score": 2}, InvalidQueryError, "min_score is not a cosine"),
    ({"diversity": -1}, InvalidQueryError, "diversity is out of range"),
    ({"candidates": 7}, InvalidQueryError, "candidates without diversity"),
    ({"mode": "hybrid"}, InvalidQueryError, "no such mode of search"),
    ({"top_k": 3}, InvalidQueryError, "no such option"),
    ({"score_threshold": 0.5}, InvalidQueryError, "min_score is a cosine"),
]


@pytest.mark.parametrize(("overrides", "kind", "message"), BAD_CALLS, ids=str)
async def test_overrides_are_checked_at_the_call(
    kb: Retriever, overrides: dict[str, Any], kind: type[Exception], message: str
) -> None:
    await raises(kind, kb.as_langchain(), message=message, **overrides)


@pytest.mark.parametrize("query", [None, "", " \n", 7, ["a river"], "nul \0"], ids=repr)
async def test_queries_that_are_no_text(kb: Retriever, query: Any) -> None:
    await raises(InvalidQueryError, kb.as_langchain(), query, message="a query")


def test_a_huge_k_is_all_of_them(kb: Retriever) -> None:
    assert len(kb.as_langchain(k=10**12).invoke(QUERY)) == 30


def test_a_field_that_is_set_later_is_checked_at_the_call(kb: Retriever) -> None:
    retriever = kb.as_langchain()
    retriever.k = 0
    with pytest.raises(InvalidQueryError, match="k is not"):
        retriever.invoke(QUERY)


# -- what goes wrong ---------------------------------------------------------------------------------------------


async def raises(
    kind: type[BaseException], retriever: MLRRetriever, query: Any = QUERY, message: str | None = None, **options: Any
) -> None:
    """The error is raised, and the callbacks were told of it, in sync and in async."""
    handler, awaited = Handler(), AsyncHandler()
    with pytest.raises(kind, match=message) as raised:
        retriever.invoke(query, {"callbacks": [handler]}, **options)
    assert handler.errors == [raised.value]
    with pytest.raises(kind, match=message) as raised:
        await retriever.ainvoke(query, {"callbacks": [awaited]}, **options)
    assert awaited.kept.errors == [raised.value]
    assert handler.found == awaited.kept.found == [], "and no empty list"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two tries to reach a server."""
    sleep = asyncio.sleep
    monkeypatch.setattr("mlr_rag_qdrant.connection.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr("mlr_rag_qdrant.connection.asyncio.sleep", lambda _: sleep(0))


async def test_a_model_that_was_exchanged(kb: Retriever) -> None:
    retriever = kb.as_langchain()
    retriever.invoke(QUERY)
    kb.model.version, kb.model.fingerprint = "2", "hash-encoder-2"
    await raises(ModelMismatchError, retriever, message="reindex")


async def test_a_model_that_was_trained_in_place(tiny_model: MLRModel) -> None:
    with Retriever.from_langchain_documents([Document("paris"), Document("water")], model=tiny_model) as kb:
        retriever, store = kb.as_langchain(), MLRVectorStore(kb)
        assert len(retriever.invoke("paris")) == 2
        with torch.no_grad():
            for weight in tiny_model.parameters():
                weight.add_(torch.randn_like(weight) * 0.1)
        await raises(ModelMismatchError, retriever, message="reindex")
        for call in (
            lambda: store.similarity_search("paris"),
            lambda: store.max_marginal_relevance_search("paris"),
            lambda: store.as_retriever().invoke("paris"),
            lambda: store.similarity_search_by_vector([0.1] * 32),
            lambda: store.add_texts(["france"]),
            lambda: store.sync([Document("france")]),
        ):
            with pytest.raises(ModelMismatchError):
                call()
        assert kb.count() == 2


async def test_a_store_that_is_closed(url: str) -> None:
    with Retriever.open(url, HashEncoder()) as kb:
        kb.add(["text"])
        retriever = kb.as_langchain()
    await raises(StoreClosedError, retriever)
    with pytest.raises(StoreClosedError):
        MLRVectorStore(kb).as_retriever().invoke(QUERY)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_is_dead() -> None:
    with FakeQdrant() as fake:
        kb = Retriever.open(f"qdrant:{fake.place}/documents", HashEncoder())
        kb.add([f"text {i}" for i in range(5)])
        retriever = kb.as_langchain()
        assert len(retriever.invoke(QUERY)) == len(await retriever.ainvoke(QUERY)) == 4
        fake.lives = 0
        await raises(StoreUnavailableError, retriever)
        fake.lives = None
        assert len(await retriever.ainvoke(QUERY)) == 4, "and goes on when it is there again"
        kb.close()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_was_never_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"qdrant://127.0.0.1:{probe.getsockname()[1]}/documents"
        for make in (
            lambda: MLRVectorStore.open(url, HashEncoder()),
            lambda: MLRVectorStore.from_texts(["text"], HashEncoder(), url=url),
            lambda: Retriever.from_langchain_documents([Document("text")], url, HashEncoder()),
        ):
            with pytest.raises(StoreUnavailableError):
                make()


# -- as a Runnable -----------------------------------------------------------------------------------------------


async def test_batches(kb: Retriever) -> None:
    retriever = kb.as_langchain(k=3)
    queries = [f"query {i}" for i in range(20)]
    expected = [retriever.invoke(query) for query in queries]
    assert len({str(found) for found in expected}) > 10
    assert retriever.batch(queries, {"max_concurrency": 4}) == expected
    assert await retriever.abatch(queries, {"max_concurrency": 4}) == expected
    assert retriever.batch(queries, k=1) == [found[:1] for found in expected]
    for mixed in (
        retriever.batch(["query 0", "", "query 2"], return_exceptions=True),
        await retriever.abatch(["query 0", "", "query 2"], return_exceptions=True),
    ):
        assert [mixed[0], mixed[2]] == [expected[0], expected[2]]
        assert isinstance(mixed[1], InvalidQueryError)


async def test_streams(kb: Retriever) -> None:
    retriever = kb.as_langchain()
    expected = retriever.invoke(QUERY)
    assert list(retriever.stream(QUERY)) == [expected]
    assert [chunk async for chunk in retriever.astream(QUERY)] == [expected]
    events = [event async for event in retriever.astream_events(QUERY, version="v2")]
    assert [event["event"] for event in events] == ["on_retriever_start", "on_retriever_end"]
    assert events[0]["name"] == "MLRRetriever"
    assert QUERY in str(events[0]["data"]["input"])
    assert events[1]["data"]["output"] == expected


async def test_streams_of_errors(kb: Retriever) -> None:
    with pytest.raises(InvalidQueryError):
        list(kb.as_langchain().stream(""))
    with pytest.raises(InvalidQueryError):
        [chunk async for chunk in kb.as_langchain().astream("")]
    with pytest.raises(InvalidQueryError):
        [event async for event in kb.as_langchain().astream_events("", version="v2")]


async def test_callbacks_are_told_all(kb: Retriever) -> None:
    retriever = kb.as_langchain(tags=["local tag"], metadata={"local": 1})
    handler, awaited = Handler(), AsyncHandler()
    config = {"tags": ["given tag"], "metadata": {"given": 2}, "run_name": "my run"}
    found = retriever.invoke(QUERY, {**config, "callbacks": [handler]})
    assert await retriever.ainvoke(QUERY, {**config, "callbacks": [awaited]}) == found
    for told in (handler, awaited.kept):
        assert told.found == [found]
        assert told.errors == []
        (started,) = told.started
        assert started["query"] == QUERY
        assert started["name"] == "my run"
        assert set(started["tags"]) == {"local tag", "given tag"}
        assert started["metadata"] == {
            "local": 1,
            "given": 2,
            "ls_retriever_name": "mlr",
            "ls_vector_store_provider": "MemoryStore",
            "ls_embedding_provider": "HashEncoder",
            "ls_embedding_model": "hash-encoder",
        }


def test_the_name_of_a_run(kb: Retriever) -> None:
    handler = Handler()
    kb.as_langchain().invoke(QUERY, {"callbacks": [handler]})
    kb.as_langchain(name="docs").invoke(QUERY, {"callbacks": [handler]})
    assert [started["name"] for started in handler.started] == ["MLRRetriever", "docs"]


def test_in_a_chain(kb: Retriever) -> None:
    class Prompts(BaseCallbackHandler):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_llm_start(self, serialized: Any, prompts: list[str], **told: Any) -> None:
            self.seen += prompts

    handler = Prompts()
    text = lambda found: "; ".join(document.page_content for document in found)  # noqa: E731
    chain = (
        {"context": kb.as_langchain(k=2) | text, "question": RunnablePassthrough()}
        | PromptTemplate.from_template("{context} ? {question}")
        | FakeListLLM(responses=["an answer"])
        | StrOutputParser()
    )
    assert chain.invoke(QUERY, {"callbacks": [handler]}) == "an answer"
    first, second = kb.search(QUERY, 2)
    assert handler.seen == [f"{first.document.text}; {second.document.text} ? {QUERY}"]


async def test_as_a_tool(kb: Retriever) -> None:
    tool = create_retriever_tool(kb.as_langchain(k=2), "search", "Searches.")
    texts = [hit.document.text for hit in kb.search(QUERY, 2)]
    assert tool.invoke({"query": QUERY}) == "\n\n".join(texts)
    assert await tool.ainvoke({"query": QUERY}) == "\n\n".join(texts)


def test_the_core_makes_it(kb: Retriever) -> None:
    retriever = kb.as_langchain(k=2, filter={"even": True}, tags=["a"])
    assert type(retriever) is MLRRetriever
    assert retriever.retriever is kb
    assert (retriever.k, retriever.filter, retriever.tags) == (2, {"even": True}, ["a"])
    with pytest.raises(ValidationError, match="top_k"):
        kb.as_langchain(top_k=3)


def test_after_a_migration_it_searches_the_new_vectors(kb: Retriever) -> None:
    retriever, new = kb.as_langchain(), HashEncoder(24, "2")
    before = ids(retriever.invoke(QUERY))
    kb.reindex(new)
    with Retriever.from_langchain_documents(documents(30), model=new) as fresh:
        assert ids(retriever.invoke(QUERY)) == ids(fresh.as_langchain().invoke(QUERY)) != before


# -- at the same time --------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_200_at_a_time_and_the_sync_api_beside_them(full: MLRVectorStore) -> None:
    retriever = full.retriever.as_langchain(k=3)
    queries = [f"query {i}" for i in range(200)]
    expected = [retriever.invoke(query) for query in queries]
    assert len({str(found) for found in expected}) > 100
    beside = [asyncio.to_thread(lambda: [retriever.invoke(query) for query in queries[:50]]) for _ in range(2)]
    found, *others = await asyncio.gather(
        asyncio.gather(*(retriever.ainvoke(query) for query in queries)),
        *beside,
        asyncio.to_thread(full.similarity_search, "query 0", 3),
        full.asimilarity_search("query 0", 3),
    )
    assert found == expected
    assert others == [expected[:50], expected[:50], expected[0], expected[0]]


@pytest.mark.timeout(120)
async def test_writing_and_searching_at_a_time(url: str) -> None:
    with MLRVectorStore.open(url, HashEncoder()) as store:
        await store.aadd_documents(documents(3))
        retriever = store.retriever.as_langchain(k=3)
        done = await asyncio.gather(
            *(store.aadd_texts([f"more {i}", f"and more {i}"]) for i in range(10)),
            *(retriever.ainvoke(f"query {i}") for i in range(20)),
        )
        assert all(len(found) == 3 for found in done[10:])
        assert store.retriever.count() == 23
