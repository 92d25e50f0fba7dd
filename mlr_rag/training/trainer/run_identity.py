"""What makes a training run the run it is: equal parts give equal weights, on one machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from importlib.metadata import version
from typing import Any

from torch import nn

from mlr_rag.errors import InvalidInputError
from mlr_rag.model.identity import value_bytes
from mlr_rag.model.model import MLRModel
from mlr_rag.training.lists import TrainingList

_PACKAGES = ("mlr-rag", "sentence-transformers", "torch", "transformers")
_PLAIN = (bool, int, float, str, type(None))


def run_parts(
    model: MLRModel, lists: Sequence[TrainingList], loss: nn.Module, settings: dict[str, Any], evaluator: Any
) -> dict[str, Any]:
    """The parts of a run that is about to start, each a sha256 or values by name; none holds a text.

    Raises:
        InvalidInputError: a setting of the objective cannot be told from another.
    """
    own = {name: value for name, value in loss.state_dict().items() if not name.startswith("model.")}
    return {
        "lists": _hash(json.dumps(astuple(each)).encode() for each in lists),
        "model": model.fingerprint,
        "trained parameters": _hash(n.encode() for n, p in loss.named_parameters() if p.requires_grad),
        "dropout": _hash(repr(p).encode() for p in _dropouts(model)),
        "objective's weights": _hash(part for name in sorted(own) for part in value_bytes(name, own[name])),
        "loss": _settings(loss),
        "arguments": settings,
        "evaluator": getattr(evaluator, "fingerprint", type(evaluator).__name__),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _settings(loss: nn.Module) -> dict[str, Any]:
    """The classes and public attributes of a loss and its objective, without the model's.

    Plain values are shown in messages; any other counts by its content, for an objective alone, since what else a
    loss holds is described by its plain attributes.
    """
    found: dict[str, Any] = {}
    for name, module in loss.named_modules(prefix="loss"):
        if name == "loss.model" or name.startswith("loss.model."):
            continue
        found[name] = type(module).__qualname__
        for key, value in vars(module).items():
            if key.startswith("_") or key == "training":
                continue
            if _is_plain(value):
                found[f"{name}.{key}"] = value
            elif f"{name}.".startswith("loss.objective.") and "._" not in name:
                found[f"{name}.{key}"] = _hash([_content(value, f"{name}.{key}").encode()])
    return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, (tuple, list)) and all(map(_is_plain, value)))


def _content(value: Any, place: str) -> str:
    """What is the same for equal values, in every process."""
    if isinstance(value, dict):
        told = (f"{_content(key, place)}: {_content(each, place)}" for key, each in value.items())
        return f"{{{', '.join(sorted(told))}}}"
    if isinstance(value, (tuple, list, set, frozenset)):
        parts = [_content(each, place) for each in value]
        return f"{type(value).__name__} {sorted(parts) if isinstance(value, (set, frozenset)) else parts}"
    if hasattr(value, "tolist"):  # a tensor or an array, whose repr leaves numbers out
        return f"{value.dtype} {value.tolist()!r}"
    shown = repr(value)
    if " at 0x" in shown:
        raise InvalidInputError(
            f"{place} cannot be told from another, so that runs would be mixed",
            found=shown,
            expected="a value with a repr of its own",
            remedy="Give it a __repr__, or a name that begins with _, beside a public value that changes with it.",
        )
    return shown


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
