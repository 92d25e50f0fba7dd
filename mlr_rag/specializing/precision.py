"""Half precision where the processor computes in it: two to three times as fast, and the rankings stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mlr_rag.encoders import Vectors, vectors_per_document
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.teachers.scores import Pair, Scores
from mlr_rag.training.trainer.arguments import has_bfloat16


@contextmanager
def half_precision(device: str, wanted: bool = True) -> Iterator[None]:
    """Let models compute in bfloat16, if the device has it."""
    with torch.autocast(device, torch.bfloat16, enabled=wanted and has_bfloat16(device)):
        yield


class HalfPrecision:
    """An encoder that computes in bfloat16; its fingerprint says so, as its vectors are not quite the model's own.

    Args:
        model: An Encoder.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.dimension: int = model.dimension
        self.vectors_per_document: int = vectors_per_document(model)
        self.max_seq_length = getattr(model, "max_seq_length", None)

    @property
    def fingerprint(self) -> str:
        """The model's, and the precision."""
        return self._told(self.model.fingerprint)

    @property
    def document_fingerprint(self) -> str:
        """See MLRModel."""
        return self._told(getattr(self.model, "document_fingerprint", self.model.fingerprint))

    def _told(self, fingerprint: str) -> str:
        return f"{fingerprint} bfloat16" if has_bfloat16(self._device) else fingerprint

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        with half_precision(self._device):
            vectors: Vectors = self.model.encode_query(list(texts))
        return vectors

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        with half_precision(self._device):
            vectors: Vectors = self.model.encode_document(list(texts))
        return vectors

    @property
    def _device(self) -> str:
        return str(getattr(self.model, "device", "cpu")).partition(":")[0]


class HalfPrecisionVectors(VectorCache):
    """A cache whose models compute in bfloat16."""

    def encode(self, encoder: Any, texts: Sequence[str], task: str, show_progress: bool | None = None) -> Vectors:
        """See VectorCache."""
        half = encoder if isinstance(encoder, HalfPrecision) else HalfPrecision(encoder)
        return super().encode(half, texts, task, show_progress)


class HalfPrecisionTeacher:
    """A teacher that computes in bfloat16."""

    def __init__(self, teacher: Any, device: str = "cpu") -> None:
        self.teacher, self._device = teacher, device
        self.name = str(getattr(teacher, "name", "") or type(teacher).__name__)
        self.truncation: str = teacher.truncation
        self.batch = int(getattr(teacher, "batch", 256))
        self.skip_failures = bool(getattr(teacher, "skip_failures", False))

    @property
    def fingerprint(self) -> str:
        """The teacher's, and the precision."""
        known = self.teacher.fingerprint
        return f"{known} bfloat16" if known and has_bfloat16(self._device) else str(known)

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """See Teacher."""
        with half_precision(self._device):
            scores: Scores = self.teacher.score(pairs)
        return scores
