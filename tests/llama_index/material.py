"""What the tests of the LlamaIndex adapter share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from mlr_rag import MLRModel
from mlr_rag.testing import HashEncoder

QUESTION = "a question"


class Sided(HashEncoder):
    """A HashEncoder that gives a query another vector than a document, and remembers what it was asked, and where."""

    def __init__(self, dimension: int = 16, version: str = "1") -> None:
        super().__init__(dimension, version)
        self.queries: list[str] = []
        self.threads: set[int] = set()

    def encode_query(self, inputs: Sequence[str]) -> np.ndarray:
        self.threads.add(threading.get_ident())
        self.queries.extend(inputs)
        return super().encode_query([f"query: {text}" for text in inputs])

    def encode_document(self, inputs: Sequence[str]) -> np.ndarray:
        self.threads.add(threading.get_ident())
        return super().encode_document(inputs)

    def forget(self) -> None:
        self.queries.clear()
        self.encoded.clear()
        self.threads.clear()

    def become(self, version: str) -> None:
        """What training in place does."""
        self.version, self.fingerprint = version, f"hash-encoder-{version}"


class Foreign(BaseEmbedding):
    """Somebody's embedding around an encoder: nothing tells which."""

    encoder_: Any

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.encoder_.encode_query([query])[0].tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.encoder_.encode_document([text])[0].tolist()


class Listener(BaseEventHandler):
    """Keeps the events of LlamaIndex's dispatcher."""

    heard: list[Any] = []  # noqa: RUF012 - pydantic copies it

    @classmethod
    def class_name(cls) -> str:
        return "Listener"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.heard.append(event)

    def names(self) -> list[str]:
        return [event.class_name() for event in self.heard]


def numbered(count: int) -> list[TextNode]:
    """Nodes `node 0`, ... of three sources, with metadata that are encoded and metadata that are not."""
    return [
        TextNode(
            id_=f"node {n}",
            text=f"passage {n}",
            metadata={"n": n, "title": f"Title {n % 2}"},
            excluded_embed_metadata_keys=["n"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"source {n % 3}")},
        )
        for n in range(count)
    ]


def where(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def ids_of(found: Sequence[NodeWithScore]) -> list[str]:
    return [each.node.node_id for each in found]


def debugging() -> tuple[CallbackManager, LlamaDebugHandler]:
    """A callback manager, and the handler in it that keeps the events."""
    handler = LlamaDebugHandler(print_trace_on_end=False)
    return CallbackManager([handler]), handler


def errors_of(handler: LlamaDebugHandler, event: CBEventType) -> list[BaseException]:
    """Those that the handler was told of, at the end of the events of a type."""
    ends = [pair[-1].payload or {} for pair in handler.get_event_pairs(event)]
    return [payload[EventPayload.EXCEPTION] for payload in ends if EventPayload.EXCEPTION in payload]


def train(model: MLRModel) -> None:
    """Move the weights, in place."""
    with torch.no_grad():
        for weight in model[0].parameters():
            weight.add_(0.1 * torch.randn_like(weight))
