"""What a collection on a server can be told; a local one has no use for it and leaves it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from qdrant_client import models

from mlr_rag.errors import InvalidInputError
from mlr_rag_qdrant.conditions import TENANT, TOKENS, number_field


@dataclass(frozen=True)
class QdrantOptions:
    """How a collection is made, indexed and searched on a server.

    Attributes:
        shard_number: Into how many parts the collection is cut, to spread over a cluster.
        replication_factor: How many nodes keep each part.
        write_consistency_factor: How many of them must have a write before it is acknowledged.
        on_disk: Keep the vectors on disk, not in memory.
        quantization: Search smaller copies of the vectors: `scalar` (a byte a number) or `binary` (a bit).
        rescore: Score what the smaller copies found by the whole vectors.
        oversampling: How many times k to find in the smaller copies before that.
        tenant: Whose records this handle reads and writes, of a collection that several tenants share.
        indexed_fields: Metadata fields with an index for `$gt`, `$gte`, `$lt` and `$lte`; equality always has one.
    """

    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    on_disk: bool | None = None
    quantization: Literal["scalar", "binary"] | None = None
    rescore: bool = True
    oversampling: float = 2.0
    tenant: str | None = None
    indexed_fields: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("shard_number", "replication_factor", "write_consistency_factor"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InvalidInputError(f"not a {name}", found=value, expected="an int of 1 or more")
        if self.quantization not in (None, "scalar", "binary"):
            raise InvalidInputError("not a quantization", found=self.quantization, expected="'scalar' or 'binary'")
        if not self.oversampling >= 1:
            raise InvalidInputError("not an oversampling", found=self.oversampling, expected="1 or more")
        if self.tenant is not None and (not isinstance(self.tenant, str) or not self.tenant):
            raise InvalidInputError("not a tenant", found=self.tenant, expected="a name")
        if isinstance(self.indexed_fields, str):
            raise InvalidInputError("not a list of fields", found=self.indexed_fields, expected="such as ('year',)")

    @classmethod
    def of(cls, given: dict[str, Any]) -> QdrantOptions:
        """Options by name.

        Raises:
            InvalidInputError: one of them is unknown, or has an impossible value.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(given.keys() - set(names))
        if unknown:
            raise InvalidInputError("not an option of QdrantStore", found=unknown[0], expected=", ".join(names))
        return cls(**given)

    def creation(self) -> dict[str, Any]:
        """Arguments of `create_collection`."""
        # Tenants never search each other's records, so one graph over all of them would only cost.
        graph = None if self.tenant is None else models.HnswConfigDiff(m=0, payload_m=16)
        return {
            "shard_number": self.shard_number,
            "replication_factor": self.replication_factor,
            "write_consistency_factor": self.write_consistency_factor,
            "hnsw_config": graph,
            "quantization_config": self._quantization(),
        }

    def indexes(self) -> dict[str, Any]:
        """The payload fields that need an index, and of which kind."""
        kinds: dict[str, Any] = {TOKENS: models.PayloadSchemaType.KEYWORD}
        kinds |= {number_field(key): models.PayloadSchemaType.FLOAT for key in self.indexed_fields}
        if self.tenant is not None:
            kinds[TENANT] = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        return kinds

    def search(self) -> models.SearchParams | None:
        """The parameters of a search, or None for the server's own."""
        if self.quantization is None:
            return None
        return models.SearchParams(
            quantization=models.QuantizationSearchParams(rescore=self.rescore, oversampling=self.oversampling)
        )

    def _quantization(self) -> models.QuantizationConfig | None:
        if self.quantization == "scalar":
            config = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            return models.ScalarQuantization(scalar=config)
        if self.quantization == "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        return None
