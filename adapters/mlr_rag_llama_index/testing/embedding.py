"""An embedding model without a model."""

from __future__ import annotations

import hashlib

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding


class HashEmbedding(BaseEmbedding):
    """Unit vectors of 16 dimensions from the text's hash; a query's is not that of the document with the same text."""

    model_name: str = "hash-embedding"
    embed_batch_size: int = 2048

    def _get_query_embedding(self, query: str) -> list[float]:
        return _vector("query", query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return _vector("query", query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return _vector("document", text)


def _vector(task: str, text: str) -> list[float]:
    digest = hashlib.sha256(f"{task}: {text}".encode()).digest()
    row = np.frombuffer(digest, np.uint16).astype(np.float64) - 32767.5
    unit: list[float] = (row / np.linalg.norm(row)).tolist()
    return unit
