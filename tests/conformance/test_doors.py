"""Every door over every store: the same documents, in the same order, with the same ids and scores as the core's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery, VectorStoreQueryResult

from mlr_rag import Document, Retriever
from mlr_rag.errors import ModelMismatchError
from mlr_rag.stores import is_in_memory
from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLRVectorStore as LangChainStore
from mlr_rag_llama_index import MLRVectorStore as LlamaIndexStore

pytestmark = pytest.mark.filterwarnings("ignore:Qdrant's local mode")  # which says why not to use it

URLS = {
    "memory": "memory:",
    "edge": "edge:{folder}/kb",
    "qdrant memory": "qdrant::memory:",
    "qdrant folder": "qdrant:{folder}/qdrant/docs",
    "chroma memory": "chroma::memory:",
    "chroma folder": "chroma:{folder}/chroma/docs",
}
DOCUMENTS = [
    Document(f"text {n}", f"id/{n} ä", {"n": n, "even": n % 2 == 0, "nested": {"list": [None, 1.5, "x"]}})
    for n in range(40)
]
FILTER = {"n": {"$lt": 30}}
FILTERS = MetadataFilters.model_validate({"filters": [{"key": "n", "value": 30, "operator": "<"}]})
K = 7


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return URLS[request.param].format(folder=tmp_path)


@pytest.fixture
def kb(url: str) -> Iterator[Retriever]:
    with Retriever.open(url, HashEncoder(16)) as kb:
        kb.add(DOCUMENTS)
        yield kb


def of_langchain(documents: list[Any]) -> list[Document]:
    return [Document(document.page_content, document.id, document.metadata) for document in documents]


def of_nodes(nodes: list[Any]) -> list[Document]:
    return [Document(node.get_content(), node.node_id, node.metadata) for node in nodes]


def of_scored(nodes: list[NodeWithScore]) -> list[tuple[Document, float | None]]:
    return list(zip(of_nodes([scored.node for scored in nodes]), [scored.score for scored in nodes], strict=True))


def of_result(result: VectorStoreQueryResult) -> list[tuple[Document, float]]:
    assert result.nodes is not None
    assert result.similarities is not None
    assert [node.node_id for node in result.nodes] == result.ids
    return list(zip(of_nodes(list(result.nodes)), result.similarities, strict=True))


def index_of(kb: Retriever) -> VectorStoreIndex:
    store = LlamaIndexStore(kb)
    return VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)


# By name: what a door finds, as documents, or as documents with scores.
DOORS: dict[str, Callable[[Retriever, str], Any]] = {
    "core async": lambda kb, q: [(h.document, h.score) for h in asyncio.run(kb.asearch(q, K, filter=FILTER))],
    "core by vector": lambda kb, q: [
        (h.document, h.score) for h in kb.search_by_vector(kb.model.encode_query([q])[0], K, text=q, filter=FILTER)
    ],
    "langchain retriever": lambda kb, q: of_langchain(kb.as_langchain(k=K, filter=FILTER).invoke(q)),
    "langchain retriever async": lambda kb, q: of_langchain(
        asyncio.run(kb.as_langchain().ainvoke(q, k=K, filter=FILTER))
    ),
    "langchain store": lambda kb, q: of_langchain(LangChainStore(kb).similarity_search(q, K, filter=FILTER)),
    "langchain store with scores": lambda kb, q: [
        (of_langchain([document])[0], score)
        for document, score in LangChainStore(kb).similarity_search_with_score(q, K, filter=FILTER)
    ],
    "langchain store async": lambda kb, q: of_langchain(
        asyncio.run(LangChainStore(kb).asimilarity_search(q, K, filter=FILTER))
    ),
    "langchain store as retriever": lambda kb, q: of_langchain(
        LangChainStore(kb).as_retriever(search_kwargs={"k": K, "filter": FILTER}).invoke(q)
    ),
    "langchain store's embeddings": lambda kb, q: of_langchain(
        LangChainStore(kb).similarity_search_by_vector(
            LangChainStore(kb).embeddings.embed_query(q),  # type: ignore[union-attr]
            K,
            filter=FILTER,
        )
    ),
    "llama_index retriever": lambda kb, q: of_scored(kb.as_llama_index(K, filters=FILTERS).retrieve(q)),
    "llama_index retriever async": lambda kb, q: of_scored(
        asyncio.run(kb.as_llama_index(K, filters=FILTER).aretrieve(q))
    ),
    "llama_index store": lambda kb, q: of_result(
        LlamaIndexStore(kb).query(VectorStoreQuery(query_str=q, similarity_top_k=K, filters=FILTERS))
    ),
    "llama_index store async": lambda kb, q: of_result(
        asyncio.run(LlamaIndexStore(kb).aquery(VectorStoreQuery(query_str=q, similarity_top_k=K, filters=FILTERS)))
    ),
    "llama_index index": lambda kb, q: of_scored(
        index_of(kb).as_retriever(similarity_top_k=K, filters=FILTERS).retrieve(q)
    ),
    "llama_index index async": lambda kb, q: of_scored(
        asyncio.run(index_of(kb).as_retriever(similarity_top_k=K, filters=FILTERS).aretrieve(q))
    ),
}


def test_every_door_finds_what_the_core_finds(kb: Retriever) -> None:
    for question in ("a question", "text 7", "another"):
        hits = kb.search(question, K, filter=FILTER)
        assert len(hits) == K
        for name, door in DOORS.items():
            found = door(kb, question)
            if found and isinstance(found[0], tuple):
                assert [score for _, score in found] == pytest.approx([hit.score for hit in hits], abs=1e-6), name
                found = [document for document, _ in found]
            assert found == [hit.document for hit in hits], name


def test_what_one_framework_writes_the_other_reads(kb: Retriever) -> None:
    langchain, llama_index = LangChainStore(kb), LlamaIndexStore(kb)
    llama_index.add([TextNode(id_="a node", text="from a node", metadata={"n": 1, "x": [None, {"y": 1}]})])
    langchain.add_texts(["from LangChain"], [{"n": 2}], ids=["a text"])
    (node,) = llama_index.get_nodes(["a text"])
    assert (node.get_content(), node.metadata) == ("from LangChain", {"n": 2})
    (document,) = langchain.get_by_ids(["a node"])
    assert document.page_content == "n: 1\nx: [None, {'y': 1}]\n\nfrom a node", "the text is what was encoded"
    assert document.metadata["n"] == 1
    (again,) = llama_index.get_nodes(["a node"])
    assert (again.get_content(), again.metadata) == ("from a node", {"n": 1, "x": [None, {"y": 1}]})
    assert langchain.similarity_search(document.page_content, k=50)
    assert langchain.delete(["a node"])
    llama_index.delete_nodes(["a text"])
    assert kb.count() == len(DOCUMENTS)


@pytest.mark.parametrize("other", [HashEncoder(16, version="other"), HashEncoder(8)], ids=["swapped", "other length"])
def test_a_swapped_model_is_refused_through_every_door(kb: Retriever, other: HashEncoder, url: str) -> None:
    if is_in_memory(url):  # opening it again would make another
        doors: list[Callable[[], Any]] = [lambda: Retriever(other, kb.store)]
    else:
        doors = [
            lambda: Retriever.open(url, other),
            lambda: Retriever.from_langchain_documents([], url, other),
            lambda: Retriever.from_llama_index_nodes([], url, other),
            lambda: LangChainStore.open(url, other),
            lambda: LangChainStore.from_texts(["a"], other, url=url),
            lambda: LlamaIndexStore.open(url, other),
        ]
    theirs = index_of(Retriever.open("memory:", other))
    ours = LlamaIndexStore(kb)
    swapped = VectorStoreIndex.from_vector_store(ours, embed_model=theirs._embed_model)
    doors += [
        lambda: swapped.insert_nodes([TextNode(text="a new node")]),
        lambda: swapped.as_retriever().retrieve("a question"),
        lambda: asyncio.run(swapped.as_retriever().aretrieve("a question")),
        lambda: kb.add_vectors(["a text"], other.encode_document(["a text"])),
        lambda: kb.search_by_vector(other.encode_query(["a question"])[0], text="a question"),
    ]
    for door in doors:
        with pytest.raises(ModelMismatchError):
            door()
    assert kb.count() == len(DOCUMENTS)


def test_a_model_that_changes_while_in_use_is_refused_through_every_door(kb: Retriever) -> None:
    model = kb.model
    store, index = LlamaIndexStore(kb), index_of(kb)
    kb.search("a question")
    model.version = model.fingerprint = "trained"  # what training does: other vectors, another hash
    doors: list[Callable[[], Any]] = [
        *(lambda door=door: door(kb, "a question") for door in DOORS.values()),
        lambda: LangChainStore(kb).add_texts(["a"]),
        lambda: LangChainStore(kb).sync([]),
        lambda: store.add([TextNode(text="a")]),
        lambda: index.insert_nodes([TextNode(text="a")]),
    ]
    for door in doors:
        with pytest.raises(ModelMismatchError):
            door()
    assert kb.count() == len(DOCUMENTS)
