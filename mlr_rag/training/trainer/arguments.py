"""MLRTrainingArguments: sentence-transformers' arguments with defaults for retrieval, and none that would mislead."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers

from mlr_rag.errors import InvalidInputError, MissingExtraError

if find_spec("accelerate") is None:  # without it transformers' arguments cannot be made
    raise MissingExtraError(
        "training needs a package that is not installed",
        found="no accelerate",
        remedy="pip install 'mlr-rag[train]'",
    )

logger = logging.getLogger(__name__)

_NOT_HERE = (
    "auto_find_batch_size", "deepspeed", "eval_on_start", "fsdp", "label_smoothing_factor", "neftune_noise_alpha",
    "push_to_hub", "save_only_model",
)  # fmt: skip
_OURS = {"query": "query", "passage": "document"}  # what ListCollator stamps on its two columns


@dataclass
class MLRTrainingArguments(SentenceTransformerTrainingArguments):
    """The arguments of `MLRTrainer`; those that are not named here are sentence-transformers' own.

    A model is saved when it is evaluated, and the other way round: `save_strategy` ("epoch" or "steps") and
    `save_steps` say when. Prompts and tasks are the model's own, as in `encode_query` and `encode_document`.

    Attributes:
        output_dir: Where checkpoints are written; a run that was killed goes on from there.
        per_device_train_batch_size: Lists a step.
        warmup_steps: Steps, or below 1 a share of them.
        early_stopping_patience: Stop after so many evaluations in a row without a new best; None: never.
        save_total_limit: How many checkpoints are kept; the best and the last always are.
        bf16: Train in bfloat16; ignored, with a warning, where the processor would only emulate it.

    Raises:
        InvalidInputError: arguments that contradict each other, the collator, or the machine.
    """

    per_device_train_batch_size: int = 16
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup_steps: float = 0.1
    max_grad_norm: float = 1.0
    save_strategy: str = "epoch"
    save_total_limit: int | None = 2
    logging_steps: float = 10
    report_to: str | list[str] | None = "none"
    early_stopping_patience: int | None = None

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise InvalidInputError("no output_dir", expected="a folder for the checkpoints")
        patience = self.early_stopping_patience
        if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
            raise InvalidInputError(
                "early_stopping_patience", found=patience, expected="a number of evaluations, or None"
            )
        self._check_processor()
        self._align_evaluation()
        if self.prompts:
            raise InvalidInputError(
                "prompts would differ from those that the model is used with",
                found=self.prompts,
                expected="None",
                remedy="Set model.prompts, which training and encoding both use.",
            )
        if self.router_mapping and self.router_mapping != _OURS:
            raise InvalidInputError(
                "router_mapping contradicts the collator, which sets the tasks itself",
                found=self.router_mapping,
                expected=f"none, or {_OURS}",
            )
        if self.batch_sampler not in (BatchSamplers.BATCH_SAMPLER, BatchSamplers.BATCH_SAMPLER.value):
            raise InvalidInputError(
                "MLRTrainer puts lists of like length together, by a sampler of its own",
                found=f"batch_sampler={self.batch_sampler!r}",
                expected="the default",
                remedy="Leave batch_sampler out.",
            )
        for name in _NOT_HERE:
            if getattr(self, name):
                raise InvalidInputError(
                    f"{name} does not go with MLRTrainer", found=getattr(self, name), expected="none"
                )
        self.load_best_model_at_end = False  # MLRTrainer does, whenever it has an evaluator
        super().__post_init__()  # type: ignore[no-untyped-call]
        if self.greater_is_better is False:  # as transformers takes it for any name that ends with "loss"
            raise InvalidInputError(
                "the best checkpoint is the one with the highest metric",
                found=f"greater_is_better=False, metric_for_best_model={self.metric_for_best_model!r}",
                expected="a metric that is higher when the model is better",
                remedy="Use an evaluator that gives one, such as RetrievalEvaluator; of a loss, its negative.",
            )
        if self.n_gpu > 1:  # DataParallel would copy the model, hooks and all, at every step
            logger.info("One of %s GPUs is used.", self.n_gpu)
            self._n_gpu = 1
        if self.world_size > 1:
            raise InvalidInputError(
                "MLRTrainer trains in one process", found=f"{self.world_size} processes", expected="1",
                remedy="Use ListLoss(gather=True) in a loop of your own.",
            )  # fmt: skip

    def _check_processor(self) -> None:
        on_cpu = self.use_cpu or not torch.cuda.is_available()
        self.dataloader_pin_memory = self.dataloader_pin_memory and not on_cpu
        if self.fp16 and on_cpu:
            raise InvalidInputError(
                "fp16 trains on GPUs only", found="fp16=True on a CPU", expected="bf16=True, or neither"
            )
        if self.bf16 and not has_bfloat16("cpu" if on_cpu else "cuda"):
            logger.warning("bf16 was asked for, but this processor has no bfloat16: training in float32.")
            self.bf16 = False
        self.use_cpu = self.use_cpu or (self.bf16 and on_cpu)  # transformers accepts bf16 on a CPU only so

    def _align_evaluation(self) -> None:
        for name in ("strategy", "steps"):
            found, expected = getattr(self, f"eval_{name}"), getattr(self, f"save_{name}")
            if found not in (None, "no", expected):
                raise InvalidInputError(
                    "a model is saved when it is evaluated",
                    found=f"eval_{name}={found!r}",
                    expected=f"save_{name}, {expected!r}",
                    remedy=f"Set save_{name} alone.",
                )
        if self.save_strategy not in ("epoch", "steps"):
            raise InvalidInputError("save_strategy", found=self.save_strategy, expected="epoch | steps")

    def settings(self) -> dict[str, Any]:
        """What changes the outcome of a run: every argument but those of logging, loading, places and the hub."""
        every: dict[str, Any] = self.to_dict()  # type: ignore[no-untyped-call]
        values = {name: value for name, value in every.items() if not name.startswith(_IDLE)}
        return values | {"batch_sampler": str(self.batch_sampler)}


_IDLE = (
    "output_dir", "logging_", "log_", "report_to", "run_name", "project", "trackio", "hub_", "push_to_hub",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "disable_tqdm", "save_total_limit", "use_cpu", "local_rank", "ddp_", "debug", "resume_from_checkpoint", "do_",
    "skip_memory_metrics", "per_device_eval_batch_size", "enable_jit_checkpoint",
)  # fmt: skip


def has_bfloat16(device: str) -> bool:
    """Whether the processor computes in bfloat16, and does not emulate it (several times slower than float32)."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
