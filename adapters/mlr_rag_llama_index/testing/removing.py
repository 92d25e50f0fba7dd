"""`delete`, `delete_nodes`, `get_nodes` and `clear`: exactly what was asked for, and never more."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from mlr_rag_llama_index.testing.base import Suite, ids_of, node, passages

SMALL = MetadataFilters(filters=[MetadataFilter(key="n", operator=FilterOperator.LT, value=10)])
TWO_OR_TWELVE = MetadataFilters(
    filters=[MetadataFilter(key="n", value=2), MetadataFilter(key="n", value=12)], condition=FilterCondition.OR
)


class Removing(Suite):
    """The nodes that are got, and those that are left."""

    def test_delete_removes_the_nodes_of_that_document(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        store.delete("document 1")
        assert set(self.held(store)) == ids_of(node for node in nodes if node.ref_doc_id != "document 1")

    def test_delete_of_an_unknown_document_removes_nothing(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(8))
        store.delete("document 9")
        assert set(self.held(store)) == ids_of(nodes)

    def test_delete_of_none_spares_nodes_without_a_document(self, store: BasePydanticVectorStore) -> None:
        """LlamaIndex's own metadata says "None" for them."""
        nodes = self.filled(store, [node("one"), node("other")])
        store.delete("None")
        assert set(self.held(store)) == ids_of(nodes)

    def test_delete_nodes_by_ids(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        store.delete_nodes(node_ids=[nodes[3].node_id, nodes[5].node_id, node("unknown").node_id])
        assert self._numbers(store) == [n for n in range(20) if n not in (3, 5)]

    def test_delete_nodes_by_filters(self, store: BasePydanticVectorStore) -> None:
        self.filled(store, passages(20))
        store.delete_nodes(filters=SMALL)
        assert self._numbers(store) == list(range(10, 20))

    def test_delete_nodes_needs_both_ids_and_filters(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        store.delete_nodes(node_ids=[nodes[3].node_id, nodes[15].node_id], filters=SMALL)
        assert self._numbers(store) == [n for n in range(20) if n != 3]

    def test_delete_nodes_needs_both_ids_and_or_filters(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        store.delete_nodes(node_ids=[nodes[2].node_id, nodes[15].node_id], filters=TWO_OR_TWELVE)
        assert self._numbers(store) == [n for n in range(20) if n != 2]

    @pytest.mark.parametrize("arguments", [{}, {"node_ids": []}], ids=["nothing", "no ids"])
    def test_delete_nodes_of_nothing_is_refused_or_removes_nothing(
        self, store: BasePydanticVectorStore, arguments: dict[str, Any]
    ) -> None:
        self.filled(store, passages(5))
        with contextlib.suppress(Exception):
            store.delete_nodes(**arguments)
        assert self._numbers(store) == list(range(5))

    def test_get_nodes_by_ids(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        found = store.get_nodes(node_ids=[nodes[7].node_id, nodes[3].node_id, node("unknown").node_id])
        assert {(node.node_id, node.get_content()) for node in found} == {
            (nodes[7].node_id, "passage 7"),
            (nodes[3].node_id, "passage 3"),
        }

    def test_get_nodes_by_filters(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        assert ids_of(store.get_nodes(filters=SMALL)) == ids_of(nodes[:10])

    def test_get_nodes_needs_both_ids_and_filters(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        found = store.get_nodes(node_ids=[nodes[3].node_id, nodes[15].node_id], filters=SMALL)
        assert ids_of(found) == ids_of([nodes[3]])

    def test_get_nodes_needs_both_ids_and_or_filters(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        found = store.get_nodes(node_ids=[nodes[2].node_id, nodes[15].node_id], filters=TWO_OR_TWELVE)
        assert ids_of(found) == ids_of([nodes[2]])

    def test_get_nodes_without_arguments_gets_all(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        assert ids_of(store.get_nodes()) == ids_of(nodes)

    def test_get_nodes_gets_more_than_10000(self, store: BasePydanticVectorStore) -> None:
        nodes = self.embedded(passages(10_050))
        for start in range(0, len(nodes), 2048):  # as a VectorStoreIndex adds them
            store.add(nodes[start : start + 2048])
        all_of_them = MetadataFilters(filters=[MetadataFilter(key="n", operator=FilterOperator.GTE, value=0)])
        assert ids_of(store.get_nodes(None, all_of_them)) == ids_of(nodes)

    def test_clear_removes_all(self, store: BasePydanticVectorStore) -> None:
        self.filled(store, passages(20))
        store.clear()
        again = self.filled(store, [node("afterwards")])
        assert set(self.held(store)) == ids_of(again)

    def test_clear_of_an_empty_store(self, store: BasePydanticVectorStore) -> None:
        store.clear()
        nodes = self.filled(store, passages(1))
        assert set(self.held(store)) == ids_of(nodes)

    def _numbers(self, store: BasePydanticVectorStore) -> list[int]:
        return sorted(node.metadata["n"] for node in self.held(store).values())
