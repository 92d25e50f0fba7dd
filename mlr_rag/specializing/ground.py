"""What everything after the split stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlr_rag.specializing.split import Split

Origin = Literal["people", "model", "rules"]


@dataclass(frozen=True)
class Ground:
    """What everything after the split stands on.

    Attributes:
        base: The model to specialize.
        corpus: Document id → text.
        split: Train, dev and test queries.
        origin: Who asked the queries: "people"; a "model", or "rules" that took them out of the documents.
        bare: The queries that are but words of their document (see make_queries).
        passages: Query id → what stands for its relevant document in training (see make_entries).
        key: Hash of all of it.
    """

    base: Any
    corpus: Mapping[str, str]
    split: Split
    origin: Origin
    bare: frozenset[str]
    passages: Mapping[str, str]
    key: str

    @property
    def generated(self) -> bool:
        """Whether the queries were made of the documents."""
        return self.origin != "people"
