"""What a checkpoint holds of a model and its loss: every tensor that training changes, as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mlr_rag.errors import TrainingError
from mlr_rag.model.model import MLRModel
from mlr_rag.training.trainer.lora import has_lora

_LOSS = "loss.safetensors"
_MODEL = "model."  # what a loss calls its model


def save_weights(loss: Any, folder: str | Path) -> None:
    """Write the model as a folder that `MLRModel.load` reads, and beside it what the loss itself learns.

    Of a model with LoRA only what is trained is written, beside what the loss learns: it is no model without its base.
    """
    alone = has_lora(loss.model)
    if not alone:
        loss.model.save(folder)
    frozen = _frozen(loss)
    tensors = {
        name: value.contiguous()
        for name, value in loss.state_dict().items()
        if name not in frozen and (alone or not name.startswith(_MODEL))
    }
    save_file(tensors, Path(folder) / _LOSS)


def load_weights(loss: Any, folder: str | Path) -> None:
    """Put back what `save_weights` wrote, into the same model and loss.

    Raises:
        TrainingError: a tensor is missing, or one too many.
    """
    tensors: dict[str, Tensor] = load_file(Path(folder) / _LOSS)
    if (Path(folder) / "modules.json").exists():
        model = MLRModel.load(folder)
        tensors |= {_MODEL + name: value for name, value in model.state_dict().items()}
    missing = loss.state_dict().keys() - tensors.keys() - _frozen(loss)
    unknown = tensors.keys() - loss.state_dict().keys()
    if missing or unknown:
        raise TrainingError(
            f"{folder} does not fit the model",
            found=f"{len(missing)} tensors missing and {len(unknown)} unknown, such as {min(missing | unknown)}",
            expected="the tensors that are trained",
            remedy="Pass the model as it was before training; one with LoRA needs add_lora again.",
        )
    loss.load_state_dict(tensors, strict=False)


def _frozen(loss: nn.Module) -> set[str]:
    named = loss.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}
