"""What the trainer does beside its steps: candidate zero, stopping early, a look at the gradients, progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from mlr_rag import progress
from mlr_rag.errors import TrainingError

if TYPE_CHECKING:
    from mlr_rag.training.trainer.trainer import MLRTrainer


DIVERGED = "Lower learning_rate, or raise the objective's temperature; the checkpoints are kept."


class Checkpoints(TrainerCallback):
    """Evaluates and saves the model before the first step, so that training has to beat it; logs before each save."""

    def __init__(self, trainer: MLRTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See TrainerCallback."""
        if not self._trainer.resumed:
            self._trainer.save_start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See TrainerCallback."""
        control.should_log |= control.should_save  # the mean loss since the last log would be lost with a kill

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See TrainerCallback."""
        control.should_log |= control.should_save


class EarlyStopping(TrainerCallback):
    """Ends training after so many evaluations without a new best."""

    def __init__(self, patience: int, metric: str) -> None:
        self._patience, self._metric = patience, metric

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See TrainerCallback."""
        control.should_training_stop |= is_spent(state.log_history, self._patience, self._metric)


def is_spent(history: Sequence[dict[str, Any]], patience: int, metric: str) -> bool:
    """Whether the last `patience` evaluations brought no new best; told from the log, so that it survives a kill."""
    values = [entry[metric] for entry in history if metric in entry]
    return bool(values) and len(values) - 1 - values.index(max(values)) >= patience


class FiniteGradients(TrainerCallback):
    """Stops before a gradient that is no number spoils the weights: a finite loss may have one."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """See TrainerCallback."""
        if args.fp16:  # whose scaler skips such steps
            return
        gradients = [parameter.grad for parameter in _trained(optimizer) if parameter.grad is not None]
        _check_norm(gradients, f"the gradient of step {state.global_step + 1:,} is no number")


class FiniteWeights(TrainerCallback):
    """Stops before weights that are no numbers are saved: a finite gradient may make such."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """See TrainerCallback."""
        _check_norm(list(_trained(optimizer)), f"the weights after step {state.global_step + 1:,} are no numbers")


def _trained(optimizer: Any) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def _check_norm(tensors: list[Tensor], problem: str) -> None:
    norm = torch.nn.utils.get_total_norm([tensor.detach() for tensor in tensors])
    if not norm.isfinite():
        raise TrainingError(problem, found=float(norm), expected="a finite norm", remedy=DIVERGED)


class ProgressBar(TrainerCallback):
    """Shows the steps through `mlr_rag.progress`."""

    _bar: progress.Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See TrainerCallback."""
        self._bar = progress.start("Training", state.max_steps, None)
        self._bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See TrainerCallback."""
        if self._bar is not None:
            self._bar.update(1)

    def close(self) -> None:
        """Training ended, in whatever way."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
