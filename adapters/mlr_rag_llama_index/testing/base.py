"""What the parts of the suite share: the fixture to override, nodes with vectors, queries, and what they must give."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery

from mlr_rag_llama_index.testing.embedding import HashEmbedding

AnyNode = TypeVar("AnyNode", bound=BaseNode)
QUESTION = "a question"


class Suite:
    """Base of the parts.

    Attributes:
        embed_model: What all vectors in the suite are made by.
    """

    embed_model: ClassVar[BaseEmbedding] = HashEmbedding()

    @pytest.fixture
    def store(self) -> BasePydanticVectorStore:
        """Override: an empty store."""
        raise NotImplementedError("a vector store's suite needs a fixture `store`")

    def embedded(self, nodes: Sequence[AnyNode]) -> list[AnyNode]:
        """The nodes, with the vectors that an ingestion pipeline would give them."""
        vectors = self.embed_model.get_text_embedding_batch([node.get_content(MetadataMode.EMBED) for node in nodes])
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector
        return list(nodes)

    def filled(self, store: BasePydanticVectorStore, nodes: Sequence[AnyNode]) -> list[AnyNode]:
        """Add the nodes with their vectors, and return them."""
        added = self.embedded(nodes)
        store.add(added)
        return added

    def question(self, top_k: int = 1000, text: str = QUESTION, **options: Any) -> VectorStoreQuery:
        """A query as a retriever over an index makes it."""
        vector = self.embed_model.get_query_embedding(text)
        return VectorStoreQuery(query_embedding=vector, query_str=text, similarity_top_k=top_k, **options)

    def held(self, store: BasePydanticVectorStore, **options: Any) -> dict[str, BaseNode]:
        """By id, what a query finds that asks for more nodes than there are."""
        return {node.node_id: node for node in store.query(self.question(**options)).nodes or []}

    def cosines(self, nodes: Iterable[BaseNode], text: str = QUESTION) -> dict[str, float]:
        """By node's id, best first."""
        query = np.array(self.embed_model.get_query_embedding(text))
        scores = {node.node_id: _cosine(query, np.array(node.get_embedding())) for node in nodes}
        return dict(sorted(scores.items(), key=lambda item: -item[1]))

    def ranking(self, nodes: Iterable[BaseNode], text: str = QUESTION) -> list[str]:
        """The nodes' ids, best first."""
        return list(self.cosines(nodes, text))


def node(text: str, source: str | None = None, metadata: dict[str, Any] | None = None) -> TextNode:
    """A node with a stable id that is a UUID, since some stores take no other."""
    made = TextNode(id_=str(uuid.uuid5(uuid.NAMESPACE_OID, text)), text=text, metadata=metadata or {})
    if source is not None:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
    return made


def passages(count: int) -> list[TextNode]:
    """Nodes of four documents, numbered."""
    return [node(f"passage {n}", f"document {n % 4}", {"n": n}) for n in range(count)]


def ids_of(nodes: Iterable[BaseNode]) -> set[str]:
    """Their ids."""
    return {found.node_id for found in nodes}


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
