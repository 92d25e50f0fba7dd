"""The URL `chroma+https://host/name`."""

from __future__ import annotations

from mlr_rag.stores import check_dimension
from mlr_rag_chroma.locations import server_location
from mlr_rag_chroma.opening import to_server
from mlr_rag_chroma.store import ChromaStore


class SecureChroma:
    """A server behind TLS."""

    @classmethod
    def open(cls, location: str, *, dimension: int | None, vectors_per_document: int = 1) -> ChromaStore:
        """The store at `//host:443/name`."""
        check_dimension(dimension, vectors_per_document)
        server, name = server_location(location, secure=True)
        return ChromaStore.by(to_server(server), name, dimension, vectors_per_document)
