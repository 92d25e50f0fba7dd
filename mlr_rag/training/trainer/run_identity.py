"""What makes a training run the run it is: equal parts give equal weights, on one machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from importlib.metadata import version
from typing import Any

from torch import nn

from mlr_rag.model.identity import _value_bytes
from mlr_rag.model.model import MLRModel
from mlr_rag.training.lists import TrainingList

_PACKAGES = ("mlr-rag", "sentence-transformers", "torch", "transformers")
_PLAIN = (bool, int, float, str, tuple, list, type(None))


def run_parts(
    model: MLRModel, lists: Sequence[TrainingList], loss: nn.Module, settings: dict[str, Any], evaluator: Any
) -> dict[str, Any]:
    """The parts of a run that is about to start, each a sha256 or values by name; none holds a text."""
    own = {name: value for name, value in loss.state_dict().items() if not name.startswith("model.")}
    return {
        "lists": _hash(json.dumps(astuple(each)).encode() for each in lists),
        "model": model.fingerprint,
        "trained parameters": _hash(n.encode() for n, p in loss.named_parameters() if p.requires_grad),
        "dropout": _hash(repr(p).encode() for p in _dropouts(model)),
        "objective's weights": _hash(part for name in sorted(own) for part in _value_bytes(name, own[name])),
        "loss": _settings(loss),
        "arguments": settings,
        "evaluator": getattr(evaluator, "fingerprint", type(evaluator).__name__),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _settings(loss: nn.Module) -> dict[str, Any]:
    """The classes and the public plain attributes of a loss and its objectives, without the model's."""
    found: dict[str, Any] = {}
    for name, module in loss.named_modules(prefix="loss"):
        if name == "loss.model" or name.startswith("loss.model."):
            continue
        found[name] = type(module).__qualname__
        for key, value in vars(module).items():
            if not key.startswith("_") and key != "training" and isinstance(value, _PLAIN):
                found[f"{name}.{key}"] = value
    return found


def _dropouts(model: Any) -> list[Any]:
    """Every rate of dropout: a model's fingerprint leaves them out, as they are idle in use."""
    config = getattr(model[0], "config", None)
    rates = {} if config is None else {k: v for k, v in config.to_dict().items() if "drop" in k}
    layers = [(name, module.p) for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
    return [sorted(rates.items(), key=str), layers]


def _hash(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()
