"""Modules from a saved folder: an allow-list of classes, safetensors only, and no code from the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer import modules as stock
from torch import nn

from mlr_rag.errors import (
    InvalidInputError,
    MlrRagError,
    ModelError,
    ModelNotFoundError,
    UnsafeModelError,
    UnsupportedModelError,
)
from mlr_rag.model.pooling import MultiLayerPooling
from mlr_rag.model.query_adapter import QueryAdapter
from mlr_rag.model.twin import QUERY_FOLDER, TwinTransformer

_STOCK: dict[str, Any] = {
    "Transformer": Transformer,
    "Pooling": stock.Pooling,
    "Normalize": stock.Normalize,
    "Dense": stock.Dense,
    "LayerNorm": stock.LayerNorm,
    "Dropout": stock.Dropout,
}
_OURS: dict[str, Any] = {
    f"{ours.__module__}.{ours.__qualname__}": ours for ours in (MultiLayerPooling, QueryAdapter, TwinTransformer)
}
_POOLING, _, _TWIN = _OURS
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def load_modules(folder: Path) -> list[nn.Module]:
    """The modules of a sentence-transformers folder, or of a plain transformers folder with token pooling added.

    Raises:
        UnsafeModelError: loading it would run code from the folder.
        UnsupportedModelError: it has modules that are not on the allow-list.
        ModelNotFoundError: it is no model folder.
    """
    try:
        return _load_modules(folder)
    except MlrRagError:
        raise
    except Exception as problem:  # many libraries read a model's files, each with errors of its own
        raise ModelError(
            f"the model in {folder} cannot be loaded",
            found=f"{type(problem).__name__} {problem!s:.200}",
            expected="a whole sentence-transformers folder",
            remedy="Fetch or save it again.",
        ) from problem


def _load_modules(folder: Path) -> list[nn.Module]:
    listed = read_json(folder / "modules.json")
    parts = (
        [(entry["type"], entry["path"]) for entry in listed] if listed else [("sentence_transformers.Transformer", "")]
    )
    for name, inside in parts:
        check_safe(folder / inside)
        if name == _TWIN:
            check_safe(folder / inside / QUERY_FOLDER)
    home = folder / parts[0][1]
    whole = all(any(home.glob(pattern)) for pattern in ("config.json", "model*.safetensors"))
    if not whole or not any((home / name).exists() for name in _TOKENIZERS):
        raise ModelNotFoundError(
            f"no model in {folder}",
            found=sorted(item.name for item in folder.iterdir())[:12],
            expected=f"config.json, model.safetensors and one of {', '.join(_TOKENIZERS)}",
            remedy="Of a model with pickled weights only, save a copy with SentenceTransformer(...).save(folder).",
        )
    loaded = [
        _module_class(name, folder).load(str(folder), subfolder=inside, **_kwargs(name)) for name, inside in parts
    ]
    if not listed:
        loaded.append(stock.Pooling(loaded[0].get_embedding_dimension(), _token_pooling(loaded[0])))
    return loaded


def check_folder(path: str | Path) -> None:
    """Refuse to save a model where a file is."""
    if Path(path).is_file():
        raise InvalidInputError(f"{path} is a file", expected="a folder, or nothing yet", remedy="Choose another path.")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is no file."""
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def is_mlr_folder(folder: Path) -> bool:
    """Whether the folder was written by `MLRModel.save`."""
    try:
        return any(entry["type"] == _POOLING for entry in read_json(folder / "modules.json") or [])
    except (ValueError, TypeError, KeyError):
        return False  # loading it says what is wrong


def _kwargs(name: str) -> dict[str, Any]:
    if name != _TWIN and not name.endswith(".Transformer"):
        return _LOCAL
    return {**_LOCAL, "model_kwargs": {"use_safetensors": True}}


def _module_class(name: str, folder: Path) -> Any:
    if name in _OURS:
        return _OURS[name]
    package, _, short = name.rpartition(".")
    if package.split(".")[0] != "sentence_transformers" or short not in _STOCK:
        raise UnsupportedModelError(
            f"{folder}/modules.json asks for a module that is not on the allow-list",
            found=name,
            expected=", ".join([*_STOCK, *(ours.__name__ for ours in _OURS.values())]),
            remedy="Modules of other packages are never imported.",
        )
    return _STOCK[short]


def check_safe(folder: Path) -> None:
    """Refuse a folder with code of its own, or with pickled weights alone."""
    config = read_json(folder / "config.json") or {}
    if "auto_map" in config:
        raise UnsafeModelError(
            f"{folder}/config.json asks for Python code of its own",
            found=f"auto_map {config['auto_map']}",
            expected="an architecture that transformers has",
            remedy="Remote code is never run.",
        )
    pickles = [file.name for file in folder.glob("*.bin")] if folder.is_dir() else []
    if pickles and not list(folder.glob("model*.safetensors")):
        raise UnsafeModelError(
            f"the weights in {folder} are pickled, and a pickle can run code",
            found=", ".join(pickles),
            expected="model.safetensors",
            remedy="If you trust them, convert them once: "
            f"SentenceTransformer({str(folder)!r}).save('converted', safe_serialization=True), then use 'converted'.",
        )


def _token_pooling(transformer: Any) -> str:
    architectures = getattr(transformer.config, "architectures", None) or [""]
    return "lasttoken" if architectures[0].endswith("ForCausalLM") else "mean"
