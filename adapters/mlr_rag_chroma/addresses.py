"""The URLs `chroma+https://host/name` and `chroma+cloud:name`."""

from __future__ import annotations

from mlr_rag.stores import check_name
from mlr_rag_chroma.locations import server_location
from mlr_rag_chroma.opening import to_cloud, to_server
from mlr_rag_chroma.store import ChromaStore


class SecureChroma:
    """A server behind TLS."""

    @classmethod
    def open(cls, location: str, *, dimension: int | None, vectors_per_document: int = 1) -> ChromaStore:
        """The store at `//host:443/name`."""
        server, name = server_location(location, secure=True)
        return ChromaStore.by(to_server(server), name, dimension, vectors_per_document)


class CloudChroma:
    """Chroma Cloud: the tenant and database of CHROMA_TENANT and CHROMA_DATABASE."""

    @classmethod
    def open(cls, location: str, *, dimension: int | None, vectors_per_document: int = 1) -> ChromaStore:
        """The store of a name."""
        check_name(location)
        return ChromaStore.by(to_cloud(), location, dimension, vectors_per_document)
