"""A tiny task for trainers: which sentence names the thing that the query asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.trainer.arguments import MLRTrainingArguments

THINGS = "river stone bridge kitchen stove kettle capital water road file".split()


def lists() -> list[TrainingList]:
    """40 lists of two or three passages, of different lengths, with scores and labels."""
    made = []
    for place, thing in enumerate(THINGS):
        for number in range(4):
            others = [f"a {THINGS[(place + step) % 10]} by the line" for step in (3, 5)[: 1 + number % 2]]
            right = f"the {thing} is old " + "part " * number
            labels = (1.0, *(0.0 for _ in others))
            made.append(
                TrainingList(f"what {thing} is it {number}", (right, *others), (3.0, 1.0, 0.5)[: len(labels)], labels)
            )
    return made


def evaluator() -> RetrievalEvaluator:
    """Ten queries over thirty documents."""
    corpus = {f"d{i}": f"the {THINGS[i // 3]} is old {'part ' * (i % 3)}" for i in range(30)}
    queries = {f"q{i}": f"what {thing} is it" for i, thing in enumerate(THINGS)}
    return RetrievalEvaluator(queries, {f"q{i}": {f"d{3 * i + n}": 1 for n in range(3)} for i in range(10)}, corpus)


def arguments(folder: Path, **changes: Any) -> MLRTrainingArguments:
    """Fifteen steps, in three epochs."""
    settings: dict[str, Any] = {"learning_rate": 1e-3, "num_train_epochs": 3, "per_device_train_batch_size": 8}
    return MLRTrainingArguments(str(folder), **{**settings, **changes})


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums do not depend on how many processors are free."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
