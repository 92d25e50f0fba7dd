"""One training run of a copy of the model, which can be killed and resumed."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers.base.evaluation import BaseEvaluator

from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.specializing.precision import HalfPrecision
from mlr_rag.training.lists import TrainingList, check_lists
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.objectives import Objective
from mlr_rag.training.trainer.arguments import MLRTrainingArguments, has_bfloat16
from mlr_rag.training.trainer.trainer import MLRTrainer, TrainingResult


class DevEvaluator(BaseEvaluator):
    """nDCG@10 of the dev queries, in half precision, of each model once.

    Args:
        evaluator: What measures.
    """

    greater_is_better = True

    def __init__(self, evaluator: RetrievalEvaluator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._evaluator, self._known = evaluator, dict[str, float]()
        self.primary_metric: str = str(evaluator.primary_metric)
        self.fingerprint = f"{evaluator.fingerprint} half precision"
        self.name = evaluator.name

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """The metric, by its name."""
        return {self.primary_metric: self.measure(model)}

    def measure(self, model: Any) -> float:
        """nDCG@10."""
        key = model.fingerprint
        if key not in self._known:
            self._known[key] = self._evaluator(HalfPrecision(model))[self.primary_metric]
        return self._known[key]


@dataclass(frozen=True)
class Pace:
    """How a run goes about it.

    Attributes:
        steps: Optimizer steps.
        evaluations: How often the dev queries choose a checkpoint.
        batch: Lists in a step.
        rate: The highest learning rate.
        seed: Of the order of the lists.
    """

    steps: int
    evaluations: int
    batch: int
    rate: float
    seed: int


def train(
    base: Any, lists: Sequence[TrainingList], objective: Objective, pace: Pace, evaluator: DevEvaluator, folder: Path
) -> tuple[Any, TrainingResult, float]:
    """Train a copy of the model, in half precision where the processor has it; run again, it goes on or only loads.

    Args:
        base: The model; it stays as it is.
        lists: What to learn from; those that the objective can do nothing with are left out.
        objective: What is to become small.
        pace: How long, how fast.
        evaluator: Chooses the checkpoint; the base is the first of them.
        folder: For the checkpoints.

    Returns:
        The model with its best weights, what the trainer says, and the seconds that it took now.

    Raises:
        InvalidInputError: no list is left.
        TrainingError: the run diverged.
    """
    started = time.perf_counter()
    model = copy.deepcopy(base)
    usable, _ = check_lists(lists, objective.needs_positives, objective.needs_teacher)
    args = MLRTrainingArguments(
        str(folder),
        max_steps=pace.steps,
        per_device_train_batch_size=pace.batch,
        learning_rate=pace.rate,
        save_strategy="steps",
        save_steps=math.ceil(pace.steps / pace.evaluations),
        save_total_limit=1,
        logging_steps=max(1, pace.steps // 20),
        bf16=has_bfloat16(model.device.type),
        seed=pace.seed,
    )
    loss = ListLoss(model, objective)
    result = MLRTrainer(model, usable, loss, args, evaluator).train()
    return model, result, time.perf_counter() - started
