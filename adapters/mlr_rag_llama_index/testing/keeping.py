"""`add`, and whether what comes back is what was added."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from mlr_rag_llama_index.testing.base import Suite, node, passages

ID = "5f0b8a52-4f2b-5c6e-9d4e-2f6d0c1b7a11"
COMMON: dict[str, Any] = {"id_": ID, "metadata": {"author": "Ada", "year": 1843}}
KINDS: dict[str, Callable[[], BaseNode]] = {
    "text": lambda: TextNode(text="a text", start_char_idx=3, end_char_idx=9, **COMMON),
    "index": lambda: IndexNode(text="a summary", index_id="another index", **COMMON),
    "image": lambda: ImageNode(text="a caption", image="aGVsbG8=", image_mimetype="image/png", **COMMON),
    "node": lambda: Node(text_resource=MediaResource(text="a text"), **COMMON),
}
METADATA: dict[str, dict[str, Any]] = {
    "none": {"a": None},
    "bools": {"a": True, "b": False},
    "numbers": {"int": 1, "float": 1.0, "big": 2**62, "small": -1e-300, "third": 1 / 3},
    "strings": {"a": "naïve – 東京 🚲 \n\t\"quoted\" 'single' \\ back", "empty": ""},
    "lists": {"a": ["x", "y"], "b": [1, 2.5], "empty": []},
    "nested": {"a": {"b": [{"c": None}, [1, True, "x"]]}, "empty": {}},
    "odd keys": {"a.b": 1, "with space": 2, 'q"': 3, "a[]": 4, "é": 5},
    "names of fields": {"id": 1, "text": "x", "doc_id": "y", "document_id": "z", "ref_doc_id": "r", "metadata": "m"},
}
IDS = ["a node", "17", hashlib.sha256(b"x").hexdigest(), "folder/ünïcode #1?.md:3", "x" * 500]


class Keeping(Suite):
    """What is added is kept, as it was."""

    def test_it_is_a_vector_store_that_keeps_text(self, store: BasePydanticVectorStore) -> None:
        assert isinstance(store, BasePydanticVectorStore)
        assert store.stores_text
        assert store.is_embedding_query

    def test_add_returns_the_ids_in_order(self, store: BasePydanticVectorStore) -> None:
        nodes = self.embedded(passages(20))
        assert store.add(nodes) == [node.node_id for node in nodes]

    def test_add_leaves_its_input_unchanged(self, store: BasePydanticVectorStore) -> None:
        nodes = self.embedded(passages(3))
        before = copy.deepcopy(nodes)
        store.add(nodes)
        assert nodes == before

    def test_add_of_nothing(self, store: BasePydanticVectorStore) -> None:
        self.filled(store, passages(1))
        assert store.add([]) == []

    def test_first_add_of_nothing(self, store: BasePydanticVectorStore) -> None:
        assert store.add([]) == []

    def test_many_nodes_in_one_call(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(6_000))  # more than clients take at once
        best = self.ranking(nodes)[:3]
        assert store.query(self.question(3)).ids == best

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_node_comes_back_equal(self, store: BasePydanticVectorStore, kind: str) -> None:
        (added,) = self.filled(store, [KINDS[kind]()])
        assert _plain(self._only(store)) == _plain(added)

    def test_a_document_comes_back_as_a_node(self, store: BasePydanticVectorStore) -> None:
        """Of which class is left open: LlamaIndex's own conversion makes it a TextNode."""
        self.filled(store, [Document(text="a text", excluded_embed_metadata_keys=["year"], **COMMON)])
        found = self._only(store)
        assert (found.node_id, found.get_content(), found.metadata) == (ID, "a text", COMMON["metadata"])
        assert found.excluded_embed_metadata_keys == ["year"]

    @pytest.mark.parametrize("kind", METADATA)
    def test_metadata_comes_back_equal(self, store: BasePydanticVectorStore, kind: str) -> None:
        self.filled(store, [node("a text", "a document", copy.deepcopy(METADATA[kind]))])
        found = self._only(store).metadata
        assert found == METADATA[kind]
        assert repr(found) == repr(METADATA[kind])  # 1 == True == 1.0, and keys make texts in their order

    def test_relationships_come_back_equal(self, store: BasePydanticVectorStore) -> None:
        added = node("a text")
        added.relationships = {
            NodeRelationship.SOURCE: RelatedNodeInfo(
                node_id="a document", node_type=ObjectType.DOCUMENT, metadata={"year": 1843}, hash="abc"
            ),
            NodeRelationship.PREVIOUS: RelatedNodeInfo(node_id="before"),
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="after"),
            NodeRelationship.PARENT: RelatedNodeInfo(node_id="above", node_type=ObjectType.TEXT),
            NodeRelationship.CHILD: [RelatedNodeInfo(node_id="below 1"), RelatedNodeInfo(node_id="below 2")],
        }
        self.filled(store, [added])
        found = self._only(store)
        assert found.relationships == added.relationships
        assert found.ref_doc_id == "a document"

    def test_templates_and_excluded_keys_come_back_equal(self, store: BasePydanticVectorStore) -> None:
        added = TextNode(
            text="a text",
            text_template="{content} ({metadata_str})",
            metadata_template="{key} is {value}",
            metadata_separator="; ",
            excluded_embed_metadata_keys=["year"],
            excluded_llm_metadata_keys=["author"],
            **COMMON,
        )
        self.filled(store, [added])
        assert _plain(self._only(store)) == _plain(added)

    def test_any_string_is_a_node_id(self, store: BasePydanticVectorStore) -> None:
        nodes = self.embedded([TextNode(id_=id, text=f"text of {id}") for id in IDS])
        assert store.add(nodes) == IDS
        assert {id: found.get_content() for id, found in self.held(store).items()} == {
            node.node_id: node.text for node in nodes
        }
        assert store.query(self.question()).ids == self.ranking(nodes)

    def test_a_node_added_again_is_replaced_whole(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(4))
        again = node("another text", "another document", {"other": "x"})
        again.id_ = nodes[2].node_id
        self.filled(store, [again])
        found = self.held(store)
        assert len(found) == 4
        assert _plain(found[again.node_id]) == _plain(again)
        assert store.query(self.question()).ids == self.ranking([*nodes[:2], again, nodes[3]])

    def test_one_id_twice_in_a_call_is_refused_whole_or_the_last_wins(self, store: BasePydanticVectorStore) -> None:
        self.filled(store, passages(1))
        one, other = self.embedded([node("one"), node("other")])
        one.id_ = other.id_
        try:
            store.add([one, other])
        except Exception:
            assert other.id_ not in self.held(store)
        else:
            assert {id: found.get_content() for id, found in self.held(store).items() if id == other.id_} == {
                other.id_: "other"
            }

    def _only(self, store: BasePydanticVectorStore) -> BaseNode:
        found = store.query(self.question()).nodes or []
        assert len(found) == 1
        return found[0]


def _plain(node: BaseNode) -> tuple[str, dict[str, Any]]:
    return node.class_name(), node.model_dump(mode="json", exclude={"embedding"})
