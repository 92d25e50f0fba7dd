"""What MLRVectorStore finds is what brute force finds, on every store, sync and async."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from mlr_rag import InvalidInputError, ModelMismatchError
from mlr_rag.errors import InvalidFilterError, InvalidQueryError, UnsupportedModelError
from mlr_rag.filters import matches, parse
from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLREmbeddings, MLRVectorStore
from tests.langchain.material import Asymmetric, documents, ids

DOCUMENTS = documents(60)
ENCODER = HashEncoder()
VECTORS = ENCODER.encode_document([document.page_content for document in DOCUMENTS]).astype(np.float64)
QUERIES = ("old roads", "a river", "water boils")  # none is a document: its marginal gains at 0.5 would all be 0


def cosines(query: str) -> np.ndarray:
    return VECTORS @ ENCODER.encode_query([query])[0].astype(np.float64)


def nearest(query: str, k: int, among: Callable[[Document], bool] = lambda _: True) -> list[Document]:
    order = sorted(range(len(DOCUMENTS)), key=lambda i: -cosines(query)[i])
    return [DOCUMENTS[i] for i in order if among(DOCUMENTS[i])][:k]


def marginal(query: str, k: int, fetch_k: int, lambda_mult: float) -> list[str | None]:
    """Maximal marginal relevance, by its definition."""
    scores = cosines(query)
    left = sorted(range(len(DOCUMENTS)), key=lambda i: -scores[i])[:fetch_k]
    picked = [left.pop(0)]
    while left and len(picked) < k:
        gains = [
            lambda_mult * scores[i] - (1 - lambda_mult) * max(VECTORS[i] @ VECTORS[other] for other in picked)
            for i in left
        ]
        picked.append(left.pop(int(np.argmax(gains))))
    return [DOCUMENTS[i].id for i in picked]


@pytest.mark.parametrize("query", QUERIES)
def test_the_nearest_and_their_cosines(full: MLRVectorStore, query: str) -> None:
    assert full.similarity_search(query, 7) == nearest(query, 7)
    assert full.similarity_search(query) == nearest(query, 4)
    scored = full.similarity_search_with_score(query, 60)
    assert [document for document, _ in scored] == nearest(query, 60)
    assert [score for _, score in scored] == pytest.approx(sorted(cosines(query), reverse=True), abs=1e-6)
    assert all(type(score) is float for _, score in scored)
    relevant = full.similarity_search_with_relevance_scores(query, 60)
    assert [score for _, score in relevant] == pytest.approx([(1 + score) / 2 for _, score in scored], abs=1e-9)
    assert all(0 <= score <= 1 for _, score in relevant)


def test_a_threshold_means_the_same_on_every_store(full: MLRVectorStore) -> None:
    query, cosine = "a river", 0.2
    expected = nearest(query, sum(cosines(query) >= cosine))
    assert 2 < len(expected) < 30
    assert full.similarity_search(query, 60, min_score=cosine) == expected
    relevance = (1 + cosine) / 2
    by_relevance = full.similarity_search_with_relevance_scores(query, 60, score_threshold=relevance)
    assert [document for document, _ in by_relevance] == expected
    options = {"k": 60, "score_threshold": relevance}
    retriever = full.as_retriever(search_type="similarity_score_threshold", search_kwargs=options)
    assert retriever.invoke(query) == expected


def test_a_threshold_is_inclusive(full: MLRVectorStore) -> None:
    scored = full.similarity_search_with_score("a river", 5)
    assert len(full.similarity_search("a river", 60, min_score=scored[4][1])) == 5


def test_a_perfect_hit_is_not_above_one(url: str) -> None:
    """LangChain warns of relevance scores that rounding has brought above 1; here a warning is an error."""
    texts = [f"text {i}" for i in range(30)]
    with MLRVectorStore.open(url, DeterministicFakeEmbedding(size=97)) as store:
        store.add_texts(texts)
        for text in texts:
            ((document, score),) = store.similarity_search_with_relevance_scores(text, 1)
            assert document.page_content == text
            assert 0.999 < score <= 1


@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("fetch_k", [3, 20, 60])
def test_marginal_relevance_is_that_of_its_definition(full: MLRVectorStore, lambda_mult: float, fetch_k: int) -> None:
    for query in QUERIES:
        k = min(6, fetch_k)
        expected = marginal(query, k, fetch_k, lambda_mult)
        vector = ENCODER.encode_query([query])[0].tolist()
        assert ids(full.max_marginal_relevance_search(query, k, fetch_k, lambda_mult)) == expected
        assert ids(full.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult)) == expected


def test_the_ends_of_marginal_relevance(full: MLRVectorStore) -> None:
    """1 is a plain search, and not its opposite, as in langchain-qdrant; 0 takes what differs."""
    query = "a river"
    assert full.max_marginal_relevance_search(query, 5, lambda_mult=1) == nearest(query, 5)
    diverse = full.max_marginal_relevance_search(query, 5, lambda_mult=0)
    assert diverse[0] == nearest(query, 1)[0]
    assert diverse != nearest(query, 5)
    assert set(ids(diverse)) <= set(ids(nearest(query, 20))), "of the 20 nearest"


def test_marginal_relevance_is_that_of_langchain(store: MLRVectorStore) -> None:
    theirs = InMemoryVectorStore(MLREmbeddings(HashEncoder()))
    for each in (store, theirs):
        each.add_documents(DOCUMENTS)
    for lambda_mult in (0.1, 0.5, 0.8):
        assert ids(store.max_marginal_relevance_search("a river", 5, 20, lambda_mult)) == ids(
            theirs.max_marginal_relevance_search("a river", 5, 20, lambda_mult=lambda_mult)
        )


FILTERS: list[dict[str, Any]] = [
    {"n": 7},
    {"n": {"$gte": 10, "$lt": 20}},
    {"part": "part 1", "even": True},
    {"part": {"$in": ["part 0", "part 2"]}},
    {"$or": [{"n": {"$lt": 5}}, {"$not": {"part": {"$ne": "part 2"}}}]},
    {"missing": {"$exists": False}, "n": {"$nin": [1, 2, 3]}},
    {"missing": 1},
]


@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_filters(full: MLRVectorStore, filter: dict[str, Any]) -> None:
    expected = nearest("a river", 60, lambda document: matches(parse(filter), document.metadata))
    assert full.similarity_search("a river", 60, filter=filter) == expected
    assert full.similarity_search("a river", 3, filter=filter) == expected[:3]
    assert [d for d, _ in full.similarity_search_with_score("a river", 60, filter=filter)] == expected
    picked = full.max_marginal_relevance_search("a river", 5, lambda_mult=1, filter=filter)
    assert picked == expected[:5]
    assert full.as_retriever(search_kwargs={"filter": filter, "k": 60}).invoke("a river") == expected


def test_only_some_ids(full: MLRVectorStore) -> None:
    found = full.similarity_search("a river", ids=["id 3", "id 5", "nobody"])
    assert found == nearest("a river", 2, lambda document: document.id in ("id 3", "id 5"))


async def test_only_some_ids_of_any_kind(store: MLRVectorStore) -> None:
    store.add_texts(["a", "b", "c"], ids=[7, "x", "y"])
    assert ids(store.similarity_search("a", ids=[7])) == ids(await store.asimilarity_search("a", ids=7)) == ["7"]
    assert ids(store.retriever.as_langchain().invoke("a", ids=[7])) == ["7"]
    assert store.similarity_search("a", ids=[]) == [], "none of them, and not all"


def test_by_vector(full: MLRVectorStore) -> None:
    assert full.embeddings is not None
    for query in QUERIES:
        vector = full.embeddings.embed_query(query)
        assert full.similarity_search_by_vector(vector, 5) == nearest(query, 5)
        longer = [3 * value for value in vector]
        assert full.similarity_search_by_vector(longer, 5, filter={"even": True}) == nearest(
            query, 5, lambda document: document.metadata["even"]
        )


def test_vectors_that_cannot_be_this_models(full: MLRVectorStore) -> None:
    with pytest.raises(ModelMismatchError, match="another length"):
        full.similarity_search_by_vector([0.5] * 15)
    for search in (full.similarity_search_by_vector, full.max_marginal_relevance_search_by_vector):
        for vector in ([0.0] * 16, [float("nan")] * 16, "text", None, [[0.1] * 16]):
            with pytest.raises(InvalidInputError):
                search(vector)  # type: ignore[arg-type]


VECTOR = HashEncoder().encode_query(["a river"])[0].tolist()
TWINS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("similarity_search", ("a river",), {}),
    ("similarity_search", ("a river", 9), {"filter": {"even": True}, "min_score": 0.1}),
    ("similarity_search", ("a river",), {"ids": ["id 3", "id 5"]}),
    ("similarity_search_with_score", ("a river", 9), {"filter": {"even": True}}),
    ("similarity_search_with_relevance_scores", ("a river", 9), {"score_threshold": 0.6}),
    ("similarity_search_by_vector", (VECTOR, 9), {"filter": {"even": True}}),
    ("max_marginal_relevance_search", ("a river", 5, 15, 0.3), {"filter": {"even": True}}),
    ("max_marginal_relevance_search_by_vector", (VECTOR, 5, 15, 0.3), {"filter": {"even": True}}),
    ("get_by_ids", (["id 3", "nobody", "id 1"],), {}),
    ("search", ("a river", "similarity"), {"k": 3}),
    ("search", ("a river", "mmr"), {"k": 3, "lambda_mult": 0.2}),
    ("search", ("a river", "similarity_score_threshold"), {"k": 30, "score_threshold": 0.6}),
]


@pytest.mark.parametrize(("name", "args", "options"), TWINS)
async def test_async_twins_find_the_same(
    full: MLRVectorStore, name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    found = getattr(full, name)(*args, **options)
    assert found
    assert await getattr(full, f"a{name}")(*args, **options) == found


RETRIEVERS: list[tuple[dict[str, Any], Callable[[MLRVectorStore, str], list[Document]]]] = [
    ({}, lambda store, query: store.similarity_search(query, 4)),
    ({"search_kwargs": {"k": 7}}, lambda store, query: store.similarity_search(query, 7)),
    (
        {"search_type": "mmr", "search_kwargs": {"k": 5, "fetch_k": 30, "lambda_mult": 0.2}},
        lambda store, query: store.max_marginal_relevance_search(query, 5, 30, 0.2),
    ),
    (
        {"search_type": "similarity_score_threshold", "search_kwargs": {"k": 50, "score_threshold": 0.6}},
        lambda store, query: store.similarity_search(query, 50, min_score=0.2),
    ),
]


@pytest.mark.parametrize(("options", "expected"), RETRIEVERS)
async def test_as_retriever(full: MLRVectorStore, options: dict[str, Any], expected: Any) -> None:
    retriever = full.as_retriever(**options)
    for query in QUERIES:
        wanted = expected(full, query)
        assert wanted
        assert retriever.invoke(query) == wanted
        assert await retriever.ainvoke(query) == wanted
        assert retriever.invoke(query, k=2) == wanted[:2], "a call's options come before the retriever's"
    assert retriever.tags == ["MLRVectorStore", "MLREmbeddings"]


async def test_search_types_that_are_not_there(full: MLRVectorStore) -> None:
    with pytest.raises(ValueError, match="hybrid"):
        full.as_retriever(search_type="hybrid")
    with pytest.raises(ValueError, match="hybrid"):
        full.search("a river", "hybrid")
    with pytest.raises(ValueError, match="hybrid"):
        await full.asearch("a river", "hybrid")
    with pytest.raises(ValueError, match="score_threshold"):
        full.as_retriever(search_type="similarity_score_threshold")


SEARCHES = [name for name, _, _ in TWINS if name not in ("get_by_ids", "search")]
SEARCHES = list(dict.fromkeys(SEARCHES))


def _asked(name: str) -> Any:
    return VECTOR if name.endswith("by_vector") else "a river"


@pytest.mark.parametrize("name", SEARCHES)
async def test_options_that_are_not_there(full: MLRVectorStore, name: str) -> None:
    for option in ("where", "search_kwargs", "top_k"):
        for call in (getattr(full, name), getattr(full, f"a{name}")):
            with pytest.raises(InvalidQueryError, match="no such option") as raised:
                await _called(call, _asked(name), **{option: 1})
            assert raised.value.found == option
            assert "min_score" in raised.value.expected


@pytest.mark.parametrize("name", SEARCHES)
async def test_filters_that_are_not_in_the_language(full: MLRVectorStore, name: str) -> None:
    for filter in ({"n": {"$like": 1}}, {"$where": "1"}, "n = 1", lambda document: True):
        for call in (getattr(full, name), getattr(full, f"a{name}")):
            with pytest.raises(InvalidFilterError) as raised:
                await _called(call, _asked(name), filter=filter)
            assert isinstance(raised.value, ValueError)


async def _called(call: Any, *args: Any, **options: Any) -> Any:
    result = call(*args, **options)
    return await result if hasattr(result, "__await__") else result


def test_a_threshold_under_langchains_name_gets_a_remedy(full: MLRVectorStore) -> None:
    for search in (full.similarity_search, full.max_marginal_relevance_search, full.as_retriever().invoke):
        with pytest.raises(InvalidQueryError, match="min_score is a cosine"):
            search("a river", score_threshold=0.5)
    assert full.similarity_search("a river", verbose=True) == nearest("a river", 4), "LangChain's own word passes"


@pytest.mark.parametrize("lambda_mult", [-0.1, 1.1, "0.5", None, True, float("nan")])
async def test_lambdas_out_of_range(full: MLRVectorStore, lambda_mult: Any) -> None:
    with pytest.raises(InvalidQueryError, match="lambda_mult"):
        full.max_marginal_relevance_search("a river", lambda_mult=lambda_mult)
    with pytest.raises(InvalidQueryError, match="lambda_mult"):
        await full.amax_marginal_relevance_search_by_vector(VECTOR, lambda_mult=lambda_mult)


@pytest.mark.parametrize("fetch_k", [0, -1, 2.5, "20", True])
def test_candidates_that_are_no_number(full: MLRVectorStore, fetch_k: Any) -> None:
    with pytest.raises(InvalidQueryError, match="candidates"):
        full.max_marginal_relevance_search("a river", fetch_k=fetch_k)


@pytest.mark.parametrize("k", [0, -1, 2.5, None, "4", True])
@pytest.mark.parametrize("name", SEARCHES)
async def test_ks_that_are_no_number(full: MLRVectorStore, name: str, k: Any) -> None:
    for call in (getattr(full, name), getattr(full, f"a{name}")):
        with pytest.raises(InvalidQueryError, match="k is not a number of documents"):
            await _called(call, _asked(name), k=k)


@pytest.mark.parametrize("name", SEARCHES)
async def test_a_huge_k_is_all_of_them(full: MLRVectorStore, name: str) -> None:
    for k in (10**6, 10**12):
        for call in (getattr(full, name), getattr(full, f"a{name}")):
            assert len(await _called(call, _asked(name), k=k)) == 60


@pytest.mark.parametrize("query", [None, "", " \n", 7, ["a river"], b"a river", "half \ud83d", "nul \0"], ids=repr)
@pytest.mark.parametrize("name", [name for name in SEARCHES if not name.endswith("by_vector")])
async def test_queries_that_are_no_text(full: MLRVectorStore, name: str, query: Any) -> None:
    for call in (getattr(full, name), getattr(full, f"a{name}")):
        with pytest.raises(InvalidQueryError, match="a query"):
            await _called(call, query)


async def test_an_empty_store(url: str) -> None:
    with MLRVectorStore.open(url, HashEncoder()) as store:
        assert store.similarity_search("a river") == await store.asimilarity_search("a river") == []
        assert store.similarity_search_with_relevance_scores("a river") == []
        assert store.max_marginal_relevance_search("a river") == []
        assert store.similarity_search_by_vector(VECTOR) == []


def test_queries_are_encoded_as_queries() -> None:
    """A text's own document is not its nearest when the two sides of the model differ."""
    encoder = Asymmetric()
    with MLRVectorStore.open("memory:", encoder) as store:
        store.add_texts(["text", "query: text"])
        ((document, score),) = store.similarity_search_with_score("text", 1)
        assert document.page_content == "query: text"
        assert score == pytest.approx(1, abs=1e-6)
        assert store.embeddings is not None
        assert store.embeddings.embed_query("text") == encoder.encode_query(["text"])[0].tolist()
        assert store.embeddings.embed_documents(["text"]) == encoder.encode_document(["text"]).tolist()


def test_the_stores_embeddings() -> None:
    theirs = DeterministicFakeEmbedding(size=6)
    assert MLRVectorStore.open("memory:", theirs).embeddings is theirs
    ours = MLREmbeddings(HashEncoder())
    store = MLRVectorStore.open("memory:", ours)
    assert store.retriever.model is ours.encoder, "and not wrapped again"
    assert isinstance(store.embeddings, MLREmbeddings)
    assert store.embeddings.encoder is ours.encoder
    store.retriever.reindex(new := HashEncoder(24, "2"))
    assert isinstance(store.embeddings, MLREmbeddings)
    assert store.embeddings.encoder is new


def test_embeddings_that_do_more_are_asked_themselves() -> None:
    class Louder(MLREmbeddings):
        def embed_query(self, text: str) -> list[float]:
            return super().embed_query(text.upper())

    with MLRVectorStore.from_texts(["a", "A"], Louder(HashEncoder())) as store:
        assert store.similarity_search("a", 1)[0].page_content == "A"


class Several(HashEncoder):
    vectors_per_document = 2

    def encode_document(self, inputs: Any) -> np.ndarray:
        rows = super().encode_document(inputs)
        return np.stack([rows, -rows], axis=1)


def test_a_model_of_several_vectors_a_document_has_no_embeddings() -> None:
    with MLRVectorStore.open("memory:", Several()) as store:
        store.add_texts(["text 1", "text 2"])
        assert store.embeddings is None
        assert ids(store.as_retriever().invoke("text 1")) == ids(store.similarity_search("text 1"))
    with pytest.raises(UnsupportedModelError, match="several vectors"):
        MLREmbeddings(Several())
