"""Qdrant behind mlr_rag: a server, a cluster, a folder or this process's memory, through qdrant-client."""

from mlr_rag_qdrant.options import QdrantOptions
from mlr_rag_qdrant.store import QdrantStore

__all__ = ["QdrantOptions", "QdrantStore"]
