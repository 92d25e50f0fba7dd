"""Nodes become documents and come back equal; the text of the document is what LlamaIndex encodes of the node."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.schema import Document as LlamaIndexDocument

from mlr_rag import Document, Retriever
from mlr_rag.errors import DuplicateIdError, InvalidDocumentError
from mlr_rag_llama_index import MLRVectorStore, from_llama_index, to_llama_index
from tests.llama_index.material import Sided

METADATA: dict[str, Any] = {"z": 1, "a": [1, {"b": None}], "title": "A title", "none": None, "empty": {}, "real": 0.5}
RELATIONS: dict[NodeRelationship, Any] = {
    NodeRelationship.SOURCE: RelatedNodeInfo(node_id="s", node_type=ObjectType.DOCUMENT, metadata={"n": 1}, hash="h"),
    NodeRelationship.PREVIOUS: RelatedNodeInfo(node_id="p", node_type=ObjectType.TEXT),
    NodeRelationship.PARENT: RelatedNodeInfo(node_id="u"),
    NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2", metadata={"deep": [1]})],
}
NODES: dict[str, BaseNode] = {
    "text": TextNode(text="a text"),
    "white space": TextNode(text="  a text \n", metadata={"n": 1}),
    "metadata": TextNode(text="a text", metadata=METADATA),
    "metadata only": TextNode(text="", metadata={"title": "A title"}),
    "our keys": TextNode(text="a text", metadata={"ref_doc_id": "mine", "_node": {"mine": [1]}, "text": "mine"}),
    "relations": TextNode(text="a text", relationships=RELATIONS),
    "templates": TextNode(
        text="a text",
        metadata=METADATA,
        text_template="{content} <- {metadata_str}",
        metadata_template="{key}={value}",
        metadata_separator="; ",
        excluded_embed_metadata_keys=["z", "a"],
        excluded_llm_metadata_keys=["title"],
    ),
    "place": TextNode(text="a text", start_char_idx=3, end_char_idx=9, mimetype="text/markdown"),
    "index": IndexNode(text="a text", index_id="elsewhere", metadata=METADATA, relationships=RELATIONS),
    "index with a node": IndexNode(text="a text", index_id="x", obj=TextNode(text="inner", metadata=METADATA)),
    "image": ImageNode(text="a text", image="aGk=", image_path="/a/b.png", image_url="http://a/b.png"),
    "node": Node(text_resource=MediaResource(text="a text"), metadata=METADATA, relationships=RELATIONS),
    "node of more": Node(
        text_resource=MediaResource(text="a text", path=Path("/a/b.txt"), mimetype="text/plain"),
        image_resource=MediaResource(url="http://a/b.png"),
    ),
    "document": LlamaIndexDocument(text="a text", id_="a document", metadata=METADATA),
    "image document": ImageDocument(text="a text", image_resource=MediaResource(path=Path("/a/b.png"))),
}


def plain(node: BaseNode) -> dict[str, Any]:
    return node.model_dump(exclude={"embedding"})


def assert_equal(found: BaseNode, node: BaseNode) -> None:
    assert type(found) is type(node)
    assert plain(found) == plain(node)
    assert found.hash == node.hash
    for mode in MetadataMode:
        assert found.get_content(mode) == node.get_content(mode), "the order of metadata counts too"


@pytest.fixture(params=["memory", "edge", "qdrant", "chroma"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MLRVectorStore]:
    url = {
        "memory": "memory:",
        "edge": f"edge:{tmp_path}/kb",
        "qdrant": "qdrant::memory:",
        "chroma": f"chroma::memory:/kb-{uuid.uuid4()}",
    }[request.param]
    store = MLRVectorStore.open(url, Sided())
    yield store
    store.close()


@pytest.mark.parametrize("kind", NODES)
def test_a_node_comes_back_equal(kind: str) -> None:
    (document,) = from_llama_index([NODES[kind]])
    assert document.id == NODES[kind].node_id
    assert document.text == NODES[kind].get_content(MetadataMode.EMBED)
    assert_equal(to_llama_index(document), NODES[kind])


def test_nodes_come_back_equal_from_every_store(store: MLRVectorStore) -> None:
    store.add(list(NODES.values()))
    found = {node.node_id: node for node in store.get_nodes()}
    assert len(found) == len(NODES)
    for node in NODES.values():
        assert_equal(found[node.node_id], node)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from("abc"), children, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(["a", "title", "ref_doc_id", "_node", "shadowed", "text", "class_name", "id_", "metadata", ""])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([TextNode, LlamaIndexDocument]), TEXT, st.dictionaries(KEYS, JSON, max_size=4), st.lists(KEYS))
def test_any_node_comes_back_equal(
    kind: type[TextNode], text: str, metadata: dict[str, Any], excluded: list[str]
) -> None:
    node = kind(text=text, metadata=metadata, excluded_embed_metadata_keys=excluded)
    (document,) = from_llama_index([node])
    assert document.text == node.get_content(MetadataMode.EMBED)
    assert_equal(to_llama_index(document), node)


def test_the_nodes_are_left_as_they_are(store: MLRVectorStore) -> None:
    before = {kind: node.model_dump() for kind, node in NODES.items()}
    store.add(list(NODES.values()))
    assert {kind: node.model_dump() for kind, node in NODES.items()} == before


def test_what_is_found_can_be_changed_without_harm(store: MLRVectorStore) -> None:
    """As postprocessors do; a memory store would hold the same lists."""
    store.add([node.model_copy(deep=True) for node in NODES.values()])
    for node in store.get_nodes():
        node.metadata.get("a", []).append("changed")
        node.metadata["more"] = "changed"
        for related in node.relationships.get(NodeRelationship.CHILD, []):
            related.metadata.setdefault("deep", []).append("changed")
    for node in store.get_nodes(list({node.node_id for node in NODES.values()})):
        assert "changed" not in str(plain(node))


def test_the_source_can_be_asked_for() -> None:
    child, alone = from_llama_index([NODES["relations"], NODES["text"]])
    assert child.metadata["ref_doc_id"] == "s"
    assert alone.metadata["ref_doc_id"] == NODES["text"].node_id


def test_documents_of_the_core_are_text_nodes() -> None:
    node = to_llama_index(Document("a text", "an id", METADATA))
    assert type(node) is TextNode
    assert (node.node_id, node.text, node.metadata) == ("an id", "a text", METADATA)
    assert node.relationships == {}


def test_a_kind_of_ones_own_comes_back_as_a_text_node() -> None:
    class Mine(TextNode):
        @classmethod
        def class_name(cls) -> str:
            return "Mine"

    (document,) = from_llama_index([Mine(text="a text", metadata=METADATA)])
    found = to_llama_index(document)
    assert type(found) is TextNode
    assert (found.text, found.metadata) == ("a text", METADATA)


def test_the_vector_is_not_stored_twice() -> None:
    node = TextNode(text="a text", embedding=[0.125] * 3)
    (document,) = from_llama_index([node])
    assert "0.125" not in str(document.metadata)
    assert "a text" not in str(document.metadata)
    assert to_llama_index(document).embedding is None


def test_raw_bytes_do_not_come_back() -> None:
    """As in LlamaIndex's own stores: it excludes them from whatever it writes."""
    picture = MediaResource(data=b"\x89PNG\r\n\x1a\n", mimetype="image/png")
    (document,) = from_llama_index([Node(text_resource=MediaResource(text="a text"), image_resource=picture)])
    found = to_llama_index(document)
    assert isinstance(found, Node)
    assert found.image_resource == MediaResource(mimetype="image/png")
    assert "data" not in picture.model_dump()


BAD = {
    "no node": "a text",
    "no node either": Document("a text"),
    "none": None,
    "no text": TextNode(text=""),
    "blank": TextNode(text=" \n"),
    "blank document": LlamaIndexDocument(text=" "),
    "image only": Node(image_resource=MediaResource(path=Path("/a/b.png"))),
    "nul": TextNode(text="a\0b"),
    "surrogate": TextNode(text="half \ud83d"),
    "date": TextNode(text="a text", metadata={"at": datetime.date(2020, 1, 1)}),
    "nan": TextNode(text="a text", metadata={"x": float("nan")}),
    "object": TextNode(text="a text", metadata={"x": object()}),
    "object in an index": IndexNode(text="a text", index_id="x", obj=object()),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_stored_is_named_by_its_place(kind: str) -> None:
    with pytest.raises(InvalidDocumentError, match=r"^node 1: "):
        list(from_llama_index([TextNode(text="fine"), BAD[kind]]))


@pytest.mark.parametrize("nodes", [None, 7, "a text", TextNode(text="one alone")], ids=lambda it: type(it).__name__)
def test_what_is_no_list_of_nodes(nodes: Any) -> None:
    store = MLRVectorStore.open("memory:", Sided())
    for call in (lambda: list(from_llama_index(nodes)), lambda: store.add(nodes)):
        with pytest.raises(InvalidDocumentError):
            call()
    assert store.get_nodes() == []


class TestFromNodes:
    """`Retriever.from_llama_index_nodes`."""

    def test_a_collection_of_nodes(self) -> None:
        with Retriever.from_llama_index_nodes(NODES.values(), model=Sided()) as kb:
            assert kb.count() == len(NODES)
            assert_equal(MLRVectorStore(kb).get_nodes(["a document"])[0], NODES["document"])

    def test_a_generator_and_a_folder(self, tmp_path: Path) -> None:
        nodes = (TextNode(text=f"passage {n}", id_=f"{n}") for n in range(3))
        with Retriever.from_llama_index_nodes(nodes, tmp_path / "kb", Sided()) as kb:
            assert [kb.search(f"passage {n}", k=3) for n in range(3)]
        with Retriever.open(tmp_path / "kb", Sided()) as kb:
            assert [document.text for document in kb.get(["0", "1", "2"])] == ["passage 0", "passage 1", "passage 2"]

    def test_nothing_is_made_of_what_cannot_be_stored(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidDocumentError, match="node 1"):
            Retriever.from_llama_index_nodes([TextNode(text="fine"), TextNode(text=" ")], tmp_path / "kb", Sided())
        assert not (tmp_path / "kb").exists()

    def test_two_of_one_id(self) -> None:
        with pytest.raises(DuplicateIdError):
            Retriever.from_llama_index_nodes(
                [TextNode(text="one", id_="x"), TextNode(text="other", id_="x")], model=Sided()
            )


class Captioned(Node):
    """A class of a user's."""

    caption: str = ""

    @classmethod
    def class_name(cls) -> str:
        return "Captioned"


def test_a_users_class_comes_back_as_the_class_beneath(encoder: Sided) -> None:
    node = Captioned(
        text_resource=MediaResource(text="a cat"), image_resource=MediaResource(path=Path("cat.png")), caption="a cat"
    )
    with Retriever.from_llama_index_nodes([node], model=encoder) as kb:
        (found,) = MLRVectorStore(kb).get_nodes()
    assert type(found) is Node
    assert (found.text_resource, found.image_resource) == (node.text_resource, node.image_resource)


def test_metadata_alone_may_be_the_text(encoder: Sided) -> None:
    node = Node(text_resource=MediaResource(path=Path("a.txt")), metadata={"caption": "a cat"})
    with Retriever.from_llama_index_nodes([node], model=encoder) as kb:
        (found,) = MLRVectorStore(kb).get_nodes()
        assert kb.get(node.node_id)[0].text == "caption: a cat"
    assert isinstance(found, Node)
    assert found.text_resource == node.text_resource


@pytest.mark.parametrize("metadata", [{"_node": "mine"}, {"_node": {"a": 1}}, {"_node": {"class_name": "Mine"}}])
def test_a_document_of_the_core_may_use_our_key(encoder: Sided, metadata: dict[str, Any]) -> None:
    with Retriever.open("memory:", encoder) as kb:
        kb.add([Document("a text", "1", metadata)])
        (found,) = kb.as_llama_index().retrieve("a question")
    assert (found.node_id, found.text, found.metadata) == ("1", "a text", metadata)
