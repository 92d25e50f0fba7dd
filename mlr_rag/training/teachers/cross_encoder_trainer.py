"""The training of a cross-encoder on lists, by sentence-transformers' trainer, in runs that can be killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed
from transformers.utils import logging

from mlr_rag.errors import ModelError
from mlr_rag.model.loading import check_safe, read_json
from mlr_rag.model.names import resolve
from mlr_rag.training.lists import TrainingList, to_dataset
from mlr_rag.training.teachers.models import is_cross_encoder, load_cross_encoder
from mlr_rag.training.trainer.arguments import has_bfloat16  # first: it says what is not installed
from mlr_rag.training.trainer.callbacks import FiniteGradients, ProgressBar
from mlr_rag.training.trainer.checkpoints import RunFolder
from mlr_rag.training.trainer.staging import StagedCheckpoints

# isort: split
from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.base.modules import Transformer

_SAVE_STEPS = 100
_hf: Any = logging  # without types


def start(base: str | Path, max_length: int, seed: int) -> CrossEncoder:
    """What training starts from: a cross-encoder, or an encoder with a new head whose weights the seed tells.

    Raises:
        ModelNotFoundError, UnsafeModelError.
        ModelError: it cannot be loaded.
    """
    folder = resolve(base)
    with _quiet():
        if is_cross_encoder(folder):
            model = load_cross_encoder(folder)
        else:
            home = folder / (read_json(folder / "modules.json") or [{"path": ""}])[0]["path"]
            check_safe(home)
            model = _with_head(home, seed)
    model.max_seq_length = min(max_length, model.max_seq_length or max_length)
    return model


def fit(model: CrossEncoder, lists: Sequence[TrainingList], folder: RunFolder, settings: dict[str, Any]) -> None:
    """Train to the end, from the last checkpoint where there is one, and write the model into the folder.

    Raises:
        TrainingError: a gradient is no number; the checkpoints are kept.
    """
    on_gpu = torch.cuda.is_available()
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder.path),
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        seed=settings["seed"],
        warmup_steps=0.1,
        weight_decay=0.01,
        save_steps=_SAVE_STEPS,
        report_to="none",
        bf16=on_gpu and has_bfloat16("cuda"),
        dataloader_pin_memory=on_gpu,
    )
    set_seed(settings["seed"])
    steps = folder.steps()
    bar = ProgressBar()
    trainer = _Trainer(
        folder,
        model=model,
        args=arguments,
        train_dataset=to_dataset(lists).remove_columns("scores"),
        loss=_ListLoss(model),
        callbacks=[FiniteGradients(), bar],
    )
    with _quiet():
        try:
            trainer.train(resume_from_checkpoint=str(folder.checkpoint(steps[-1])) if steps else None)
        finally:
            bar.close()
        model.eval().cpu().save_pretrained(str(folder.path), create_model_card=False)


class _ListLoss(nn.Module):
    """The cross-entropy of the grades' shares and the softmax over each query's list, mean over the queries."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, inputs: list[Any], labels: list[Tensor], prompt: str | None = None, **_: Any) -> Tensor:
        queries, lists = inputs
        pairs = [(query, passage) for query, passages in zip(queries, lists, strict=True) for passage in passages]
        features = self.model.preprocess(pairs, prompt=prompt)
        device = self.model.device
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in features.items()}
        logits = self.model(moved)["scores"].float().flatten()
        rows = zip(logits.split([len(each) for each in labels]), labels, strict=True)
        losses = [-(grades.to(row) / grades.sum()) @ row.log_softmax(0) for row, grades in rows]
        return torch.stack(losses).mean()


class _Trainer(StagedCheckpoints, CrossEncoderTrainer):
    """Saves the model as `load_cross_encoder` reads it."""

    def __init__(self, folder: RunFolder, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder
        self.remove_bars()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self.model.save_pretrained(str(output_dir or self.args.output_dir), create_model_card=False)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        self.model.load_state_dict(load_cross_encoder(checkpoint_path).state_dict())


def _with_head(folder: Path, seed: int) -> CrossEncoder:
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            transformer = Transformer(
                str(folder),
                transformer_task="sequence-classification",
                model_kwargs={**local, "use_safetensors": True},
                processor_kwargs=local,
                config_kwargs={**local, "num_labels": 1},
            )
        model: CrossEncoder = CrossEncoder(modules=[transformer], activation_fn=nn.Identity())
    except Exception as problem:  # many libraries read a model's files, each with errors of its own
        raise ModelError(
            f"no cross-encoder can be made of the model in {folder}",
            found=f"{type(problem).__name__} {problem!s:.200}",
            expected="an architecture with a sequence classification head in transformers",
        ) from problem
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars, and its report that a new head is new."""
    bars, level = _hf.is_progress_bar_enabled(), _hf.get_verbosity()
    _hf.disable_progress_bar()
    _hf.set_verbosity_error()
    try:
        yield
    finally:
        _hf.set_verbosity(level)
        if bars:
            _hf.enable_progress_bar()
