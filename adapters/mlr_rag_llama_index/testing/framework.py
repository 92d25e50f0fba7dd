"""The store under what LlamaIndex builds on it: indices, query engines, pipelines, fusion."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms.mock import MockLLM
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import Document, NodeWithScore, TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from mlr_rag_llama_index.testing.base import QUESTION, Suite, ids_of, node, passages
from mlr_rag_llama_index.testing.removing import SMALL
from mlr_rag_llama_index.testing.searching import MMR_QUESTION

STRATEGIES = [DocstoreStrategy.UPSERTS.value, DocstoreStrategy.UPSERTS_AND_DELETE.value]


class Framework(Suite):
    """Nothing but what the framework calls."""

    def test_index_from_vector_store_retrieves(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(30))
        found = self._index(store).as_retriever(similarity_top_k=5).retrieve(QUESTION)
        assert _ids(found) == self.ranking(nodes)[:5]
        assert {one.node.get_content() for one in found} <= {node.text for node in nodes}

    def test_index_inserts_nodes(self, store: BasePydanticVectorStore) -> None:
        index = self._index(store)
        nodes = passages(30)
        index.insert_nodes(nodes)
        assert _ids(index.as_retriever(similarity_top_k=5).retrieve(QUESTION)) == self.ranking(self.embedded(nodes))[:5]

    def test_index_inserts_nodes_async(self, store: BasePydanticVectorStore) -> None:
        index = self._index(store)
        nodes = passages(30)

        async def insert_and_retrieve() -> list[NodeWithScore]:
            await index.ainsert_nodes(nodes)
            return await index.as_retriever(similarity_top_k=5).aretrieve(QUESTION)

        assert _ids(asyncio.run(insert_and_retrieve())) == self.ranking(self.embedded(nodes))[:5]

    def test_index_built_with_a_storage_context(self, store: BasePydanticVectorStore) -> None:
        context, nodes = StorageContext.from_defaults(vector_store=store), passages(30)
        VectorStoreIndex(nodes, storage_context=context, embed_model=self.embed_model)
        assert set(self.held(store)) == ids_of(nodes)

    def test_index_is_loaded_from_a_persisted_context(self, store: BasePydanticVectorStore, tmp_path: Path) -> None:
        context, nodes = StorageContext.from_defaults(vector_store=store), passages(30)
        VectorStoreIndex(nodes, storage_context=context, embed_model=self.embed_model)
        context.persist(str(tmp_path))
        again = StorageContext.from_defaults(vector_store=store, persist_dir=str(tmp_path))
        index: Any = load_index_from_storage(again, embed_model=self.embed_model)
        assert _ids(index.as_retriever(similarity_top_k=5).retrieve(QUESTION)) == self.ranking(self.embedded(nodes))[:5]

    def test_index_inserts_and_deletes_a_document(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(8))
        index = self._index(store)
        index.insert(Document(text="a document", id_="added"))
        assert {node.ref_doc_id for node in self.held(store).values()} >= {"added", "document 1"}
        for document in ("added", "document 1"):
            index.delete_ref_doc(document)
        assert set(self.held(store)) == ids_of(node for node in nodes if node.ref_doc_id != "document 1")

    def test_index_deletes_nodes(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(8))
        self._index(store).delete_nodes([nodes[2].node_id])
        assert set(self.held(store)) == ids_of(nodes) - {nodes[2].node_id}

    def test_retriever_filters(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(30))
        retriever = self._index(store).as_retriever(similarity_top_k=5, filters=SMALL)
        assert _ids(retriever.retrieve(QUESTION)) == self.ranking(nodes[:10])[:5]

    def test_retriever_sends_an_mmr_threshold(self, store: BasePydanticVectorStore) -> None:
        ranking = self.ranking(self.filled(store, passages(6)), MMR_QUESTION)
        index = self._index(store)

        def retrieved(threshold: float) -> list[str]:
            options: dict[str, Any] = {"vector_store_kwargs": {"mmr_threshold": threshold}}
            retriever = index.as_retriever(similarity_top_k=2, vector_store_query_mode="mmr", **options)
            return _ids(retriever.retrieve(MMR_QUESTION))

        assert retrieved(1.0) == ranking[:2]
        assert retrieved(0.0) != ranking[:2]

    def test_query_engine_answers_with_the_nodes(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(30))
        engine = self._index(store).as_query_engine(llm=MockLLM(), similarity_top_k=3)
        for response in (engine.query(QUESTION), asyncio.run(engine.aquery(QUESTION))):
            best = self.ranking(nodes)[:3]
            assert _ids(response.source_nodes) == best
            assert all(node.text in str(response) for node in nodes if node.node_id in best)  # it repeats its prompt

    def test_query_engine_over_an_empty_store(self, store: BasePydanticVectorStore) -> None:
        engine = self._index(store).as_query_engine(llm=MockLLM())
        assert str(engine.query(QUESTION)) == "Empty Response"

    def test_fusion_of_one_query_keeps_the_order(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(30))
        retrievers: list[BaseRetriever] = [self._index(store).as_retriever(similarity_top_k=k) for k in (3, 5)]
        fusion = QueryFusionRetriever(retrievers, llm=MockLLM(), num_queries=1, similarity_top_k=4, use_async=False)
        assert _ids(fusion.retrieve(QUESTION)) == self.ranking(nodes)[:4]
        assert _ids(asyncio.run(fusion.aretrieve(QUESTION))) == self.ranking(nodes)[:4]

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_pipeline_run_again_adds_nothing(self, store: BasePydanticVectorStore, strategy: str) -> None:
        pipeline = self._pipeline(store, strategy)
        assert len(pipeline.run(documents=_documents(3))) > 3
        before = self.held(store)
        assert pipeline.run(documents=_documents(3)) == []
        assert self.held(store).keys() == before.keys()

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_pipeline_replaces_a_changed_document(self, store: BasePydanticVectorStore, strategy: str) -> None:
        pipeline = self._pipeline(store, strategy)
        pipeline.run(documents=_documents(3))
        before = set(self.held(store))
        changed = _documents(3)
        changed[1].set_content("altogether another text")
        pipeline.run(documents=changed)
        found = self.held(store)
        assert [node.get_content() for node in found.values() if node.ref_doc_id == "document 1"] == [
            "altogether another text"
        ]
        assert {node.ref_doc_id for id, node in found.items() if id in before} == {"document 0", "document 2"}

    def test_pipeline_deletes_a_removed_document(self, store: BasePydanticVectorStore) -> None:
        pipeline = self._pipeline(store, "upserts_and_delete")
        pipeline.run(documents=_documents(3))
        pipeline.run(documents=_documents(2))
        assert {node.ref_doc_id for node in self.held(store).values()} == {"document 0", "document 1"}

    def test_pipeline_run_async(self, store: BasePydanticVectorStore) -> None:
        pipeline = self._pipeline(store, "upserts_and_delete")
        asyncio.run(pipeline.arun(documents=_documents(3)))
        asyncio.run(pipeline.arun(documents=_documents(2)))
        assert {node.ref_doc_id for node in self.held(store).values()} == {"document 0", "document 1"}

    def test_pipeline_without_a_splitter_replaces_a_changed_document(self, store: BasePydanticVectorStore) -> None:
        """Then the document is the node, and has no source."""
        pipeline = self._pipeline(store, "upserts", [])
        pipeline.run(documents=[_whole("one"), _whole("other")])
        pipeline.run(documents=[_whole("one", "another text"), _whole("other")])
        assert sorted(node.get_content() for node in self.held(store).values()) == ["another text", "text of other"]

    def test_pipeline_without_a_splitter_deletes_a_removed_document(self, store: BasePydanticVectorStore) -> None:
        pipeline = self._pipeline(store, "upserts_and_delete", [])
        pipeline.run(documents=[_whole("one"), _whole("other")])
        pipeline.run(documents=[_whole("one")])
        assert [node.get_content() for node in self.held(store).values()] == ["text of one"]

    def _index(self, store: BasePydanticVectorStore) -> VectorStoreIndex:
        return VectorStoreIndex.from_vector_store(store, embed_model=self.embed_model)

    def _pipeline(
        self, store: BasePydanticVectorStore, strategy: str, splitters: Sequence[TransformComponent] | None = None
    ) -> IngestionPipeline:
        splitters = [TokenTextSplitter(chunk_size=12, chunk_overlap=0)] if splitters is None else splitters
        return IngestionPipeline(
            transformations=[*splitters, self.embed_model],
            docstore=SimpleDocumentStore(),
            vector_store=store,
            docstore_strategy=DocstoreStrategy(strategy),
        )


def _documents(count: int) -> list[Document]:
    """Long enough for several nodes each."""
    return [
        Document(text=" ".join(f"word {n} {word}" for word in range(20)), id_=f"document {n}") for n in range(count)
    ]


def _whole(name: str, text: str = "") -> Document:
    return Document(text=text or f"text of {name}", id_=node(name).node_id)


def _ids(found: Sequence[NodeWithScore]) -> list[str]:
    return [one.node.node_id for one in found]
