"""What everything after the split stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlr_rag.specializing.split import Split


@dataclass(frozen=True)
class Ground:
    """What everything after the split stands on.

    Attributes:
        base: The model to specialize.
        corpus: Document id → text.
        split: Train, dev and test queries.
        generated: Whether the queries were made of the documents.
        passages: Query id → what stands for its relevant document in training (see make_entries).
        key: Hash of all of it.
    """

    base: Any
    corpus: Mapping[str, str]
    split: Split
    generated: bool
    passages: Mapping[str, str]
    key: str
