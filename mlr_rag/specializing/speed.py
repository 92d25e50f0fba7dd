"""How fast this machine is with this model: a timed probe, from which a budget is planned."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlr_rag.specializing.precision import HalfPrecision, half_precision
from mlr_rag.training.collator import ListCollator
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.objectives import InfoNCE
from mlr_rag.training.teachers.scores import Pair, ScoreCache
from mlr_rag.training.teachers.teacher import Teacher
from mlr_rag.training.trainer.arguments import has_bfloat16
from mlr_rag.training.trainer.attention import plain_attention

_TEXTS, _LISTS, _LENGTH = 96, 16, 3
_QUERIES, _DOCUMENTS, _TIMES = 64, 4096, 3
_ATTEMPTS = 20  # to draw pairs of which a teacher's scores are not known yet
_ASKED, _READ, _SHARED = 8, 48, 8  # queries, and documents of which a teacher scores one pair, and a pair with each


@dataclass(frozen=True)
class Speed:
    """Texts a second, from a few batches of the corpus's own.

    Attributes:
        encode: Documents that are encoded.
        ask: Queries that are encoded.
        train: Passages that training goes through; its queries and the optimizer's work are in it.
        products: Pairs of a query's and a document's vector that training a query adapter goes through.
    """

    encode: float
    ask: float
    train: float
    products: float


@dataclass(frozen=True)
class TeacherSpeed:
    """Seconds that a teacher takes: an embedder for documents, and a cross-encoder for pairs.

    Attributes:
        document: For each document that it reads, once.
        pair: For each pair beside.
    """

    document: float
    pair: float

    def seconds(self, pairs: int, documents: int) -> float:
        """How long it takes to score so many pairs of so many documents."""
        return documents * self.document + pairs * self.pair


def measure_speed(base: Any, corpus: Mapping[str, str], queries: Sequence[str]) -> Speed:
    """Encode some documents, and train a copy of the model for a few steps, which is thrown away.

    Args:
        base: The model; it stays as it is.
        corpus: Document id → text, two distinct ones or more.
        queries: One or more.
    """
    draw = random.Random(0)  # noqa: S311
    texts = sorted(set(corpus.values()))
    texts = draw.sample(texts, min(_TEXTS, len(texts)))
    encoder = HalfPrecision(base)
    encoder.encode_document(texts[:8])  # the first batch makes the kernels ready
    started = time.perf_counter()
    encoder.encode_document(texts)
    encode = len(texts) / (time.perf_counter() - started)
    asked = draw.sample(queries, min(_TEXTS, len(queries)))
    started = time.perf_counter()
    encoder.encode_query(asked)
    ask = len(asked) / (time.perf_counter() - started)

    length = min(_LENGTH, len(texts))
    labels = (1.0, *[0.0] * (length - 1))
    made = (TrainingList(draw.choice(queries), tuple(draw.sample(texts, length)), labels=labels) for _ in range(_LISTS))
    lists = list(made)
    passages = len({text for each in lists for text in each.passages})
    return Speed(encode, ask, passages / measure_step(base, lists), _products(base.dimension))


def measure_step(base: Any, lists: Sequence[TrainingList]) -> float:
    """Seconds that a step of training takes, with a copy of the model that is thrown away.

    Args:
        base: The model; it stays as it is.
        lists: With a positive, one or more: the step's. It is done three times, and the first is not counted.
    """
    model = copy.deepcopy(base)
    loss, optimizer = ListLoss(model, InfoNCE()), torch.optim.AdamW(model.parameters())
    half, collator, seconds = has_bfloat16(model.device.type), ListCollator(model), []
    for _ in range(_TIMES):
        started = time.perf_counter()
        batch = collator(list(lists))
        with half_precision(model.device.type), plain_attention(model, half):
            parts = loss([_column(batch, name, model.device) for name in ("query", "passage")], _label(batch, model))
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return sum(seconds[1:]) / len(seconds[1:])


def measure_teacher(
    teacher: Teacher, corpus: Mapping[str, str], queries: Sequence[str], cache: ScoreCache, seed: int = 0
) -> TeacherSpeed:
    """Have a teacher score pairs of some documents with a query each, and of others with several.

    Args:
        teacher: What scores.
        corpus: Document id → text.
        queries: One or more.
        cache: Knows what it was asked for, of which others are drawn, and keeps what it is asked for now.
        seed: Of the choice of pairs.
    """
    texts = sorted(set(corpus.values()))
    for attempt in range(_ATTEMPTS):
        draw = random.Random(f"{seed} {attempt}")  # noqa: S311
        drawn = draw.sample(texts, min(_READ + _SHARED, len(texts)))
        asked = draw.sample(queries, min(_ASKED, len(queries)))
        shared = drawn[: min(_SHARED, len(drawn) // 2)]
        each = [(asked[number % len(asked)], text) for number, text in enumerate(drawn[len(shared) :])]
        crossed = [(query, text) for query in asked for text in shared]
        if not cache.known(teacher, each + crossed).any():
            break

    def seconds(pairs: list[Pair]) -> float:
        started = time.perf_counter()
        cache.score(teacher, pairs, show_progress=False)
        return time.perf_counter() - started

    of_each, of_crossed = seconds(each), seconds(crossed)
    beside = len(crossed) - len(shared)  # pairs whose documents are read for others
    pair = max(0.0, of_crossed - of_each * len(shared) / len(each)) / beside if beside else 0.0
    return TeacherSpeed(max(0.0, of_each / len(each) - pair), pair)


def _products(dimension: int) -> float:
    documents, seconds = torch.randn(_DOCUMENTS, dimension), []
    for _ in range(_TIMES):
        queries = torch.randn(_QUERIES, dimension, requires_grad=True)
        started = time.perf_counter()
        (queries @ documents.T).logsumexp(1).sum().backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - started)
    return _QUERIES * _DOCUMENTS / min(seconds)


def _column(batch: dict[str, Any], name: str, device: torch.device) -> dict[str, Any]:
    features = {key.removeprefix(f"{name}_"): value for key, value in batch.items() if key.startswith(f"{name}_")}
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in features.items()}


def _label(batch: dict[str, Any], model: Any) -> dict[str, Any]:
    label: dict[str, Any] = batch["label"]
    return {key: value.to(model.device) if isinstance(value, torch.Tensor) else value for key, value in label.items()}
