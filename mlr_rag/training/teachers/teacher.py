"""What says how relevant a passage is to a query: the Teacher protocol, means and functions as teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mlr_rag.encoders import as_encoder
from mlr_rag.errors import InvalidInputError
from mlr_rag.model.names import resolve
from mlr_rag.training.cache import open_cache
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.teachers.scores import Pair, ScoreCache, Scores


class Teacher(Protocol):
    """What scores pairs of a query and a passage.

    Optional: `batch`, how many pairs it is best asked for at once, which is also what a kill may lose (256);
    `name`, for reports; `skip_failures`, whether NaN stands for a pair that it cannot score, else it is an error.
    """

    @property
    def fingerprint(self) -> str:
        """Equal only where the scores are equal; "" where that cannot be told."""

    @property
    def truncation(self) -> str:
        """What it reads of a text, such as "512 tokens"."""

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """Relevance of each passage to its query, `(n,)` float64, higher is better."""


class MeanTeacher:
    """The mean of several teachers' scores, each brought to mean 0 and deviation 1 over the pairs of `fit`.

    Logits and cosines have no common scale, so it refuses to score before `fit`; what `fit` found is part of its
    fingerprint.

    Args:
        teachers: Two or more, or whatever `as_teacher` takes.
        cache: Keeps the members' scores, so that those of `fit` are not asked for again.
    """

    def __init__(self, teachers: Sequence[Any], cache: ScoreCache | str | Path | None = None) -> None:
        self.teachers = [as_teacher(each) for each in teachers]
        if len(self.teachers) < 2:
            raise InvalidInputError("a mean of teachers needs several", found=len(self.teachers), expected="2 or more")
        self.skip_failures = any(getattr(each, "skip_failures", False) for each in self.teachers)
        self._cache = open_cache(ScoreCache, cache)
        self._scales: list[tuple[float, float]] = []

    def fit(self, pairs: Sequence[Pair]) -> MeanTeacher:
        """Find each teacher's mean and deviation over these pairs; gives itself.

        Raises:
            InvalidInputError: a teacher gives all of them one score.
        """
        scales = []
        for teacher in self.teachers:
            scores = self._cache.score(teacher, pairs)
            scores = scores[np.isfinite(scores)]
            if len(scores) < 2 or not scores.std() > 0:
                raise InvalidInputError(
                    f"{type(teacher).__name__} tells none of the pairs from the others",
                    found=f"{len(scores):,} scores, all equal",
                    expected="pairs that differ",
                )
            scales.append((float(scores.mean()), float(scores.std())))
        self._scales = scales
        return self

    @property
    def fingerprint(self) -> str:
        """See Teacher."""
        members = zip(self.teachers, self._fitted(), strict=True)
        return "mean " + "; ".join(f"{each.fingerprint} {each.truncation} {scale}" for each, scale in members)

    @property
    def truncation(self) -> str:
        """See Teacher."""
        return "; ".join(each.truncation for each in self.teachers)

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """See Teacher."""
        members = zip(self.teachers, self._fitted(), strict=True)
        rows = [(self._cache.score(each, pairs) - mean) / deviation for each, (mean, deviation) in members]
        scores: Scores = np.mean(rows, axis=0)
        return scores

    def _fitted(self) -> list[tuple[float, float]]:
        if not self._scales:
            raise InvalidInputError(
                "the mean of teachers does not know their scales", remedy="Call fit(pairs) first, with typical pairs."
            )
        return self._scales


class CallableTeacher:
    """A function of pairs.

    Args:
        function: From a list of (query, passage) to as many numbers.
        fingerprint: A name that you change whenever the function's scores change.
        truncation: What it reads of a text.
    """

    def __init__(self, function: Callable[[Sequence[Pair]], Any], fingerprint: str, truncation: str = "none") -> None:
        if not fingerprint:
            raise InvalidInputError(
                "a function has no fingerprint of its own",
                found=f"{getattr(function, '__name__', type(function).__name__)}",
                expected="a name that changes whenever its scores do",
                remedy='Use CallableTeacher(function, fingerprint="my-scores-1").',
            )
        self.function, self.fingerprint, self.truncation = function, fingerprint, truncation
        self.name = fingerprint

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """See Teacher."""
        return np.asarray(self.function(pairs), np.float64)


def scored(
    source: Any, pairs: Sequence[Pair], cache: ScoreCache | str | Path | None, show_progress: bool | None = None
) -> Scores:
    """The scores, `(n,)`, of whatever `as_teacher` takes; of a list of teachers their mean, fit on the pairs."""
    known = open_cache(ScoreCache, cache)
    if isinstance(source, (list, tuple)) and pairs:
        source = MeanTeacher(source, known).fit(pairs)
    return known.score(as_teacher(source), pairs, show_progress=show_progress) if pairs else np.empty(0)


def as_teacher(source: Any, fingerprint: str = "", vectors: VectorCache | str | Path | None = None) -> Teacher:
    """The Teacher that something is, or can be.

    Args:
        source: A Teacher; the name or folder of a cross-encoder or an embedding model; a CrossEncoder; whatever
            `as_encoder` takes; an LLM of LangChain or LlamaIndex; a list of these (see MeanTeacher); a function of
            pairs.
        fingerprint: Of what has none of its own (a function, embeddings, an LLM): a name that you change whenever the
            scores change.
        vectors: Where an embedding model's vectors are kept, if it has a fingerprint of its own.

    Raises:
        InvalidInputError: it is none of these, or lacks a fingerprint.
    """
    from mlr_rag.training.teachers.judges import LLMJudge
    from mlr_rag.training.teachers.models import BiEncoderTeacher, CrossEncoderTeacher, is_cross_encoder

    if isinstance(source, (str, Path)):
        return CrossEncoderTeacher(source) if is_cross_encoder(resolve(source)) else BiEncoderTeacher(source, vectors)
    if isinstance(source, (list, tuple)):
        return MeanTeacher([as_teacher(each, vectors=vectors) for each in source])
    if hasattr(source, "truncation") and hasattr(source, "score"):
        teacher: Teacher = source
        return teacher
    if hasattr(source, "predict") and hasattr(source, "num_labels"):
        return CrossEncoderTeacher(source)
    if hasattr(source, "encode_query") or hasattr(source, "embed_query") or hasattr(source, "_get_query_embedding"):
        encoder = as_encoder(source)
        return BiEncoderTeacher(encoder, vectors if encoder.fingerprint else None, fingerprint)
    if hasattr(source, "invoke"):
        return LLMJudge.langchain(source, name=fingerprint)
    if hasattr(source, "complete") and hasattr(source, "metadata"):
        return LLMJudge.llama_index(source, name=fingerprint)
    if callable(source):
        return CallableTeacher(source, fingerprint)
    raise InvalidInputError(
        "not a teacher",
        found=f"{type(source).__name__} {source!r:.80}",
        expected="a name or folder, a CrossEncoder, an embedding model, an LLM, a function, or a list of these",
    )
