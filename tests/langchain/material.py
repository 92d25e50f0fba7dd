"""Documents, encoders and a handler of callbacks for these tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document

from mlr_rag.testing import HashEncoder


def documents(count: int) -> list[Document]:
    """With ids "id 0", "id 1" and so on."""
    return [
        Document(f"text {i}", id=f"id {i}", metadata={"n": i, "even": i % 2 == 0, "part": f"part {i % 3}"})
        for i in range(count)
    ]


def ids(found: Sequence[Document]) -> list[str | None]:
    return [document.id for document in found]


class Asymmetric(HashEncoder):
    """Whose query is another vector than the document with the same text."""

    def __init__(self, dimension: int = 16, version: str = "asymmetric") -> None:
        super().__init__(dimension, version)

    def encode_query(self, inputs: Sequence[str]) -> np.ndarray:
        return super().encode_query([f"query: {text}" for text in inputs])


class Failing(HashEncoder):
    """Fails at one document."""

    def encode_document(self, inputs: Sequence[str]) -> np.ndarray:
        if "boom" in inputs:
            raise RuntimeError("boom")
        return super().encode_document(inputs)


class Handler(BaseCallbackHandler):
    """Keeps what it is told of retrievers."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.found: list[list[Document]] = []
        self.errors: list[BaseException] = []

    def on_retriever_start(self, serialized: Any, query: str, **told: Any) -> None:
        self.started.append({"query": query, **told})

    def on_retriever_end(self, documents: Sequence[Document], **told: Any) -> None:
        self.found.append(list(documents))

    def on_retriever_error(self, error: BaseException, **told: Any) -> None:
        self.errors.append(error)


class AsyncHandler(AsyncCallbackHandler):
    """The same, awaited."""

    def __init__(self) -> None:
        self.kept = Handler()

    async def on_retriever_start(self, serialized: Any, query: str, **told: Any) -> None:
        self.kept.on_retriever_start(serialized, query, **told)

    async def on_retriever_end(self, documents: Sequence[Document], **told: Any) -> None:
        self.kept.on_retriever_end(documents)

    async def on_retriever_error(self, error: BaseException, **told: Any) -> None:
        self.kept.on_retriever_error(error)
