"""MLRRetriever: the core's hits as LlamaIndex's nodes, its events and errors, and what LlamaIndex builds on it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import AutoMergingRetriever, QueryFusionRetriever, RouterRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import (
    IndexNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import RetrieverTool, ToolMetadata
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilters

from mlr_rag import MLRModel, Retriever
from mlr_rag.errors import (
    InvalidFilterError,
    InvalidInputError,
    InvalidQueryError,
    MlrRagError,
    ModelMismatchError,
    StoreClosedError,
    StoreUnavailableError,
)
from mlr_rag.memory import MemoryStore
from mlr_rag_llama_index import MLREmbedding, MLRRetriever, MLRVectorStore
from tests.fake_qdrant import FakeQdrant
from tests.llama_index.material import (
    QUESTION,
    Listener,
    Sided,
    debugging,
    errors_of,
    ids_of,
    numbered,
    train,
    where,
)

FILTERS: list[tuple[Any, dict[str, Any] | None]] = [
    (None, None),
    ({"n": {"$gte": 6}}, {"n": {"$gte": 6}}),
    (where("n", 6, FilterOperator.GTE), {"n": {"$gte": 6}}),
    (where("title", "le 1", FilterOperator.TEXT_MATCH), {"title": "Title 1"}),
    (where("missing", None, FilterOperator.IS_EMPTY), None),
    (MetadataFilters(filters=[]), None),
]


def core(kb: Retriever, k: int = 4, **options: Any) -> list[tuple[str, float]]:
    return [(hit.document.id, hit.score) for hit in kb.search(QUESTION, k=k, **options)]


def pairs(found: list[NodeWithScore]) -> list[tuple[str, float | None]]:
    return [(each.node.node_id, each.score) for each in found]


class TestAnswers:
    @pytest.mark.parametrize(("filters", "filter"), FILTERS, ids=lambda value: str(value)[:40])
    async def test_the_cores_hits(self, kb: Retriever, filters: Any, filter: dict[str, Any] | None) -> None:
        retriever = MLRRetriever(kb, 5, filters)
        expected = core(kb, 5, filter=filter)
        assert pairs(retriever.retrieve(QUESTION)) == expected
        assert pairs(await retriever.aretrieve(QUESTION)) == expected
        assert pairs(await retriever._aretrieve(query_bundle=QueryBundle(QUESTION))) == expected, "called by keyword"

    @pytest.mark.parametrize("options", [{"min_score": 0.15}, {"diversity": 1.0}, {"diversity": 0.5, "candidates": 6}])
    async def test_options_of_the_search(self, kb: Retriever, options: dict[str, Any]) -> None:
        expected = core(kb, **options)
        assert expected != core(kb)
        assert pairs(MLRRetriever(kb, **options).retrieve(QUESTION)) == expected
        assert pairs(await MLRRetriever(kb, **options).aretrieve(QUESTION)) == expected

    def test_scores_are_cosines(self, kb: Retriever, encoder: Sided) -> None:
        (query,) = encoder.encode_query([QUESTION])
        found = MLRRetriever(kb, 12).retrieve(QUESTION)
        cosines = encoder.encode_document([each.node.get_content(MetadataMode.EMBED) for each in found]) @ query
        assert [each.score for each in found] == pytest.approx(cosines, abs=1e-6)
        assert min(cosines) < 0

    def test_nodes_come_back_as_they_were(self, kb: Retriever) -> None:
        nodes = {node.node_id: node for node in numbered(12)}
        for each in MLRRetriever(kb, 12).retrieve(QUESTION):
            assert each.node.model_dump() == nodes[each.node.node_id].model_dump()

    def test_it_is_encoded_once_as_a_query(self, kb: Retriever, encoder: Sided) -> None:
        MLRRetriever(kb).retrieve(QUESTION)
        assert (encoder.queries, encoder.encoded) == ([QUESTION], [])

    def test_fields_can_be_set(self, kb: Retriever) -> None:
        retriever = kb.as_llama_index(similarity_top_k=2)
        assert isinstance(retriever, MLRRetriever)
        retriever.similarity_top_k, retriever.filters = 3, where("title", "Title 1")
        assert pairs(retriever.retrieve(QUESTION)) == core(kb, 3, filter={"title": "Title 1"})

    def test_top_k_may_be_huge(self, kb: Retriever) -> None:
        assert len(MLRRetriever(kb, 10**9).retrieve(QUESTION)) == 12

    def test_an_empty_collection(self, encoder: Sided) -> None:
        with Retriever.open("memory:", encoder) as kb:
            assert kb.as_llama_index().retrieve(QUESTION) == []

    def test_several_vectors_a_document(self, tiny_model_dir: Any) -> None:
        with Retriever.open("memory:", MLRModel.from_pretrained(tiny_model_dir, pooling="multi_vector")) as kb:
            kb.add(["paris", "water boils", "the old bridge"])
            assert pairs(kb.as_llama_index(3).retrieve("paris")) == [
                (hit.document.id, hit.score) for hit in kb.search("paris", 3)
            ]


class TestBundles:
    async def test_a_vector_of_ours_is_searched_for(self, kb: Retriever, encoder: Sided) -> None:
        """And is not encoded again, nor its text."""
        vector = MLREmbedding(encoder).get_query_embedding("another question")
        expected = [hit.document.id for hit in kb.search("another question")]
        encoder.forget()
        assert ids_of(MLRRetriever(kb).retrieve(QueryBundle("another question", embedding=vector))) == expected
        assert ids_of(await MLRRetriever(kb).aretrieve(QueryBundle("another question", embedding=vector))) == expected
        assert encoder.queries == []

    async def test_a_foreign_vector_is_refused(self, kb: Retriever, encoder: Sided) -> None:
        for vector in (
            Sided(version="2").encode_query([QUESTION])[0].tolist(),
            encoder.encode_document([QUESTION])[0].tolist(),
        ):
            bundle = QueryBundle(QUESTION, embedding=vector)
            with pytest.raises(ModelMismatchError):
                MLRRetriever(kb).retrieve(bundle)
            with pytest.raises(ModelMismatchError):
                await MLRRetriever(kb).aretrieve(bundle)

    async def test_what_another_retriever_left_in_the_query_is_not_searched_for(self, kb: Retriever) -> None:
        """As in a fusion of two collections with models of their own; with no text to encode, it is refused."""
        vector = MLREmbedding(Sided(version="2")).get_query_embedding(QUESTION)
        expected = [hit.document.id for hit in kb.search(QUESTION)]
        assert ids_of(MLRRetriever(kb).retrieve(QueryBundle(QUESTION, embedding=vector))) == expected
        assert ids_of(await MLRRetriever(kb).aretrieve(QueryBundle(QUESTION, embedding=vector))) == expected
        with pytest.raises(ModelMismatchError):
            MLRRetriever(kb).retrieve(QueryBundle("", embedding=vector))

    def test_a_fusion_of_two_collections_with_models_of_their_own(self, kb: Retriever) -> None:
        other = Retriever.open("memory:", Sided(version="2"))
        other.add(["a text of the other collection"])
        store = MLRVectorStore(other)
        index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
        fusion = QueryFusionRetriever(
            [index.as_retriever(), kb.as_llama_index()], llm=MockLLM(), num_queries=1, use_async=False
        )
        assert fusion.retrieve(QUESTION)

    async def test_the_mean_of_strings_to_embed(self, kb: Retriever, encoder: Sided) -> None:
        bundle = QueryBundle(QUESTION, custom_embedding_strs=["one", "other"])
        mean = encoder.encode_query(["one", "other"]).mean(axis=0)
        expected = [(hit.document.id, pytest.approx(hit.score)) for hit in kb.search_by_vector(mean)]
        encoder.forget()
        assert pairs(MLRRetriever(kb).retrieve(bundle)) == expected
        assert pairs(await MLRRetriever(kb).aretrieve(bundle)) == expected
        assert (encoder.queries, encoder.encoded) == (["one", "other"] * 2, [])

    @pytest.mark.parametrize("strings", [["one", ""], ["one", None], [" "]], ids=repr)
    async def test_blank_strings_to_embed(self, kb: Retriever, strings: list[Any]) -> None:
        bundle = QueryBundle(QUESTION, custom_embedding_strs=strings)
        with pytest.raises(InvalidQueryError):
            MLRRetriever(kb).retrieve(bundle)
        with pytest.raises(InvalidQueryError):
            await MLRRetriever(kb).aretrieve(bundle)


class TestBadInput:
    @pytest.mark.parametrize("query", [None, "", " \n", 7, b"text", ["text"], "a\0b", QueryBundle(" ")], ids=repr)
    async def test_queries(self, kb: Retriever, encoder: Sided, query: Any) -> None:
        with pytest.raises(InvalidQueryError) as caught:
            MLRRetriever(kb).retrieve(query)
        assert isinstance(caught.value, ValueError)
        with pytest.raises(InvalidQueryError):
            await MLRRetriever(kb).aretrieve(query)
        assert encoder.queries == []

    @pytest.mark.parametrize(
        "options",
        [
            *({"similarity_top_k": k} for k in (0, -1, 2.5, None, "4", True)),
            {"mode": "hybrid"},
            {"min_score": 2},
            {"diversity": 1.5},
            {"diversity": "0.5"},
            {"candidates": 10},
            {"candidates": 0, "diversity": 0.5},
            {"filters": {"n": {"$regex": "x"}}},
            {"filters": ["n"]},
            {"filters": "n = 1"},
            {"filters": where("n", "x", FilterOperator.GT)},
            {"filters": where("n", None)},
        ],
        ids=repr,
    )
    async def test_options_are_refused_before_anything_is_asked(
        self, kb: Retriever, encoder: Sided, options: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidInputError):
            await MLRRetriever(kb, **options).aretrieve(QUESTION)
        with pytest.raises(InvalidInputError):
            kb.as_llama_index(**options).retrieve(QUESTION)
        assert encoder.queries == []

    def test_an_option_that_is_not_known(self, kb: Retriever) -> None:
        with pytest.raises(TypeError, match="top_k"):
            MLRRetriever(kb, top_k=3)

    async def test_a_field_that_was_set_wrong(self, kb: Retriever) -> None:
        retriever = MLRRetriever(kb)
        retriever.similarity_top_k = 0
        with pytest.raises(InvalidQueryError):
            retriever.retrieve(QUESTION)
        with pytest.raises(InvalidQueryError):
            await retriever.aretrieve(QUESTION)


class TestEvents:
    async def test_callbacks(self, kb: Retriever) -> None:
        manager, handler = debugging()
        retriever = MLRRetriever(kb, callback_manager=manager)
        found = retriever.retrieve(QUESTION)
        await retriever.aretrieve(QUESTION)
        assert len(handler.get_event_pairs(CBEventType.RETRIEVE)) == 2
        for start, end in handler.get_event_pairs(CBEventType.RETRIEVE):
            assert start.payload == {EventPayload.QUERY_STR: QUESTION}
            assert pairs((end.payload or {})[EventPayload.NODES]) == pairs(found)

    async def test_dispatched_events(self, kb: Retriever, listener: Listener) -> None:
        found = MLRRetriever(kb).retrieve(QUESTION)
        await MLRRetriever(kb).aretrieve(QUESTION)
        assert listener.names() == ["RetrievalStartEvent", "RetrievalEndEvent"] * 2
        for start, end in (listener.heard[:2], listener.heard[2:]):
            assert start.str_or_query_bundle == QUESTION
            assert pairs(end.nodes) == pairs(found)


class TestErrors:
    """Each is raised, reaches the callback manager, and is never an empty list."""

    async def fails(self, retriever: Retriever, error: type[MlrRagError], **options: Any) -> None:
        manager, handler = debugging()
        failing = MLRRetriever(retriever, callback_manager=manager, **options)
        with pytest.raises(error) as sync:
            failing.retrieve(QUESTION)
        with pytest.raises(error) as twin:
            await failing.aretrieve(QUESTION)
        assert errors_of(handler, CBEventType.RETRIEVE) == [sync.value, twin.value]
        engine = RetrieverQueryEngine.from_args(MLRRetriever(retriever, **options), llm=MockLLM())
        with pytest.raises(error):
            engine.query(QUESTION)
        with pytest.raises(error):
            await engine.aquery(QUESTION)

    async def test_a_model_trained_in_place(self, tiny_model: MLRModel) -> None:
        with Retriever.open("memory:", tiny_model) as kb:
            kb.add("paris is the capital of france")
            assert kb.as_llama_index().retrieve("paris")
            train(tiny_model)
            await self.fails(kb, ModelMismatchError)

    async def test_a_closed_store(self, kb: Retriever) -> None:
        kb.close()
        await self.fails(kb, StoreClosedError)
        await self.fails(kb, StoreClosedError, filters=where("title", "T", FilterOperator.TEXT_MATCH))

    async def test_a_bad_filter(self, kb: Retriever) -> None:
        await self.fails(kb, InvalidFilterError, filters=where("n", "x", FilterOperator.GT))

    async def test_a_server_that_went_away(self, encoder: Sided, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mlr_rag_qdrant.connection._PAUSE", 0)
        with FakeQdrant() as server:
            kb = Retriever.open(f"qdrant://127.0.0.1:{server.port}/docs", encoder)
            kb.add(["one", "other"])
            assert len(kb.as_llama_index().retrieve(QUESTION)) == 2
        await self.fails(kb, StoreUnavailableError)


class TestRecursion:
    @pytest.fixture
    def linked(self, kb: Retriever) -> Iterator[Retriever]:
        """A collection of index nodes alone, that lead to another one."""
        with Retriever.open("memory:", Sided()) as linked:
            MLRVectorStore(linked).add([IndexNode(text="see there", index_id="there", id_="link")])
            yield linked

    async def test_a_retriever_behind_an_index_node(self, kb: Retriever, linked: Retriever) -> None:
        retriever = linked.as_llama_index(object_map={"there": kb.as_llama_index(similarity_top_k=3)})
        assert pairs(retriever.retrieve(QUESTION)) == core(kb, 3)
        assert pairs(await retriever.aretrieve(QUESTION)) == core(kb, 3)

    def test_a_query_engine_behind_an_index_node(self, kb: Retriever, linked: Retriever) -> None:
        engine = RetrieverQueryEngine.from_args(kb.as_llama_index(), llm=MockLLM(max_tokens=8))
        (found,) = linked.as_llama_index(object_map={"there": engine}).retrieve(QUESTION)
        assert found.node.get_content() == str(engine.query(QUESTION))

    def test_objects_are_taken_too(self, kb: Retriever, linked: Retriever) -> None:
        there = IndexNode(text="see there", index_id="there", obj=kb.as_llama_index(similarity_top_k=3))
        assert pairs(linked.as_llama_index(objects=[there]).retrieve(QUESTION)) == core(kb, 3)

    def test_a_node_within_an_index_node(self, encoder: Sided) -> None:
        inner = TextNode(text="within", id_="inner", metadata={"a": 1})
        with Retriever.from_llama_index_nodes([IndexNode(text="a", index_id="x", obj=inner)], model=encoder) as kb:
            (found,) = kb.as_llama_index().retrieve(QUESTION)
            assert found.node == inner
            assert found.score == kb.search(QUESTION)[0].score

    def test_an_index_node_that_leads_nowhere(self, linked: Retriever) -> None:
        (found,) = linked.as_llama_index().retrieve(QUESTION)
        assert isinstance(found.node, IndexNode)
        assert found.node.node_id == "link"


class Chosen(BaseSelector):
    """Selects the last choice."""

    def _select(self, choices: Any, query: QueryBundle) -> SelectorResult:
        return SelectorResult(selections=[SingleSelection(index=len(choices) - 1, reason="it is the last")])

    async def _aselect(self, choices: Any, query: QueryBundle) -> SelectorResult:
        return self._select(choices, query)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None:
        return None


class TestWhatIsBuiltOnIt:
    async def test_a_query_engine(self, kb: Retriever) -> None:
        engine = RetrieverQueryEngine.from_args(kb.as_llama_index(similarity_top_k=3), llm=MockLLM(max_tokens=8))
        for response in (engine.query(QUESTION), await engine.aquery(QUESTION)):
            assert pairs(response.source_nodes) == core(kb, 3)
            assert str(response)

    async def test_the_llm_is_shown_the_nodes(self, kb: Retriever) -> None:
        engine = RetrieverQueryEngine.from_args(kb.as_llama_index(similarity_top_k=2), llm=MockLLM())
        shown = str(engine.query(QUESTION))  # it repeats its prompt
        nodes = {node.node_id: node for node in numbered(12)}
        for id, _ in core(kb, 2):
            assert nodes[id].get_content(MetadataMode.LLM) in shown

    async def test_streaming(self, kb: Retriever) -> None:
        engine = RetrieverQueryEngine.from_args(kb.as_llama_index(), llm=MockLLM(max_tokens=8), streaming=True)
        response = engine.query(QUESTION)
        assert len(list(response.response_gen)) == 8  # type: ignore[union-attr]
        assert pairs(response.source_nodes) == core(kb)

    @pytest.mark.parametrize("use_async", [False, True])
    @pytest.mark.parametrize("mode", list(FUSION_MODES), ids=lambda mode: mode.name)
    async def test_fusion(self, kb: Retriever, use_async: bool, mode: FUSION_MODES) -> None:
        with Retriever.open("memory:", Sided(version="2")) as other:
            MLRVectorStore(other).add([TextNode(text=f"another {n}") for n in range(5)])
            retrievers: list[Any] = [kb.as_llama_index(3), other.as_llama_index(3)]
            fusion = QueryFusionRetriever(
                retrievers, llm=MockLLM(), mode=mode, num_queries=1, similarity_top_k=6, use_async=use_async
            )
            expected = {id for id, _ in core(kb, 3)} | {id for id, _ in core(other, 3)}
            found = await asyncio.to_thread(fusion.retrieve, QUESTION)
            assert set(ids_of(found)) == expected
            assert set(ids_of(await fusion.aretrieve(QUESTION))) == expected

    async def test_an_index_as_engines(self, store: MLRVectorStore, kb: Retriever) -> None:
        index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
        engine = index.as_query_engine(llm=MockLLM(max_tokens=8), similarity_top_k=3)
        assert ids_of(engine.query(QUESTION).source_nodes) == [id for id, _ in core(kb, 3)]
        chat = index.as_chat_engine(chat_mode="context", llm=MockLLM(max_tokens=8), similarity_top_k=3)
        for response in (chat.chat(QUESTION), await chat.achat(QUESTION)):
            assert ids_of(response.source_nodes) == [id for id, _ in core(kb, 3)]
        assert len(chat.chat_history) == 4

    async def test_a_chat_engine(self, kb: Retriever) -> None:
        chat = ContextChatEngine.from_defaults(retriever=kb.as_llama_index(3), llm=MockLLM(max_tokens=8))
        assert pairs(chat.chat(QUESTION).source_nodes) == core(kb, 3)
        assert pairs((await chat.achat(QUESTION)).source_nodes) == core(kb, 3)

    async def test_a_router(self, kb: Retriever) -> None:
        with Retriever.open("memory:", Sided(version="2")) as other:
            other.add("elsewhere")
            tools = [
                RetrieverTool(retriever=each.as_llama_index(3), metadata=ToolMetadata(description="it", name=name))
                for name, each in (("other", other), ("kb", kb))
            ]
            router = RouterRetriever(selector=Chosen(), retriever_tools=tools, llm=MockLLM())
            assert dict(pairs(router.retrieve(QUESTION))) == dict(core(kb, 3))
            assert dict(pairs(await router.aretrieve(QUESTION))) == dict(core(kb, 3))

    def test_leaves_are_merged_into_their_parents(self, encoder: Sided) -> None:
        """By relationships that came back from the store."""
        parent = TextNode(text="the whole text", id_="parent")
        leaves = [TextNode(text=f"leaf {n}", id_=f"leaf {n}") for n in range(3)]
        for leaf in leaves:
            leaf.relationships[NodeRelationship.PARENT] = RelatedNodeInfo(node_id="parent")
        parent.relationships[NodeRelationship.CHILD] = [leaf.as_related_node_info() for leaf in leaves]
        docstore = SimpleDocumentStore()
        docstore.add_documents([parent, *leaves])
        context = StorageContext.from_defaults(docstore=docstore)
        with Retriever.from_llama_index_nodes(leaves, model=encoder) as kb:
            merging: Any = AutoMergingRetriever(kb.as_llama_index(2), context)  # type: ignore[arg-type]
            (found,) = merging.retrieve(QUESTION)
            assert found.node.get_content() == "the whole text"


class TestConcurrency:
    async def test_the_event_loop_neither_encodes_nor_searches(
        self, kb: Retriever, encoder: Sided, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        searched: set[int] = set()
        for name in ("query", "scan", "get", "count"):
            method = getattr(MemoryStore, name)
            monkeypatch.setattr(
                MemoryStore,
                name,
                lambda *a, _method=method, **o: searched.add(threading.get_ident()) or _method(*a, **o),
            )
        for filters in (None, where("n", 3), where("title", "T", FilterOperator.TEXT_MATCH)):
            retriever = MLRRetriever(kb, filters=filters)
            assert await retriever.aretrieve(QUESTION)
            assert await retriever.aretrieve(QueryBundle(QUESTION, custom_embedding_strs=["one"]))
            vector = Sided().encode_query([QUESTION])[0].tolist()
            assert await retriever.aretrieve(QueryBundle(QUESTION, embedding=vector))
        assert encoder.threads
        assert searched
        assert threading.get_ident() not in encoder.threads | searched

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("url", ["memory:", "edge:{}/kb", "qdrant::memory:"])
    async def test_200_at_once_beside_the_sync_api(self, url: str, tmp_path: Any) -> None:
        questions = [f"question {n}" for n in range(200)]
        with Retriever.open(url.format(tmp_path), Sided()) as kb:
            MLRVectorStore(kb).add(numbered(50))
            retriever = kb.as_llama_index(similarity_top_k=5)
            expected = [pairs(retriever.retrieve(question)) for question in questions]
            with ThreadPoolExecutor(2) as pool:
                beside = [pool.submit(lambda: [pairs(retriever.retrieve(q)) for q in questions]) for _ in range(2)]
                found = await asyncio.gather(*(retriever.aretrieve(question) for question in questions))
                together = [await asyncio.wrap_future(future) for future in beside]
            assert [pairs(each) for each in found] == expected
            assert together == [expected, expected]

    def test_one_retriever_in_several_event_loops(self, kb: Retriever) -> None:
        retriever = kb.as_llama_index()
        for _ in range(2):
            assert pairs(asyncio.run(retriever.aretrieve(QUESTION))) == core(kb)
        gc.collect()


def test_numpy_numbers_are_numbers(kb: Retriever) -> None:
    assert pairs(MLRRetriever(kb, np.int64(3)).retrieve(QUESTION)) == core(kb, 3)  # type: ignore[arg-type]


def test_a_retrieval_is_traced_once(kb: Retriever) -> None:
    handler = SimpleSpanHandler()
    dispatcher = get_dispatcher()
    dispatcher.add_span_handler(handler)
    try:
        kb.as_llama_index().retrieve(QUESTION)
        asyncio.run(kb.as_llama_index().aretrieve(QUESTION))
    finally:
        dispatcher.span_handlers.remove(handler)
    spans = [span.id_.partition("-")[0] for span in handler.completed_spans]
    assert spans == ["MLRRetriever._retrieve", "MLRRetriever.retrieve", "MLRRetriever.aretrieve"]
