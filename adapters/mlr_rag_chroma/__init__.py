"""Chroma: embedded, in memory, on a server, or in its cloud."""

from mlr_rag_chroma.store import ChromaStore

__all__ = ["ChromaStore"]
