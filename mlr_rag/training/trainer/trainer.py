"""MLRTrainer: sentence-transformers' trainer for lists, with runs that can be killed and a best model that is one."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import nn
from transformers import TrainerCallback, TrainerState, set_seed
from transformers.trainer_utils import IntervalStrategy
from transformers.utils import logging as hf_logging

from mlr_rag.errors import InvalidInputError, TrainingError
from mlr_rag.folders import lock_folder
from mlr_rag.model.model import MLRModel
from mlr_rag.training.collator import ListCollator
from mlr_rag.training.lists import TrainingList, beginning, check_lists, to_dataset
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.sampler import LengthBucketSampler
from mlr_rag.training.trainer.arguments import MLRTrainingArguments
from mlr_rag.training.trainer.attention import plain_attention
from mlr_rag.training.trainer.callbacks import (
    DIVERGED,
    Checkpoints,
    EarlyStopping,
    FiniteGradients,
    FiniteWeights,
    ProgressBar,
    is_spent,
)
from mlr_rag.training.trainer.checkpoints import RunFolder
from mlr_rag.training.trainer.lora import has_lora, merge_lora
from mlr_rag.training.trainer.run_identity import run_parts
from mlr_rag.training.trainer.staging import StagedCheckpoints
from mlr_rag.training.trainer.weights import load_weights, save_weights

_STATE = "trainer_state.json"
_TOLERANCE = 1e-6  # of a metric that is measured twice on one machine


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        steps: Steps that were trained.
        best_step: The step after which the model's weights are those that it now has; 0 is the model as it came.
        metric: What the best model was chosen by, such as "dev_ndcg@10"; "" without an evaluator.
        start: Its value before training; None without an evaluator.
        best: Its value now.
        stopped_early: Whether patience ended the run.
        history: Everything that was logged, in order: losses, and metrics, each with its "step".
    """

    steps: int
    best_step: int
    metric: str
    start: float | None
    best: float | None
    stopped_early: bool
    history: tuple[dict[str, Any], ...]

    @property
    def improved(self) -> bool:
        """Whether an evaluator found the model better than it was."""
        return self.best is not None and self.start is not None and self.best > self.start


class MLRTrainer(StagedCheckpoints, SentenceTransformerTrainer):
    """Trains an MLRModel on lists, in place, by sentence-transformers' trainer.

    Queries and passages get the tasks and prompts that `encode_query` and `encode_document` give them. What is
    trained is what has `requires_grad`. No file that it writes holds a text of the lists or of the evaluator.

    Args:
        model: The model. A run that is resumed must be given it as it was at the start.
        lists: What to learn from, one or more: TrainingLists, or dicts with their attributes. All must be such as the
            objective can learn from: `check_lists` leaves out the others.
        objective: What is to become small (mlr_rag.training.objectives), or a ready `ListLoss` of this model;
            `default_objective()` by default.
        args: Where, how long, how fast. Without them checkpoints go to a temporary folder.
        evaluator: Chooses the best checkpoint; the model before training is one of the candidates. Without an
            evaluator the last one is taken.
        callbacks: More of transformers' callbacks.

    Raises:
        InvalidInputError: something does not fit; nothing was changed.
    """

    training_args_class = MLRTrainingArguments

    def __init__(
        self,
        model: MLRModel,
        lists: Sequence[TrainingList | dict[str, Any]],
        objective: nn.Module | None = None,
        args: MLRTrainingArguments | None = None,
        evaluator: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        if not isinstance(model, MLRModel):
            raise InvalidInputError(
                "not a model to train",
                found=type(model).__name__,
                expected="an MLRModel",
                remedy="Make one with MLRModel.from_pretrained(name, folder or SentenceTransformer).",
            )
        if args is not None and not isinstance(args, MLRTrainingArguments):
            raise InvalidInputError("not arguments", found=type(args).__name__, expected="MLRTrainingArguments")
        loss = objective if isinstance(objective, ListLoss) else ListLoss(model, objective)
        self._model, self._loss, self._evaluator = model, loss, evaluator
        if loss.model is not model:
            raise InvalidInputError("the loss is of another model", remedy="Make it of the model that is trained.")
        if not any(parameter.requires_grad for parameter in loss.parameters()):
            raise InvalidInputError("nothing to train", found="no parameter with requires_grad", expected="some")
        usable = _usable(lists, loss.objective)
        if args is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="mlr-rag-training-")
            args = MLRTrainingArguments(self._temporary.name)
        if args.gradient_checkpointing and not loss.dropout:
            raise InvalidInputError(
                "gradient_checkpointing is for training mode only, which has dropout",
                found="dropout=False",
                expected="ListLoss(model, objective, dropout=True)",
                remedy="Or leave checkpointing off: the gradient cache bounds the activations.",
            )
        settings, limit = args.settings(), args.save_total_limit
        self._metric = "" if evaluator is None else f"eval_{_metric(evaluator, args)}"
        patience = args.early_stopping_patience
        stopping = [EarlyStopping(patience, self._metric)] if self._metric and patience else []
        self._bar = ProgressBar()
        super().__init__(
            model=model,
            args=_with_evaluator(args, self._metric),
            train_dataset=to_dataset(usable),
            loss=loss,
            evaluator=evaluator,
            data_collator=ListCollator(model),  # type: ignore[arg-type]
            callbacks=[Checkpoints(self), *stopping, FiniteGradients(), FiniteWeights(), self._bar, *callbacks],
        )
        self.remove_bars()
        self.resumed = False
        self.limit, self._patience = limit, patience
        self.folder = RunFolder(str(args.output_dir), run_parts(model, usable, loss, settings, evaluator))

    def train(self, resume: bool = True) -> TrainingResult:  # type: ignore[override]
        """Train to the end, or go on from the last complete checkpoint of this run; a run at its end is only loaded.

        The model then has the weights of the best checkpoint, which is evaluated again to be sure, without LoRA, and
        is in evaluation mode.

        Args:
            resume: False deletes the run that is in `output_dir` and begins anew.

        Raises:
            InvalidInputError: `output_dir` holds another run, or a collator was set that stamps no tasks.
            TrainingError: scores, a loss, a gradient or weights are no numbers, or the best checkpoint is not what it
                was; the checkpoints are kept.
            StoreLockedError: another process trains there.
        """
        self._check_tasks()
        lock = lock_folder(self.folder.path, ".lock", "Wait until it is done, or use another output_dir.")
        bars = hf_logging.is_progress_bar_enabled()
        hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # each checkpoint would show one
        try:
            self.folder.claim(resume)
            known = self.folder.result()
            if known is None:
                self._run()
                result = self._outcome()
                self.folder.finish(asdict(result))
            else:
                self._load_from_checkpoint(self.folder.checkpoint(known["best_step"]))
                if self._metric and not hasattr(self._evaluator, "fingerprint"):  # it may be another than it was
                    self._check_best(known["best_step"], known["best"])
                result = TrainingResult(**{**known, "history": tuple(known["history"])})
            if has_lora(self._model):
                merge_lora(self._model)
            return result
        finally:
            lock.release()
            self._bar.close()
            if bars:
                hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
            self.is_in_train = False
            _unpatch(self._model)
            self._model.eval()

    def _run(self) -> None:
        """All steps that are still to be done, and the best weights."""
        steps = self.folder.steps()
        self.resumed = bool(steps)
        set_seed(self.args.seed)
        if not steps:
            self._check_start()
            super().train()
            return
        last = self.folder.checkpoint(steps[-1])
        state = TrainerState.load_from_json(str(last / _STATE))
        ended = state.global_step >= state.max_steps  # transformers would take one step more
        if self._patience and self._metric:
            ended |= is_spent(state.log_history, self._patience, self._metric)
        if not ended:
            super().train(resume_from_checkpoint=str(last))
            return
        self.state = state  # killed between the checkpoint that ended it and its result
        if self._metric:
            self._load_best_model()
        else:
            self._load_from_checkpoint(last)

    def _outcome(self) -> TrainingResult:
        state = self.state
        history = tuple(_shown(entry) for entry in state.log_history if "train_loss" not in entry)
        metric = self._metric.removeprefix("eval_")
        values = [entry[metric] for entry in history if metric in entry]
        return TrainingResult(
            steps=state.global_step,
            best_step=(state.best_global_step or 0) if metric else state.global_step,
            metric=metric,
            start=values[0] if values else None,
            best=state.best_metric if metric else None,
            stopped_early=state.global_step < state.max_steps,
            history=history,
        )

    def save_start(self) -> None:
        """Evaluate the model as it came, and write it as the checkpoint of step 0."""
        if self._metric:
            self._determine_best_metric(self._evaluate(None, None), None)
        self._save_checkpoint(self.model, None)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One forward and backward pass; a loss that is no number ends the run, where transformers would hide it."""
        place = f"of step {self.state.global_step + 1:,}"
        batch = f"in the batch of {beginning(inputs['label']['queries'][0])}"
        try:
            with plain_attention(self._model, bool(self.args.bf16)):
                loss = super().training_step(model, inputs, num_items_in_batch)
        except InvalidInputError as error:
            if not _is_divergence(error):
                raise
            raise TrainingError(
                f"the scores {place} are no numbers, {batch}", found=error.found, expected="finite", remedy=DIVERGED
            ) from error
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss {place} is no number, {batch}", found=float(loss), expected="a finite loss", remedy=DIVERGED
            )
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The evaluator's metrics, in the precision that the model is used in; leaves no mark on training."""
        with _as_used(self._model):
            return super().evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the share of documents whose best layer each layer was."""
        if "loss" in logs:
            shares = self._loss.layer_wins().items()
            logs = {**logs, **{f"layer_{layer}_wins": round(share, 4) for layer, share in shares}}
        super().log(logs, start_time)

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *args: Any, **kwargs: Any) -> Any:
        """Lists of like length together."""
        return LengthBucketSampler(dataset, batch_size, drop_last, self._model, *args, **kwargs)

    def _check_tasks(self) -> None:
        first: Any = self.train_dataset
        batch = self.data_collator([first[0]])
        found = {key: batch.get(f"{key}_task") for key in ("query", "passage")}
        if found != {"query": "query", "passage": "document"}:
            raise InvalidInputError(
                "the collator does not tell queries from documents",
                found=found,
                expected="query_task='query', passage_task='document'",
                remedy="Leave the collator to MLRTrainer.",
            )

    def _check_start(self) -> None:
        if self._model.fingerprint != self.folder.parts["model"]:
            raise InvalidInputError(
                "the model has changed since it was given to the trainer",
                remedy="Make a new MLRTrainer of the model that the run is to start from.",
            )

    def finish_checkpoint(self, partial: Path) -> None:
        """Note in its state where the best checkpoint will be, not where it is being written."""
        if self._metric:
            self.state.best_model_checkpoint = str(self.folder.checkpoint(self.state.best_global_step or 0))
        self.state.save_to_json(str(partial / _STATE))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_weights(self._loss, output_dir or str(self.args.output_dir))

    def _load_from_checkpoint(self, checkpoint_path: str | Path, model: Any = None) -> None:
        load_weights(self._loss, checkpoint_path)

    def _load_best_model(self) -> None:
        step = self.state.best_global_step or 0
        self._load_from_checkpoint(self.folder.checkpoint(step))
        self._check_best(step, self.state.best_metric)

    def _check_best(self, step: int, expected: float | None) -> None:
        """Evaluate the checkpoint that was loaded."""
        with _as_used(self._model):
            found = self._evaluator(self._model)[self._metric.removeprefix("eval_")]
        if expected is None or not abs(found - expected) <= _TOLERANCE:
            raise TrainingError(
                f"{self.folder.checkpoint(step)} is not as good as it was when it was written",
                found=found,
                expected=expected,
                remedy="Look for a change of the machine, the evaluator or the files since; "
                "another evaluator is for another output_dir.",
            )


def _usable(lists: Iterable[TrainingList | dict[str, Any]], objective: nn.Module) -> list[TrainingList]:
    """The lists, made sure to be such as the objective can learn from: a long run would fail at the first other one."""
    positives, teacher = (bool(getattr(objective, f"needs_{name}", False)) for name in ("positives", "teacher"))
    usable, dropped = check_lists(lists, positives, teacher)
    if dropped.total:
        counts = [f"{count:,} {reason}" for reason, count in asdict(dropped).items() if count]
        raise InvalidInputError(
            "lists that the objective cannot learn from",
            found=f"{', '.join(counts)}, of {len(usable) + dropped.total:,}",
            expected="none",
            remedy=f"Pass check_lists(lists, positives={positives}, teacher={teacher})[0].",
        )
    return usable


def _is_divergence(error: InvalidInputError) -> bool:
    """Whether the losses refused the model's scores, and nothing that the caller passed."""
    ours = error.problem.endswith("is not finite") and not error.problem.startswith("teacher")
    return ours and isinstance(error.found, float) and not math.isfinite(error.found)


def _metric(evaluator: Any, args: MLRTrainingArguments) -> str:
    """What checkpoints are compared by."""
    name = args.metric_for_best_model or getattr(evaluator, "primary_metric", None)
    if not isinstance(evaluator, BaseEvaluator) or not name:
        raise InvalidInputError(
            "not an evaluator to choose checkpoints by",
            found=type(evaluator).__name__,
            expected="one of sentence-transformers' with a primary_metric, or metric_for_best_model",
            remedy="Use mlr_rag.evaluation.evaluator.RetrievalEvaluator.",
        )
    if getattr(evaluator, "greater_is_better", True) is False:
        raise InvalidInputError(
            "the best checkpoint is the one with the highest metric",
            found=f"an evaluator whose {name} is lower when the model is better",
            expected="one whose metric is higher",
            remedy="Let it give the negative of its metric.",
        )
    return name.removeprefix("eval_")


def _with_evaluator(args: MLRTrainingArguments, metric: str) -> MLRTrainingArguments:
    """The arguments for the trainer below, which evaluates when it saves; the caller's stay as they are."""
    own = copy.copy(args)
    own.save_total_limit = None  # RunFolder deletes
    own.load_best_model_at_end = bool(metric)
    own.eval_strategy = IntervalStrategy(args.save_strategy if metric else "no")
    own.eval_steps = args.save_steps
    own.metric_for_best_model, own.greater_is_better = (metric, True) if metric else (None, None)
    return own


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the log without what differs from run to run."""
    times = ("_runtime", "_per_second")
    return {name.removeprefix("eval_"): value for name, value in entry.items() if not name.endswith(times)}


@contextmanager
def _as_used(model: MLRModel) -> Iterator[None]:
    """The model without mixed precision, in evaluation mode; random numbers go on as if nothing had been done."""
    patched = {name: vars(model).pop(name) for name in ("forward",) if name in vars(model)}
    training = model.training
    try:
        with torch.random.fork_rng(devices=[]):
            model.eval()
            yield
    finally:
        vars(model).update(patched)
        model.train(training)


def _unpatch(model: MLRModel) -> None:
    """Take away what accelerate put on the model for mixed precision."""
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(name, None)
