"""What a collection of ours says of itself, in its metadata on the server; what says nothing is somebody else's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from mlr_rag.errors import StoreCorruptError
from mlr_rag.stores import Info

FORMAT = 1
SHAPE, INFO, DROPPED = "mlr_rag", "mlr_rag_info", "mlr_rag_dropped"  # keys; a server merges them, one by one


@dataclass(frozen=True)
class Description:
    """The shape of a generation, and what was said of it.

    Attributes:
        dimension: Length of the vectors.
        vectors_per_document: How many each document has.
        tenants: Whether several tenants share it.
        info: What `write_info` wrote.
        dropped: Whether it is being deleted: it counts as gone, and whoever meets it finishes that.
        indexed: The payload fields that have an index.
    """

    dimension: int
    vectors_per_document: int
    tenants: bool
    info: Info | None = None
    dropped: bool = False
    indexed: frozenset[str] = frozenset()

    def metadata(self) -> dict[str, Any]:
        """What to create the collection with."""
        shape = {"format": FORMAT, "dimension": self.dimension, "vectors_per_document": self.vectors_per_document}
        return {SHAPE: json.dumps(shape | {"tenants": self.tenants})}

    def vectors(self, on_disk: bool | None) -> models.VectorParams:
        """The vectors to create the collection with."""
        several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        return models.VectorParams(
            size=self.dimension,
            distance=models.Distance.DOT,
            multivector_config=several if self.vectors_per_document > 1 else None,
            on_disk=on_disk,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Dimension, and vectors per document."""
        return self.dimension, self.vectors_per_document


def describe(name: str, found: models.CollectionInfo) -> Description | None:
    """What a collection says of itself, or None where it is somebody else's.

    Raises:
        StoreCorruptError: it is ours, and not what it says.
    """
    metadata = found.config.metadata or {}
    if SHAPE not in metadata:
        return None
    try:
        shape = json.loads(metadata[SHAPE])
        if shape["format"] != FORMAT:
            raise ValueError(f"format {shape['format']}")
        described = Description(
            int(shape["dimension"]),
            int(shape["vectors_per_document"]),
            bool(shape["tenants"]),
            json.loads(metadata[INFO]) if INFO in metadata else None,
            DROPPED in metadata,
            frozenset(found.payload_schema),
        )
    except (ValueError, KeyError, TypeError) as problem:
        raise StoreCorruptError(
            f"the description of collection {name} cannot be used",
            found=f"{type(problem).__name__} {problem}",
            expected=f"format {FORMAT}",
            remedy="Use the version of mlr_rag that made it, or delete it and index again.",
        ) from problem
    _check_vectors(name, found.config.params.vectors, described.vectors(None))
    return described


def _check_vectors(name: str, found: Any, expected: models.VectorParams) -> None:
    """Refuse vectors that would be compared in another way than by their dot product."""
    facts = [
        (params.size, params.distance, params.multivector_config) if isinstance(params, models.VectorParams) else params
        for params in (found, expected)
    ]
    if facts[0] != facts[1]:
        raise StoreCorruptError(
            f"collection {name} holds other vectors than its description says",
            found=str(facts[0]),
            expected=str(facts[1]),
            remedy="Delete it and index again.",
        )
