"""An encoder with two sides, a collection of numbered nodes, and what LlamaIndex reports of itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from llama_index.core.instrumentation import get_dispatcher

from mlr_rag import Retriever
from mlr_rag_llama_index import MLRVectorStore
from tests.llama_index.material import Listener, Sided, numbered


@pytest.fixture
def encoder() -> Sided:
    return Sided()


@pytest.fixture
def kb(encoder: Sided) -> Iterator[Retriever]:
    """Twelve nodes of three sources."""
    with Retriever.open("memory:", encoder) as kb:
        MLRVectorStore(kb).add(numbered(12))
        encoder.forget()
        yield kb


@pytest.fixture
def store(kb: Retriever) -> MLRVectorStore:
    return MLRVectorStore(kb)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Hears every event that LlamaIndex dispatches."""
    listener = Listener()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(listener)
    yield listener
    dispatcher.event_handlers.remove(listener)
