"""MLREmbeddings: queries as queries, documents as documents, in any vector store of LangChain's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from sentence_transformers import SentenceTransformer

from mlr_rag import MLRModel, Retriever
from mlr_rag.errors import InvalidDocumentError, InvalidInputError, InvalidQueryError, ModelNotFoundError
from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLREmbeddings, MLRVectorStore
from tests.langchain.material import Asymmetric, ids

TEXTS = ["paris is the capital of france", "water boils on the stove", "old roads meet at a stone bridge"]
QUERY = "what is the capital of france"


def test_what_it_takes(tiny_model_dir: Path, tiny_model: MLRModel) -> None:
    plain = SentenceTransformer(str(tiny_model_dir), device="cpu")
    expected = plain.encode_document(TEXTS, normalize_embeddings=True)
    for model in (str(tiny_model_dir), tiny_model_dir, tiny_model, plain, MLREmbeddings(tiny_model)):
        embeddings = MLREmbeddings(model)
        assert isinstance(embeddings, Embeddings)
        assert np.allclose(embeddings.embed_documents(TEXTS), expected, atol=1e-6)
        assert embeddings.fingerprint
    assert MLREmbeddings(tiny_model).encoder is tiny_model
    with pytest.raises(InvalidInputError, match="not a model"):
        MLREmbeddings(42)
    with pytest.raises(ModelNotFoundError):
        MLREmbeddings("nobody/nothing-at-all")


def test_what_it_says_of_itself() -> None:
    embeddings = MLREmbeddings(HashEncoder())
    assert embeddings.model == "hash-encoder"
    assert embeddings.fingerprint == "hash-encoder-1"
    assert repr(embeddings) == "MLREmbeddings('hash-encoder')"


async def test_each_side_is_encoded_as_such() -> None:
    encoder = Asymmetric()
    embeddings = MLREmbeddings(encoder)
    query = encoder.encode_query([QUERY])[0].tolist()
    assert query != encoder.encode_document([QUERY])[0].tolist()
    assert embeddings.embed_query(QUERY) == await embeddings.aembed_query(QUERY) == query
    rows = encoder.encode_document(TEXTS).tolist()
    assert embeddings.embed_documents(TEXTS) == await embeddings.aembed_documents(TEXTS) == rows
    assert embeddings.embed_documents(tuple(TEXTS)) == rows  # type: ignore[arg-type]
    assert embeddings.embed_documents([]) == []
    assert {type(value) for row in [query, *rows] for value in row} == {float}


@pytest.mark.parametrize("text", [None, "", " \n", 7, b"text", "nul \0", "half \ud83d"], ids=repr)
async def test_texts_that_are_none(text: Any) -> None:
    embeddings = MLREmbeddings(HashEncoder())
    with pytest.raises(InvalidQueryError, match="a query"):
        embeddings.embed_query(text)
    with pytest.raises(InvalidQueryError, match="a query"):
        await embeddings.aembed_query(text)
    with pytest.raises(InvalidDocumentError, match="a document"):
        embeddings.embed_documents(["fine", text])
    with pytest.raises(InvalidDocumentError, match="a document"):
        await embeddings.aembed_documents(["fine", text])


@pytest.mark.parametrize("texts", ["text", b"text", None, 7])
async def test_a_text_is_no_list(texts: Any) -> None:
    embeddings = MLREmbeddings(HashEncoder())
    with pytest.raises(InvalidDocumentError, match="no list of texts"):
        embeddings.embed_documents(texts)
    with pytest.raises(InvalidDocumentError, match="no list of texts"):
        await embeddings.aembed_documents(texts)


@pytest.mark.parametrize("kind", ["memory", "chroma"])
async def test_in_a_vector_store_of_theirs(kind: str, tmp_path: Path) -> None:
    """The score shows which vector was asked with: a query's, and not that of a document with its text."""
    encoder = Asymmetric()
    embeddings = MLREmbeddings(encoder)
    theirs: VectorStore
    if kind == "memory":
        theirs = InMemoryVectorStore(embeddings)
    else:
        from langchain_chroma import Chroma

        theirs = Chroma("theirs", embeddings, str(tmp_path), collection_configuration={"hnsw": {"space": "cosine"}})
    theirs.add_documents([Document(text, id=str(i)) for i, text in enumerate([*TEXTS, QUERY])])
    expected = encoder.encode_document([*TEXTS, QUERY]) @ encoder.encode_query([QUERY])[0]
    found = theirs.similarity_search_with_score(QUERY, 4)
    assert ids([document for document, _ in found]) == [str(i) for i in np.argsort(-expected)]
    cosines = [score if kind == "memory" else 1 - score for _, score in found]
    assert cosines == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    again = await theirs.asimilarity_search(QUERY, 4)
    assert ids(again) == ids([document for document, _ in found])


@pytest.fixture
def prompted(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A model that reads queries and documents with different prompts."""
    model = SentenceTransformer(str(tiny_model_dir), device="cpu")
    model.prompts = {"query": "what is ", "document": "page : "}
    model.save(str(tmp_path / "prompted"), create_model_card=False)
    return tmp_path / "prompted"


async def test_both_sides_through_every_door(prompted: Path) -> None:
    """That HuggingFaceEmbeddings knows one side only is shown in tests/conformance/test_stock_doors.py."""
    model = SentenceTransformer(str(prompted), device="cpu")
    query = model.encode_query([QUERY], normalize_embeddings=True)[0]
    as_document = model.encode_document([QUERY], normalize_embeddings=True)[0]
    rows = model.encode_document(TEXTS, normalize_embeddings=True)
    assert query @ as_document < 0.999, "or nothing is shown here"

    def right(embeddings: Embeddings) -> bool:
        return np.allclose(embeddings.embed_query(QUERY), query, atol=1e-6) and np.allclose(
            embeddings.embed_documents(TEXTS), rows, atol=1e-6
        )

    assert right(MLREmbeddings(prompted))
    assert right(MLREmbeddings(model))
    store = MLRVectorStore.open("memory:", prompted)
    assert store.embeddings is not None
    assert right(store.embeddings)
    store.add_texts(TEXTS)
    expected = sorted((rows @ query).tolist(), reverse=True)
    order = [TEXTS[i] for i in np.argsort(-(rows @ query))]
    for found in (store.similarity_search_with_score(QUERY), await store.asimilarity_search_with_score(QUERY)):
        assert [score for _, score in found] == pytest.approx(expected, abs=1e-6)
    retriever = Retriever.from_langchain_documents([Document(text) for text in TEXTS], model=prompted).as_langchain()
    for documents in (retriever.invoke(QUERY), await retriever.ainvoke(QUERY)):
        assert [document.page_content for document in documents] == order
