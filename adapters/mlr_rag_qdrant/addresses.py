"""What `qdrant+https:` opens."""

from __future__ import annotations

from typing import Any

from mlr_rag_qdrant.locations import parse
from mlr_rag_qdrant.store import QdrantStore


class SecureQdrant:
    """QdrantStore over TLS: `qdrant+https://host:6333/name`."""

    @staticmethod
    def open(location: str, *, dimension: int | None, vectors_per_document: int = 1, **options: Any) -> QdrantStore:
        """See QdrantStore.open."""
        return QdrantStore.at(parse(location, secure=True), dimension, vectors_per_document, **options)
