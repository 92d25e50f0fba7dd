"""MLRVectorStore beyond the suite: whose vectors are let in, and what the core and LlamaIndex see of each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.schema import Document as LlamaIndexDocument
from llama_index.core.schema import MetadataMode, QueryBundle, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from sentence_transformers import SentenceTransformer

from mlr_rag import Document, MLRModel, Retriever
from mlr_rag.encoders import SentenceTransformerEncoder
from mlr_rag.errors import (
    DuplicateIdError,
    InvalidDocumentError,
    InvalidFilterError,
    InvalidInputError,
    InvalidQueryError,
    ModelMismatchError,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedModelError,
)
from mlr_rag.memory import MemoryStore
from mlr_rag_llama_index import MLREmbedding, MLRVectorStore
from tests.llama_index.material import QUESTION, Foreign, Sided, ids_of, numbered, train, where

IDS = {f"node {n}" for n in range(12)}


def question(text: str | None = QUESTION, top_k: int = 4, **options: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_str=text, similarity_top_k=top_k, **options)


def embedded(encoder: Sided, count: int = 4) -> list[TextNode]:
    """New nodes, with this encoder's vectors."""
    nodes = [node.model_copy(update={"id_": f"new {n}"}) for n, node in enumerate(numbered(count))]
    for node in nodes:
        node.embedding = encoder.encode_document([node.get_content(MetadataMode.EMBED)])[0].tolist()
    return nodes


class TestWhoseVectors:
    def test_vectors_of_this_model_are_taken_as_they_are(self, store: MLRVectorStore, encoder: Sided) -> None:
        nodes = embedded(encoder, 8)
        encoder.forget()
        assert store.add(nodes) == [node.node_id for node in nodes]
        assert encoder.encoded == [nodes[0].get_content(MetadataMode.EMBED), nodes[-1].get_content(MetadataMode.EMBED)]
        (record,) = store.retriever.store.get(["new 3"], with_vectors=True)
        np.testing.assert_allclose(record.vector, nodes[3].embedding, atol=1e-6)

    def test_vectors_are_brought_to_unit_length(self, store: MLRVectorStore, encoder: Sided) -> None:
        (node,) = embedded(encoder, 1)
        node.embedding = [7 * value for value in node.get_embedding()]
        store.add([node])
        (record,) = store.retriever.store.get(["new 0"], with_vectors=True)
        assert np.linalg.norm(record.vector) == pytest.approx(1, abs=1e-6)

    def test_nodes_with_and_without_vectors(self, store: MLRVectorStore, encoder: Sided) -> None:
        nodes = embedded(encoder, 4)
        nodes[1].embedding = nodes[2].embedding = None
        assert store.add(nodes) == ["new 0", "new 1", "new 2", "new 3"]
        for n, record in enumerate(store.retriever.store.get([node.node_id for node in nodes], with_vectors=True)):
            expected = encoder.encode_document([nodes[n].get_content(MetadataMode.EMBED)])[0]
            np.testing.assert_allclose(record.vector, expected, atol=1e-6)

    @pytest.mark.parametrize("place", ["first", "last", "all", "query side", "shorter", "zero", "nan"])
    def test_foreign_vectors_are_refused_and_nothing_is_written(
        self, store: MLRVectorStore, encoder: Sided, place: str
    ) -> None:
        nodes, foreign = embedded(encoder), embedded(Sided(version="2"))
        wrong: dict[str, list[tuple[int, Any]]] = {
            "first": [(0, foreign[0].embedding)],
            "last": [(3, foreign[3].embedding)],
            "all": [(n, node.embedding) for n, node in enumerate(foreign)],
            "query side": [(0, encoder.encode_query([nodes[0].get_content(MetadataMode.EMBED)])[0].tolist())],
            "shorter": [(n, (node.embedding or [])[:8]) for n, node in enumerate(nodes)],
            "zero": [(2, [0.0] * 16)],
            "nan": [(2, [float("nan")] * 16)],
        }
        for n, vector in wrong[place]:
            nodes[n].embedding = vector
        plain = TextNode(text="without a vector", id_="plain")
        error = InvalidInputError if place in ("zero", "nan") else ModelMismatchError
        with pytest.raises(error):
            store.add([plain, *nodes])
        assert {node.node_id for node in store.get_nodes()} == IDS

    async def test_foreign_vectors_are_refused_async(self, store: MLRVectorStore) -> None:
        with pytest.raises(ModelMismatchError, match="not made by the model"):
            await store.async_add(embedded(Sided(version="2")))

    def test_our_own_query_vector_is_not_encoded_again(self, store: MLRVectorStore, encoder: Sided) -> None:
        vector = store.embed_model.get_query_embedding(QUESTION)
        expected = store.query(question()).ids
        encoder.forget()
        assert store.query(question(query_embedding=vector)).ids == expected
        assert encoder.queries == []

    async def test_a_foreign_query_vector_is_refused(self, store: MLRVectorStore, encoder: Sided) -> None:
        text_side = encoder.encode_document([QUESTION])[0].tolist()
        for vector in (Sided(version="2").encode_query([QUESTION])[0].tolist(), text_side):
            with pytest.raises(ModelMismatchError, match="the query 'a question'"):
                store.query(question(query_embedding=vector))
            with pytest.raises(ModelMismatchError):
                await store.aquery(question(query_embedding=vector))

    @pytest.mark.parametrize("text", [QUESTION, None, ""])
    async def test_another_embedding_of_ours_is_refused(self, store: MLRVectorStore, text: str | None) -> None:
        """Even where there is no text to compare with."""
        other = MLREmbedding(Sided(version="2"))
        for vector in (
            other.get_query_embedding(QUESTION),
            await other.aget_query_embedding(QUESTION),
            other.get_agg_embedding_from_queries([QUESTION]),
            await other.aget_agg_embedding_from_queries([QUESTION]),
        ):
            with pytest.raises(ModelMismatchError):
                store.query(question(text, query_embedding=vector))

    def test_a_plain_vector_without_a_text_is_trusted(self, store: MLRVectorStore, encoder: Sided) -> None:
        vector = encoder.encode_query([QUESTION])[0].tolist()
        assert store.query(question(None, query_embedding=vector)).ids == store.query(question()).ids

    def test_a_text_is_enough(self, store: MLRVectorStore, encoder: Sided) -> None:
        store.query(question())
        assert (encoder.queries, encoder.encoded) == ([QUESTION], [])

    @pytest.mark.parametrize("vector", [[0.0] * 16, [float("nan")] * 16, ["a"] * 16, [], [1.0] * 8])
    def test_what_is_no_query_vector(self, store: MLRVectorStore, vector: Any) -> None:
        with pytest.raises((InvalidInputError, ModelMismatchError)):
            store.query(question(query_embedding=vector))

    @pytest.mark.parametrize("original", [True, False])
    def test_hypothetical_documents_are_searched_for(
        self, store: MLRVectorStore, encoder: Sided, original: bool
    ) -> None:
        """Their vector is not that of the question, and is our model's all the same."""
        hyde = HyDEQueryTransform(llm=MockLLM(max_tokens=3), include_original=original)
        bundle = hyde(QueryBundle(QUESTION))
        assert len(bundle.embedding_strs) == 1 + original
        index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
        mean = encoder.encode_query(bundle.embedding_strs).mean(axis=0)
        expected = [hit.document.id for hit in store.retriever.search_by_vector(mean, k=3)]
        assert expected != [hit.document.id for hit in store.retriever.search(QUESTION, k=3)]
        engine = TransformQueryEngine(index.as_query_engine(llm=MockLLM(), similarity_top_k=3), hyde)
        assert ids_of(engine.query(QUESTION).source_nodes) == expected
        own = RetrieverQueryEngine.from_args(store.retriever.as_llama_index(similarity_top_k=3), llm=MockLLM())
        assert ids_of(TransformQueryEngine(own, hyde).query(QUESTION).source_nodes) == expected


class TestModelSwaps:
    def test_opening_with_another_model(self, tmp_path: Path) -> None:
        MLRVectorStore.open(tmp_path / "kb", Sided()).close()
        for other in (Sided(version="2"), MLREmbedding(Sided(version="2")), Foreign(encoder_=Sided(version="2"))):
            with pytest.raises(ModelMismatchError, match="another model"):
                MLRVectorStore.open(tmp_path / "kb", other)
        MLRVectorStore.open(tmp_path / "kb", MLREmbedding(Sided())).close()

    def test_an_index_with_another_model(self, store: MLRVectorStore) -> None:
        for other in (MLREmbedding(Sided(version="2")), Foreign(encoder_=Sided(version="2"))):
            index = VectorStoreIndex.from_vector_store(store, embed_model=other)
            with pytest.raises(ModelMismatchError):
                index.insert_nodes([TextNode(text="new")])
            with pytest.raises(ModelMismatchError):
                index.as_retriever().retrieve(QUESTION)
            with pytest.raises(ModelMismatchError):
                index.as_query_engine(llm=MockLLM()).query(QUESTION)
            with pytest.raises(ModelMismatchError):
                IngestionPipeline(transformations=[other], vector_store=store).run(nodes=[TextNode(text="new")])
        assert {node.node_id for node in store.get_nodes()} == IDS

    async def test_an_index_with_another_model_async(self, store: MLRVectorStore) -> None:
        index = VectorStoreIndex.from_vector_store(store, embed_model=MLREmbedding(Sided(version="2")))
        with pytest.raises(ModelMismatchError):
            await index.ainsert_nodes([TextNode(text="new")])
        with pytest.raises(ModelMismatchError):
            await index.as_retriever().aretrieve(QUESTION)
        with pytest.raises(ModelMismatchError):
            await index.as_query_engine(llm=MockLLM()).aquery(QUESTION)

    async def test_training_in_place(self, store: MLRVectorStore, encoder: Sided) -> None:
        encoder.become("2")
        with pytest.raises(ModelMismatchError):
            store.add([TextNode(text="new")])
        with pytest.raises(ModelMismatchError):
            store.add(embedded(encoder))
        with pytest.raises(ModelMismatchError):
            store.query(question())
        with pytest.raises(ModelMismatchError):
            await store.aquery(question(query_embedding=store.embed_model.get_query_embedding(QUESTION)))

    def test_training_a_real_model_in_place(self, tiny_model: MLRModel) -> None:
        store = MLRVectorStore.open("memory:", tiny_model)
        index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
        index.insert_nodes([TextNode(text="paris is the capital of france")])
        train(tiny_model)
        for call in (lambda: index.as_retriever().retrieve("paris"), lambda: index.insert_nodes([TextNode(text="a")])):
            with pytest.raises(ModelMismatchError):
                call()

    def test_the_same_weights_in_other_hands(self, tiny_model_dir: Path) -> None:
        """A symmetric model's vectors are what they are, whoever made them."""
        model = MLRModel.from_pretrained(tiny_model_dir)
        foreign = Foreign(encoder_=SentenceTransformerEncoder(SentenceTransformer(str(tiny_model_dir), device="cpu")))
        store = MLRVectorStore.open("memory:", model)
        index = VectorStoreIndex.from_vector_store(store, embed_model=foreign)
        index.insert_nodes([TextNode(text="paris is the capital of france"), TextNode(text="water boils")])
        found = index.as_retriever(similarity_top_k=1).retrieve("paris is the capital of france")
        assert [each.text for each in found] == ["paris is the capital of france"]

    @pytest.mark.parametrize("given", ["nothing", "ours", "encoder"])
    def test_what_may_open_a_store(self, given: str, tmp_path: Path, tiny_model_dir: Path) -> None:
        model = MLRModel.from_pretrained(tiny_model_dir)
        with Retriever.open(tmp_path / "kb", model) as kb:
            kb.add("paris")
        models = {"nothing": None, "ours": MLREmbedding(model), "encoder": model}
        store = MLRVectorStore.open(tmp_path / "kb", models[given])
        assert [node.get_content() for node in store.query(question("paris")).nodes or []] == ["paris"]
        store.close()

    def test_somebodys_embedding_may_open_a_store_again(self, tmp_path: Path) -> None:
        for _ in range(2):
            store = MLRVectorStore.open(tmp_path / "kb", Foreign(encoder_=Sided()))
            index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
            index.insert_nodes(numbered(3))
            assert len(index.as_retriever(similarity_top_k=9).retrieve(QUESTION)) == 3
            store.close()

    def test_several_vectors_a_document(self, tiny_model_dir: Path) -> None:
        """Such a collection can be used; only its vectors do not pass through LlamaIndex."""
        model = MLRModel.from_pretrained(tiny_model_dir, pooling="multi_vector")
        store = MLRVectorStore.open("memory:", model)
        store.add([TextNode(text="paris"), TextNode(text="water boils")])
        assert [node.get_content() for node in store.query(question("paris", 1)).nodes or []] == ["paris"]
        with pytest.raises(UnsupportedModelError):
            store.embed_model  # noqa: B018


class TestBesideTheCore:
    def test_documents_of_the_core(self, encoder: Sided) -> None:
        with Retriever.open("memory:", encoder) as kb:
            kb.add([Document("from the core", "a", {"n": 1}), Document("another", "b", {"n": 2})])
            store = MLRVectorStore(kb)
            found = store.query(question(filters=where("n", 1)))
            (node,) = found.nodes or []
            assert (type(node), node.node_id, node.get_content(), node.metadata) == (
                TextNode,
                "a",
                "from the core",
                {"n": 1},
            )
            store.delete("a")
            assert [document.id for document in kb.get(["a", "b"])] == ["b"], "it is its own source"

    def test_nodes_are_documents_of_the_core(self, store: MLRVectorStore) -> None:
        (document,) = store.retriever.get("node 1")
        assert document.text == "title: Title 1\n\npassage 1"
        assert (document.metadata["n"], document.metadata["title"]) == (1, "Title 1")
        assert [hit.document.id for hit in store.retriever.search(QUESTION, filter={"n": {"$lt": 1}})] == ["node 0"]

    def test_nodes_through_langchain(self, store: MLRVectorStore) -> None:
        pytest.importorskip("langchain_core")
        (found,) = store.retriever.as_langchain(k=1).invoke(QUESTION)
        (node,) = store.query(question(top_k=1)).nodes or []
        assert found.id == node.node_id
        assert found.page_content == node.get_content(MetadataMode.EMBED)
        assert found.metadata["n"] == node.metadata["n"]

    def test_what_was_stored_is_skipped(self, store: MLRVectorStore, encoder: Sided) -> None:
        store.add(numbered(12))
        assert encoder.encoded == []
        store.add(numbered(13))
        assert encoder.encoded == ["title: Title 0\n\npassage 12"]

    def test_reindexing_encodes_what_was_encoded(self, store: MLRVectorStore, encoder: Sided) -> None:
        """Metadata included, and without those that are excluded."""
        other, nodes = Sided(version="2"), {node.node_id: node for node in numbered(12)}
        store.retriever.reindex(other)
        encoded = {node.get_content(MetadataMode.EMBED) for node in nodes.values()}
        assert encoded <= set(other.encoded)
        for record in store.retriever.store.get(list(nodes), with_vectors=True):
            text = nodes[record.document.id].get_content(MetadataMode.EMBED)
            np.testing.assert_allclose(record.vector, other.encode_document([text])[0], atol=1e-6)
        assert store.embed_model.fingerprint == other.fingerprint
        assert {node.node_id: node.model_dump() for node in store.get_nodes()} == {
            id: node.model_dump() for id, node in nodes.items()
        }

    def test_a_pipeline_that_is_run_again_encodes_what_changed(self, store: MLRVectorStore, encoder: Sided) -> None:
        documents = [LlamaIndexDocument(text=f"document {n}", id_=f"document {n}") for n in range(4)]
        pipeline = IngestionPipeline(
            transformations=[store.embed_model],
            docstore=SimpleDocumentStore(),
            vector_store=store,
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        )
        pipeline.run(documents=documents)
        encoder.forget()
        changed = [documents[0], LlamaIndexDocument(text="changed", id_="document 1"), documents[2]]
        pipeline.run(documents=changed)
        assert set(encoder.encoded) == {"changed"}
        held = {node.node_id: node.get_content() for node in store.get_nodes() if node.node_id not in IDS}
        assert held == {"document 0": "document 0", "document 1": "changed", "document 2": "document 2"}

    def test_a_storage_context_holds_nothing_of_it(self, store: MLRVectorStore) -> None:
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex(
            [TextNode(text="new", id_="x")], storage_context=context, embed_model=store.embed_model
        )
        assert context.docstore.docs == {}, "the store keeps the texts"
        assert [node.node_id for node in store.get_nodes(["x"])] == ["x"]
        assert index.vector_store is store


class TestDeleting:
    def test_by_the_source(self, store: MLRVectorStore) -> None:
        store.delete("source 1")
        assert {node.node_id for node in store.get_nodes()} == {f"node {n}" for n in range(12) if n % 3 != 1}

    def test_the_source_is_not_the_id(self, store: MLRVectorStore) -> None:
        store.delete("node 1")
        assert len(store.get_nodes()) == 12

    def test_a_node_without_a_source_is_its_own(self, store: MLRVectorStore) -> None:
        store.add([TextNode(text="alone", id_="alone"), TextNode(text="None", id_="None")])
        store.delete("alone")
        assert {node.node_id for node in store.get_nodes()} == IDS | {"None"}

    def test_metadata_of_that_name_are_not_the_source(self, store: MLRVectorStore) -> None:
        store.add([TextNode(text="alone", id_="alone", metadata={"ref_doc_id": "source 1"})])
        store.delete("source 1")
        assert store.get_nodes(["alone"])[0].metadata == {"ref_doc_id": "source 1"}

    @pytest.mark.parametrize("id", [None, 7, "", ["source 1", "source 2"], b"source 1"], ids=repr)
    def test_what_is_no_source(self, store: MLRVectorStore, id: Any) -> None:
        with pytest.raises(InvalidDocumentError):
            store.delete(id)
        assert len(store.get_nodes()) == 12

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"filters": MetadataFilters(filters=[])},
            {"filters": MetadataFilters(filters=[MetadataFilters(filters=[])])},
            {"filters": MetadataFilters(filters=[], condition=FilterCondition.NOT)},
            {"filters": where("n", [], FilterOperator.NIN)},
            {"filters": {}},
        ],
        ids=str,
    )
    async def test_nodes_by_nothing(self, store: MLRVectorStore, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError, match=r"clear\(\)"):
            store.delete_nodes(**arguments)
        with pytest.raises(InvalidInputError):
            await store.adelete_nodes(**arguments)
        assert len(store.get_nodes()) == 12

    def test_nodes_by_no_ids_are_none(self, store: MLRVectorStore) -> None:
        store.delete_nodes([])
        assert len(store.get_nodes()) == 12
        assert store.get_nodes([]) == []


ONE_OR_FEW: list[Any] = [
    MetadataFilter(key="n", value=0),
    MetadataFilter(key="n", value=3, operator=FilterOperator.LT),
]


class TestFilters:
    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            (where("n", 3), {3}),
            (where("n", [3, 4], FilterOperator.IN), {3, 4}),
            (where("title", "Title 1", FilterOperator.NE), {0, 2, 4, 6, 8, 10}),
            (where("title", "le 1", FilterOperator.TEXT_MATCH), {1, 3, 5, 7, 9, 11}),
            (where("title", "LE 1", FilterOperator.TEXT_MATCH), set()),
            (where("title", "LE 1", FilterOperator.TEXT_MATCH_INSENSITIVE), {1, 3, 5, 7, 9, 11}),
            (where("n", "1", FilterOperator.TEXT_MATCH), set()),
            (where("missing", None, FilterOperator.IS_EMPTY), set(range(12))),
            (where("title", None, FilterOperator.IS_EMPTY), set()),
            (MetadataFilters(filters=ONE_OR_FEW, condition=FilterCondition.AND), {0}),
            (MetadataFilters(filters=ONE_OR_FEW, condition=FilterCondition.OR), {0, 1, 2}),
            (MetadataFilters(filters=ONE_OR_FEW, condition=FilterCondition.NOT), set(range(3, 12))),
        ],
        ids=str,
    )
    async def test_operators(self, store: MLRVectorStore, filters: MetadataFilters, expected: set[int]) -> None:
        def numbers(nodes: Any) -> set[int]:
            return {node.metadata["n"] for node in nodes or []}

        assert numbers(store.query(question(top_k=100, filters=filters)).nodes) == expected
        assert numbers((await store.aquery(question(top_k=100, filters=filters))).nodes) == expected
        assert numbers(store.get_nodes(filters=filters)) == expected
        assert numbers(store.get_nodes(["node 1", "node 3"], filters)) == expected & {1, 3}
        assert numbers(store.query(question(top_k=100, filters=filters, node_ids=["node 1", "node 3"])).nodes) == (
            expected & {1, 3}
        )
        of_source = question(top_k=100, filters=filters, doc_ids=["source 0"])
        assert numbers(store.query(of_source).nodes) == {n for n in expected if n % 3 == 0}
        store.delete_nodes(filters=filters)
        assert numbers(store.get_nodes()) == set(range(12)) - expected

    def test_what_is_empty(self, encoder: Sided) -> None:
        values: dict[str, Any] = {"none": None, "text": "", "list": [], "zero": 0, "false": False, "full": ["x"]}
        nodes = [TextNode(text=id, id_=id, metadata={"x": value}) for id, value in values.items()]
        with Retriever.from_llama_index_nodes(nodes, model=encoder) as kb:
            found = MLRVectorStore(kb).get_nodes(filters=where("x", None, FilterOperator.IS_EMPTY))
            assert {node.node_id for node in found} == {"none", "text", "list"}

    @pytest.mark.parametrize("values", ["draft", None, 7], ids=repr)
    @pytest.mark.parametrize(
        "operator", [FilterOperator.ANY, FilterOperator.ALL, FilterOperator.IN, FilterOperator.NIN]
    )
    def test_a_list_is_needed(self, store: MLRVectorStore, operator: FilterOperator, values: Any) -> None:
        with pytest.raises(InvalidFilterError, match="list"):
            store.query(question(filters=where("tags", values, operator)))

    @pytest.mark.parametrize("operator", [FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE])
    def test_a_text_is_needed(self, store: MLRVectorStore, operator: FilterOperator) -> None:
        for call in (lambda f: store.query(question(filters=f)), lambda f: store.get_nodes(filters=f)):
            with pytest.raises(InvalidFilterError, match="a text"):
                call(where("title", 1, operator))

    @pytest.mark.parametrize("operator", [FilterOperator.GT, FilterOperator.LTE])
    def test_a_number_is_needed(self, store: MLRVectorStore, operator: FilterOperator) -> None:
        for call in (
            lambda f: store.query(question(filters=f)),
            lambda f: store.get_nodes(filters=f),
            lambda f: store.get_nodes(["node 1"], f),
            lambda f: store.delete_nodes(filters=f),
        ):
            with pytest.raises(InvalidFilterError, match="number"):
                call(where("n", "x", operator))

    @pytest.mark.parametrize("operator", [FilterOperator.EQ, FilterOperator.NE, FilterOperator.CONTAINS])
    def test_none_is_refused(self, store: MLRVectorStore, operator: FilterOperator) -> None:
        with pytest.raises(InvalidFilterError, match="None"):
            store.query(question(filters=where("n", None, operator)))

    @pytest.mark.parametrize("filters", ["n = 1", 7, ["n"], MetadataFilter], ids=repr)
    def test_what_is_no_filter(self, store: MLRVectorStore, filters: Any) -> None:
        for call in (
            lambda: store.query(question(filters=filters)),
            lambda: store.get_nodes(filters=filters),
            lambda: store.get_nodes(["node 1"], filters),
            lambda: store.delete_nodes(filters=filters),
        ):
            with pytest.raises(InvalidFilterError):
                call()

    def test_an_unknown_operator_is_refused_by_llama_index(self) -> None:
        with pytest.raises(ValueError, match="operator"):
            MetadataFilter(key="n", value=1, operator="~=")  # type: ignore[arg-type]

    def test_a_dict_of_ours(self, store: MLRVectorStore) -> None:
        ours: Any = {"n": {"$gte": 10}}
        assert set(store.query(question(filters=ours)).ids or []) == {"node 10", "node 11"}
        assert {node.node_id for node in store.get_nodes(filters=ours)} == {"node 10", "node 11"}
        assert [node.node_id for node in store.get_nodes(["node 1", "node 11"], ours)] == ["node 11"]

    def test_documents_are_read_once_and_only_where_they_must_be(
        self, store: MLRVectorStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scans: list[Any] = []
        scan = MemoryStore.scan
        monkeypatch.setattr(MemoryStore, "scan", lambda *a, **o: scans.append(a) or scan(*a, **o))
        store.query(question(filters=where("n", 1)))
        assert scans == []
        store.query(question(filters=where("title", "T", FilterOperator.TEXT_MATCH)))
        assert len(scans) == 1


BAD_QUERIES: dict[str, tuple[type[Exception], Callable[[], VectorStoreQuery], dict[str, Any]]] = {
    "nothing to search for": (InvalidQueryError, lambda: question(None), {}),
    "empty": (InvalidQueryError, lambda: question(""), {}),
    "blank": (InvalidQueryError, lambda: question(" \n"), {}),
    "no text": (InvalidQueryError, lambda: question(7), {}),  # type: ignore[arg-type]
    **{
        f"top_k {k!r}": (InvalidQueryError, lambda k=k: question(top_k=k), {})
        for k in (0, -1, 2.5, None, "4", True, float("nan"))
    },
    **{
        f"mode {mode.value}": (InvalidQueryError, lambda mode=mode: question(mode=mode), {})
        for mode in VectorStoreQueryMode
        if mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
    },
    "mode unknown": (InvalidQueryError, lambda: question(mode="nearest"), {}),
    **{
        f"mmr_threshold {t!r}": (
            InvalidQueryError,
            lambda t=t: question(mode=VectorStoreQueryMode.MMR, mmr_threshold=t),
            {},
        )
        for t in (-0.1, 1.1, "0.5", float("nan"), True)
    },
    **{
        f"{name} {value!r}": (
            InvalidInputError,
            lambda: question(mode=VectorStoreQueryMode.MMR, mmr_threshold=0.5),
            {name: value},
        )
        for name in ("mmr_prefetch_k", "mmr_prefetch_factor")
        for value in (-1, 0, "x", float("nan"), [2])
    },
    "top_k and factor": (
        InvalidQueryError,
        lambda: question(top_k=None, mode=VectorStoreQueryMode.MMR),  # type: ignore[arg-type]
        {"mmr_prefetch_factor": 4.0},
    ),
    "unknown option": (InvalidInputError, lambda: question(), {"qdrant_filters": 1}),
    "option of mmr": (InvalidInputError, lambda: question(), {"mmr_prefetch_k": 4}),
    "unknown option of mmr": (InvalidInputError, lambda: question(mode=VectorStoreQueryMode.MMR), {"hnsw_ef": 4}),
    "node_ids": (InvalidDocumentError, lambda: question(node_ids=[7]), {}),
    "doc_ids": (InvalidFilterError, lambda: question(doc_ids=[None]), {}),
}


@pytest.mark.parametrize("kind", BAD_QUERIES)
async def test_bad_queries(store: MLRVectorStore, kind: str) -> None:
    error, query, options = BAD_QUERIES[kind]
    with pytest.raises(error) as caught:
        store.query(query(), **options)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(error):
        await store.aquery(query(), **options)


def test_top_k_may_be_huge(store: MLRVectorStore) -> None:
    assert set(store.query(question(top_k=10**9)).ids or []) == IDS


def test_candidates_of_maximal_marginal_relevance(store: MLRVectorStore) -> None:
    def ids(**options: Any) -> list[str] | None:
        return store.query(question(top_k=3, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.0), **options).ids

    nearest = store.query(question(top_k=3)).ids or []
    assert set(ids(mmr_prefetch_k=3) or []) == set(ids(mmr_prefetch_factor=1) or []) == set(nearest)
    assert set(ids() or []) != set(nearest)
    assert ids(mmr_prefetch_factor=4.0) == ids(mmr_prefetch_k=12) == ids()


@pytest.mark.parametrize("method", ["add", "delete", "delete_nodes"])
async def test_options_that_are_not_known(store: MLRVectorStore, method: str) -> None:
    argument: Any = {"add": [TextNode(text="new")], "delete": "source 1", "delete_nodes": ["node 1"]}[method]
    twin = {"add": "async_add"}.get(method, f"a{method}")
    with pytest.raises(InvalidInputError, match="no such option: found wait"):
        getattr(store, method)(argument, wait=True)
    with pytest.raises(InvalidInputError):
        await getattr(store, twin)(argument, wait=True)
    assert len(store.get_nodes()) == 12


def test_two_different_nodes_of_one_id(store: MLRVectorStore, encoder: Sided) -> None:
    one, other = embedded(encoder, 2)
    other.id_ = one.id_
    for nodes in ([one, other], [TextNode(text="one", id_="x"), TextNode(text="other", id_="x")]):
        with pytest.raises(DuplicateIdError):
            store.add(nodes)
    assert {node.node_id for node in store.get_nodes()} == IDS
    assert store.add([one, one.model_copy()]) == ["new 0", "new 0"]


def test_a_bad_node_among_good_ones(store: MLRVectorStore, encoder: Sided) -> None:
    bad: list[Any] = [TextNode(text=""), TextNode(text="x", metadata={"x": float("inf")}), "a text", None]
    for node in bad:
        with pytest.raises(InvalidDocumentError, match=r"^node 4: "):
            store.add([*embedded(encoder), node])
    assert {node.node_id for node in store.get_nodes()} == IDS


def test_a_generator_of_nodes(store: MLRVectorStore, encoder: Sided) -> None:
    nodes: Any = (node for node in embedded(encoder))
    assert store.add(nodes) == ["new 0", "new 1", "new 2", "new 3"]


def test_nothing_to_add(store: MLRVectorStore) -> None:
    assert store.add([]) == []


async def test_a_closed_store(store: MLRVectorStore, encoder: Sided) -> None:
    store.close()
    store.close()
    for call in (
        lambda: store.add([TextNode(text="new")]),
        lambda: store.add(embedded(encoder)),
        lambda: store.query(question()),
        store.get_nodes,
        lambda: store.get_nodes(["node 1"]),
        lambda: store.delete("source 1"),
        lambda: store.delete_nodes(["node 1"]),
        store.clear,
    ):
        with pytest.raises(StoreClosedError):
            call()
    with pytest.raises(StoreClosedError):
        await store.aquery(question())


@pytest.mark.parametrize("url", [None, "", 7], ids=repr)
def test_what_is_no_place(url: Any) -> None:
    with pytest.raises(InvalidInputError):
        MLRVectorStore.open(url, Sided())


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StoreUnavailableError):
        MLRVectorStore.open("qdrant://127.0.0.1:1/docs", Sided())


def test_it_survives_closing(tmp_path: Path) -> None:
    store = MLRVectorStore.open(tmp_path / "kb", Sided())
    store.add(numbered(5))
    before = store.query(question())
    store.close()
    again = MLRVectorStore.open(tmp_path / "kb", Sided())
    assert again.query(question()) == before
    again.close()


def test_what_llama_index_asks_of_a_store(store: MLRVectorStore) -> None:
    assert store.stores_text
    assert store.is_embedding_query
    assert store.class_name() == "MLRVectorStore"
    assert store.client is store.retriever.store
    assert store.to_dict() == {
        "stores_text": True, "is_embedding_query": True, "class_name": "MLRVectorStore"
    }  # fmt: skip
