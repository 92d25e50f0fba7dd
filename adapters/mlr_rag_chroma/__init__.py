"""Chroma: embedded, in memory, or on a server."""

from mlr_rag_chroma.environment import unusable

try:
    from mlr_rag_chroma.store import ChromaStore
except ValueError as problem:  # chromadb reads the environment and ./.env while it is imported
    raise unusable(problem) from None

__all__ = ["ChromaStore"]
