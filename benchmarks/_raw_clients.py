"""The raw clients, doing the work of ours.

Each stores what ours does, in a collection made and searched as ours is, and asks for as much of it. What only ours has
any use for is made off the clock, in `prepare`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._systems import K, System
from benchmarks._texts import DIMENSION, condition
from mlr_rag import Document
from mlr_rag.stores import Record, Vector
from mlr_rag.tokens import numbers, tokens
from mlr_rag_edge.index import ENOUGH

_SHOWN = ["id", "text", "metadata"]


class RawEdge(System):
    """qdrant_edge."""

    def open(self) -> None:
        """See System."""
        import qdrant_edge as qdrant

        from mlr_rag_edge import store
        from mlr_rag_edge.conditions import translate
        from mlr_rag_edge.shard import config

        self._qdrant, self._condition = qdrant, translate(condition())
        self._params = store._SEARCH, store._FILTERED  # as ours
        if self._place.exists():
            self._shard = qdrant.EdgeShard.load(str(self._place))
            return
        self._place.mkdir(parents=True)
        self._shard = qdrant.EdgeShard.create(str(self._place), config(DIMENSION, 1))
        self._indexed = False

    @property
    def _place(self) -> Path:
        if self.folder is None:
            raise ValueError("a shard needs a folder")
        return self.folder / "shard"

    def close(self) -> None:
        """See System."""
        self._shard.flush()
        self._shard.close()

    def prepare(self, batch: list[Record]) -> Any:
        """See System."""
        return [(each.document, each.vector, _derived(each.document)) for each in batch]

    def add(self, prepared: list[tuple[Document, Vector, dict[str, Any]]]) -> None:
        """See System."""
        from mlr_rag_edge.shard import add_fields

        if not self._indexed:
            add_fields(self._shard, ["tokens", *(f"numbers.{name}" for name in prepared[0][2]["numbers"])])
            self._indexed = True
        points = [
            self._qdrant.Point(uuid.UUID(_uuid(document)), row.tolist(), _payload(document) | derived)
            for document, row, derived in prepared
        ]
        self._shard.update(self._qdrant.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def search(self, vector: Vector, filtered: bool) -> list[str]:
        """See System."""
        request = self._qdrant.QueryRequest(
            query=self._qdrant.Query.Nearest(vector.tolist()),
            filter=self._condition if filtered else None,
            limit=K,
            with_payload=_SHOWN,
            params=self._params[filtered],
        )
        points: Any = self._shard.query(request)
        return [point.payload["id"] for point in points]

    def index(self, size: int) -> None:
        """See System."""
        if size >= ENOUGH:
            self.close()
            build = f"from mlr_rag_edge.build import build; build({str(self._place)!r}, {DIMENSION}, 1)"
            subprocess.run([sys.executable, "-c", build], check=True)  # in another process, as ours
            self.open()


class RawQdrant(System):
    """qdrant_client, in local mode."""

    def open(self) -> None:
        """See System."""
        from qdrant_client import QdrantClient, models

        from mlr_rag_qdrant.conditions import translate

        self._models, self._condition = models, translate(condition())
        self._client = QdrantClient(":memory:") if self.folder is None else QdrantClient(path=str(self.folder))
        if not self._client.collection_exists("raw"):
            dot = models.VectorParams(size=DIMENSION, distance=models.Distance.DOT)
            self._client.create_collection("raw", dot)

    def close(self) -> None:
        """See System."""
        self._client.close()

    def prepare(self, batch: list[Record]) -> Any:
        """See System."""
        return [(each.document, each.vector, _derived(each.document)) for each in batch]

    def add(self, prepared: list[tuple[Document, Vector, dict[str, Any]]]) -> None:
        """See System."""
        points = [
            self._models.PointStruct(id=_uuid(document), vector=row.tolist(), payload=_payload(document) | derived)
            for document, row, derived in prepared
        ]
        self._client.upsert("raw", points, wait=True)

    def search(self, vector: Vector, filtered: bool) -> list[str]:
        """See System."""
        wanted = self._condition if filtered else None
        found = self._client.query_points("raw", vector.tolist(), query_filter=wanted, limit=K, with_payload=_SHOWN)
        return [point.payload["id"] for point in found.points if point.payload]


class RawChroma(System):
    """chromadb, by any of its clients.

    Args:
        client: The client's class.
        folder: See System.
        server: See System.
        **place: What the client is given.
    """

    def __init__(self, client: str, folder: Path | None = None, server: int | None = None, **place: Any) -> None:
        super().__init__(folder, server)
        self._kind, self._place = client, place
        self._name = uuid.uuid4().hex  # clients in memory share one

    def open(self) -> None:
        """See System."""
        import chromadb
        from chromadb.config import Settings

        from mlr_rag_chroma import generations
        from mlr_rag_chroma.conditions import translate

        self._condition = translate(condition())
        self._client = getattr(chromadb, self._kind)(settings=Settings(anonymized_telemetry=False), **self._place)
        index: Any = {"hnsw": generations._INDEX}  # as ours is made
        self._collection = self._client.get_or_create_collection(
            self._name, configuration=index, embedding_function=None
        )

    def close(self) -> None:
        """See System."""
        self._client.close()

    def prepare(self, batch: list[Record]) -> dict[str, Any]:
        """See System."""
        from mlr_rag_chroma.rows import columns

        return columns(batch, {})

    def add(self, prepared: dict[str, Any]) -> None:
        """See System."""
        self._collection.upsert(**prepared)

    def search(self, vector: Vector, filtered: bool) -> list[str]:
        """See System."""
        found = self._collection.query(
            query_embeddings=[vector],
            n_results=K,
            where=self._condition if filtered else None,
            include=["documents", "metadatas", "distances"],
        )
        ids: Sequence[str] = found["ids"][0]
        return list(ids)


def _uuid(document: Document) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, document.id))


def _payload(document: Document) -> dict[str, Any]:
    """What anyone would store."""
    return {"id": document.id, "text": document.text, "metadata": json.dumps(document.metadata)}


def _derived(document: Document) -> dict[str, Any]:
    """What ours stores besides in Qdrant and its embedded engine."""
    return {
        "hash": document.content_hash,
        "tokens": tokens(document.metadata),
        "numbers": numbers(document.metadata),
    }
