"""LlamaIndex's nodes and our documents.

The text of the document is what LlamaIndex encodes of a node, its metadata included unless they are excluded, so that
`reindex` encodes the same. What else a node holds goes into the metadata under `_node`, and comes back from there; the
id of its source goes under `ref_doc_id`, and a node without one is its own source. The vector does not come back, nor
do raw bytes of images, sounds and films, which LlamaIndex itself never writes; a node of a class of the user's comes
back as one of LlamaIndex's class beneath.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llama_index.core.schema import BaseNode, ImageDocument, ImageNode, IndexNode, MetadataMode, Node, TextNode
from llama_index.core.schema import Document as LlamaIndexDocument

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidDocumentError
from mlr_rag.frameworks import converted

SOURCE = "ref_doc_id"
_NODE = "_node"
_SHADOWED = "shadowed"
_KINDS: dict[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (TextNode, IndexNode, ImageNode, Node, LlamaIndexDocument, ImageDocument)
}


def from_llama_index(nodes: Iterable[BaseNode]) -> Iterator[Document]:
    """LlamaIndex's nodes as our documents.

    Raises:
        InvalidDocumentError: names the node by its place.
    """
    return converted(nodes, BaseNode, _document, "node")


def to_llama_index(document: Document) -> BaseNode:
    """The node that was made a document; a TextNode for a document that was never a node."""
    written = document.metadata.get(_NODE)
    if not isinstance(written, dict) or written.get("class_name") not in _KINDS:
        return TextNode(id_=document.id, text=document.text, metadata=document.metadata)
    rest: dict[str, Any] = dict(written)
    shadowed = rest.pop(_SHADOWED, {})
    metadata = {  # in the node's order, as LlamaIndex writes them into texts
        key: shadowed.get(key, value)
        for key, value in document.metadata.items()
        if key in shadowed or key not in (SOURCE, _NODE)
    }
    kind = _KINDS[rest.pop("class_name")]
    if "text_resource" in rest:
        rest["text_resource"] = {"text": document.text} | rest["text_resource"]
    elif issubclass(kind, TextNode):
        rest.setdefault("text", document.text)
    node: BaseNode = kind.from_dict(rest, id_=document.id, metadata=metadata)
    return node


def _document(node: BaseNode) -> Document:
    text = node.get_content(MetadataMode.EMBED)
    try:
        rest = node.model_dump(mode="json", exclude_none=True, exclude={"id_", "embedding", "metadata", "obj"})
        if isinstance(node, IndexNode) and (held := node.dict()["obj"]) is not None:
            rest["obj"] = held
    except ValueError as problem:
        raise InvalidDocumentError(
            "a node holds what cannot be written as JSON",
            found=str(problem),
            expected="JSON values",
            remedy="Give the object of an IndexNode to the retriever: object_map={index_id: object}.",
        ) from None
    rest["class_name"] = next(name for base in type(node).__mro__ for name, kind in _KINDS.items() if kind is base)
    if "text_resource" in rest:
        rest.pop("text", None)  # which a Document gives twice
        rest["text_resource"].setdefault("text", None)
    if node.get_content(MetadataMode.NONE) == text:
        rest.get("text_resource", rest).pop("text", None)
    if shadowed := {key: node.metadata[key] for key in (SOURCE, _NODE) if key in node.metadata}:
        rest[_SHADOWED] = shadowed
    metadata = node.metadata | {_NODE: rest, SOURCE: node.ref_doc_id or node.node_id}
    return Document(text, node.node_id, metadata)
