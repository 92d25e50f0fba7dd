"""LoRA (arXiv 2106.09685): training a low-rank update of the backbone's matrices in place of the matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mlr_rag.errors import InvalidInputError, MissingExtraError
from mlr_rag.model.model import MLRModel
from mlr_rag.model.twin import TwinTransformer

_TRAINED = "_trained_before_lora"  # where a backbone remembers which of its parameters were trained


def add_lora(model: MLRModel, rank: int = 8, alpha: float | None = None, seed: int = 0) -> MLRModel:
    """Give every linear layer of the backbone an update `W + alpha / rank * B A`, and train only that.

    The model is changed in place and returned; its vectors stay the same until it is trained, since B is zero. What
    is not the backbone (weights of layers, a query adapter) is trained as before. `MLRTrainer` merges the update at
    the end of training; a model with an unmerged one is not for saving.

    Args:
        model: An MLRModel.
        rank: Rows of A.
        alpha: Twice the rank by default.
        seed: Of A's first values: the same model and seed make the same start.

    Raises:
        InvalidInputError: it has LoRA already, its backbone is frozen or one of two, or no such rank is possible.
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as problem:
        raise MissingExtraError(
            "LoRA needs a package that is not installed",
            found=f"no {problem.name}",
            remedy="pip install 'mlr-rag[train]'",
        ) from problem
    if has_lora(model):
        raise InvalidInputError("the model has LoRA already", remedy="merge_lora(model) first.")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise InvalidInputError("the rank", found=rank, expected="1 or more")
    if isinstance(model[0], TwinTransformer):
        raise InvalidInputError(
            "LoRA would reach the documents' backbone alone, while the queries' is trained whole",
            found="a model with a separate query encoder",
            expected="one backbone for queries and documents",
            remedy="Train both encoders whole, or make the model without separate_query_encoder.",
        )
    backbone = _backbone(model)
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    if not trained:
        raise InvalidInputError(
            "LoRA would train a backbone that is frozen",
            found="no parameter of it with requires_grad, as after freeze_documents()",
            expected="a backbone that is to be trained",
            remedy="Train the query adapter without LoRA, or call model.requires_grad_(True) before add_lora.",
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,  # type: ignore[arg-type]
        target_modules=_matrices(backbone),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)
    setattr(backbone, _TRAINED, trained)
    return model


def merge_lora(model: MLRModel) -> MLRModel:
    """Add the updates to the matrices and take LoRA away, in place: a plain model with the same vectors, to 1e-5.

    Raises:
        InvalidInputError: it has no LoRA.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    backbone = _backbone(model)
    if not has_lora(model):
        raise InvalidInputError("the model has no LoRA to merge", remedy="add_lora(model) before training.")
    for name, layer in list(backbone.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            parent, _, attribute = name.rpartition(".")
            setattr(backbone.get_submodule(parent), attribute, layer.get_base_layer())
    backbone._hf_peft_config_loaded = False
    del backbone.peft_config
    for parameter in getattr(backbone, _TRAINED, ()):
        parameter.requires_grad_(True)
    vars(backbone).pop(_TRAINED, None)
    return model


def has_lora(model: Any) -> bool:
    """Whether the model has an update that is not merged."""
    return bool(getattr(_backbone(model), "peft_config", None))


def _matrices(backbone: nn.Module) -> list[str]:
    """The names of the linear layers, without the pooler's, which no vector of ours goes through."""
    linear = (name for name, module in backbone.named_modules() if isinstance(module, nn.Linear))
    return [name for name in linear if "pooler" not in name.split(".")]


def _backbone(model: Any) -> Any:
    return model[0].model
