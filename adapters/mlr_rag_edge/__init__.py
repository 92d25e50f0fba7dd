"""Embedded Qdrant (qdrant-edge-py): the default store of mlr_rag, one folder and one process."""

from mlr_rag_edge.store import EdgeStore

__all__ = ["EdgeStore"]
