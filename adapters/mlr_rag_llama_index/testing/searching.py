"""`query`: what is found, in which order, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQueryMode,
)

from mlr_rag_llama_index.testing.base import Suite, passages

MMR_QUESTION = "question 344"  # for which thresholds of 0, 0.5 and 1 each pick another second node of `passages(6)`
OTHER_MODES = [
    mode.value for mode in VectorStoreQueryMode if mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
]


class Searching(Suite):
    """The nearest nodes, best first, of those that were asked for."""

    def test_query_of_an_empty_store(self, store: BasePydanticVectorStore) -> None:
        result = store.query(self.question(3))
        assert not result.nodes
        assert not result.ids
        assert not result.similarities

    def test_best_first(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(50))
        for text in ("a question", "another", "passage 7"):
            assert store.query(self.question(10, text)).ids == self.ranking(nodes, text)[:10]

    def test_similarities_are_cosines(self, store: BasePydanticVectorStore) -> None:
        """As SimpleVectorStore's are, so that a cutoff means the same over every store."""
        nodes = self.filled(store, passages(30))
        expected = list(self.cosines(nodes).values())
        assert expected[-1] < 0 < expected[0]
        assert store.query(self.question(30)).similarities == pytest.approx(expected, abs=1e-5)

    def test_nodes_ids_and_similarities_belong_together(self, store: BasePydanticVectorStore) -> None:
        self.filled(store, passages(30))
        result = store.query(self.question(5))
        assert result.nodes is not None
        assert result.similarities is not None
        assert [node.node_id for node in result.nodes] == result.ids
        assert len(result.nodes) == len(result.similarities) == 5
        json.dumps(result.similarities)

    def test_top_k_may_exceed_the_store(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(3))
        assert store.query(self.question(100)).ids == self.ranking(nodes)

    def test_node_ids_restrict_the_search(self, store: BasePydanticVectorStore) -> None:
        worst = self.ranking(self.filled(store, passages(30)))[-3:]
        assert store.query(self.question(2, node_ids=worst)).ids == worst[:2]

    def test_doc_ids_restrict_the_search(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(30))
        wanted = ["document 1", "document 3"]
        expected = self.ranking(node for node in nodes if node.ref_doc_id in wanted)
        assert store.query(self.question(doc_ids=wanted)).ids == expected

    def test_node_ids_doc_ids_and_filters_must_all_hold(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(30))
        found = self.held(
            store,
            node_ids=[node.node_id for node in nodes[:20]],
            doc_ids=["document 1"],
            filters=MetadataFilters(filters=[MetadataFilter(key="n", value=8, operator=FilterOperator.GT)]),
        )
        assert sorted(node.metadata["n"] for node in found.values()) == [9, 13, 17]

    def test_mmr_with_threshold_1_is_the_order_of_similarity(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(6))
        assert self._mmr(store, 1.0) == self._marginal(nodes, 1.0)

    def test_mmr_with_threshold_0_takes_the_node_farthest_from_the_best(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(6))
        assert self._mmr(store, 0.0) == self._marginal(nodes, 0.0)

    def test_mmr_with_threshold_half_is_between(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(6))
        assert len({self._marginal(nodes, threshold)[1] for threshold in (0.0, 0.5, 1.0)}) == 3
        assert self._mmr(store, 0.5) == self._marginal(nodes, 0.5)

    def test_mmr_threshold_of_the_query_is_heeded(self, store: BasePydanticVectorStore) -> None:
        """Not only the keyword that retrievers send as `vector_store_kwargs`."""
        nodes = self.filled(store, passages(6))
        for threshold in (0.0, 1.0):
            found = store.query(
                self.question(2, MMR_QUESTION, mode=VectorStoreQueryMode.MMR, mmr_threshold=threshold)
            ).ids
            assert found == self._marginal(nodes, threshold)

    @pytest.mark.parametrize("mode", OTHER_MODES)
    def test_another_mode_is_not_answered_as_the_default(self, store: BasePydanticVectorStore, mode: str) -> None:
        """It is served, and then scores in its own way, or it is refused."""
        self.filled(store, passages(10))
        default = store.query(self.question(5, "passage 7")).similarities
        try:
            found = store.query(self.question(5, "passage 7", mode=VectorStoreQueryMode(mode), alpha=0.0)).similarities
        except Exception as refusal:
            assert str(refusal)
        else:
            assert found != default

    def _mmr(self, store: BasePydanticVectorStore, threshold: float) -> list[str] | None:
        """The threshold is given by both of the ways there are."""
        query = self.question(2, MMR_QUESTION, mode=VectorStoreQueryMode.MMR, mmr_threshold=threshold)
        return store.query(query, mmr_threshold=threshold).ids

    def _marginal(self, nodes: list[TextNode], threshold: float) -> list[str]:
        """The best, and the one with the highest threshold * similarity - (1 - threshold) * cosine to the best."""
        scores = self.cosines(nodes, MMR_QUESTION)
        vectors = {node.node_id: np.array(node.get_embedding()) for node in nodes}
        best, *rest = scores
        return [
            best,
            max(rest, key=lambda id: threshold * scores[id] - (1 - threshold) * float(vectors[id] @ vectors[best])),
        ]
