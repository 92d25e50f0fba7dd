"""What makes a model the model it is: everything that moves its vectors, and nothing that doesn't."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.module import Module
from torch import Tensor, nn

from mlr_rag.encoders import prompt_of
from mlr_rag.model.sides import document_side, query_side
from mlr_rag.passport import QUERY_SIDE

# Keys of a transformers config that do not change what a model computes in evaluation.
_HARMLESS = {
    "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache", "id2label", "label2id",
    "problem_type", "finetuning_task", "output_hidden_states", "output_attentions", "return_dict",
    "gradient_checkpointing", "initializer_range", "initializer_factor", "chunk_size_feed_forward",
    "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "tokenizer_class", "attn_implementation",
}  # fmt: skip


_TOLD_ELSEWHERE = {"max_seq_length", "model_kwargs", "processor_kwargs", "config_kwargs"}


def identity(model: SentenceTransformer) -> dict[str, Any]:
    """The parts of a model's identity, each a value to show or a sha256: equal parts mean equal vectors.

    A query side of its own has a part of its own, QUERY_SIDE; all others are as for the same model without, so that
    where only that part differs documents' vectors are equal.
    """
    key = _version_key(model)
    documents, queries = nn.Sequential(*document_side(model)), nn.Sequential(*query_side(model))
    parts = {
        "weights": hash_bytes(weight_bytes(documents)),
        "architecture": hash_json(architecture(model[0])),
        "tokenizer": hash_json(tokenizer_state(model.tokenizer)),
        "modules": hash_json([["", *_description(model)], *_descriptions(documents)]),
        "settings": hash_json(_settings(documents)),
        "prompts": {task: prompt_of(model, task) for task in ("query", "document")},
        "max_length": model.max_seq_length,
        "dimension": model.get_embedding_dimension(),
        "precision": str(model.dtype).removeprefix("torch."),
    }
    if len(queries):
        architectures = [architecture(module) for module in queries]
        parts[QUERY_SIDE] = hash_json(
            [hash_bytes(weight_bytes(queries)), architectures, _descriptions(queries), _settings(queries)]
        )
    of_documents = {name: part for name, part in parts.items() if name != QUERY_SIDE}
    model.__dict__["_fingerprint"] = key, digest(parts), digest(of_documents)
    return parts


def digest(parts: dict[str, Any]) -> str:
    """One sha256 over the parts."""
    return hash_json(parts)


def fingerprint(model: SentenceTransformer) -> str:
    """The digest of a model's identity, made anew only when a weight or a setting has changed."""
    return _fingerprints(model)[0]


def document_fingerprint(model: SentenceTransformer) -> str:
    """The digest less the query side: equal where documents' vectors are."""
    return _fingerprints(model)[1]


def _fingerprints(model: SentenceTransformer) -> tuple[str, str]:
    cached: tuple[Any, str, str] | None = model.__dict__.get("_fingerprint")
    if cached is None or cached[0] != _version_key(model):
        identity(model)
    _, whole, of_documents = model.__dict__["_fingerprint"]
    return whole, of_documents


def _version_key(model: SentenceTransformer) -> tuple[Any, ...]:
    """Changes with every weight or setting that changes, in well under a millisecond where hashing takes a hundred.

    Writing through `.data` does not count up a tensor's version, so some values of each tensor are looked at too.
    """
    tensors = [tensor for tensor in [*model.parameters(), *model.buffers()] if tensor.numel()]
    weights = [(id(tensor), tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version) for tensor in tensors]
    values: list[float] = []
    for device in sorted({tensor.device for tensor in tensors}, key=str):
        here = (tensor.detach() for tensor in tensors if tensor.device == device and tensor.is_contiguous())
        values += torch.cat([tensor.view(-1)[:: tensor.numel() // 8 + 1].float() for tensor in here]).tolist()
    settings = (repr(model.prompts), model.max_seq_length, model.truncate_dim, model.dtype, id(model.tokenizer))
    modules = [repr(_config(module)) for module in model]
    return *weights, *values, *settings, *modules


def weight_bytes(model: nn.Module) -> Iterator[bytes]:
    """The names, types, shapes and bytes of all parameters and buffers, in the order of their names."""
    for name, value in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):
        yield from value_bytes(name, value)


def _descriptions(modules: nn.Sequential) -> list[list[str]]:
    return [[name, *_description(module)] for name, module in modules.named_modules() if name]


def _settings(modules: nn.Sequential) -> list[list[Any]]:
    return [[type(module).__name__, _config(module)] for module in modules]


def _description(module: nn.Module) -> tuple[str, str]:
    """A module's class and what its repr says of it (sizes, eps, activation), less what is idle in evaluation."""
    idle = isinstance(module, (nn.modules.dropout._DropoutNd, nn.ModuleList))
    return type(module).__name__, "" if idle or isinstance(module, Module) else module.extra_repr()


def value_bytes(name: str, value: Any) -> Iterator[bytes]:
    """Name, type, shape and raw bytes of a tensor; quantized modules hold tuples and packed tensors."""
    if isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from value_bytes(f"{name}.{index}", item)
    elif not isinstance(value, Tensor):
        yield f"{name}={value!r}".encode()
    elif value.is_quantized:
        yield from value_bytes(f"{name}.scale", value.dequantize())
    else:
        tensor = value.detach().cpu().contiguous()
        yield f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def architecture(module: Any) -> dict[str, Any]:
    """What a module's transformers config says of its computing; {} where it has none."""
    config: Any = getattr(module, "config", None)
    return _computing(config.to_dict()) if hasattr(config, "to_dict") else {}


def _computing(config: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key.startswith("_") or key in _HARMLESS or "dropout" in key or value is None:
            continue
        kept[key] = _computing(value) if isinstance(value, dict) else value
    return kept


def _config(module: nn.Module) -> dict[str, Any]:
    read: Callable[[], dict[str, Any]] | None = getattr(module, "get_config_dict", None)
    return {} if read is None else {key: value for key, value in read().items() if key not in _TOLD_ELSEWHERE}


def tokenizer_state(tokenizer: Any) -> Any:
    """How text becomes tokens; padding and truncation settings are per call and left out."""
    if not hasattr(tokenizer, "is_fast"):
        return [type(tokenizer).__name__]
    common = [tokenizer.truncation_side, tokenizer.padding_side, tokenizer.pad_token_id]
    if not tokenizer.is_fast:
        return [*common, type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return [*common, {key: value for key, value in state.items() if key not in ("padding", "truncation")}]


def hash_json(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return hash_bytes([json.dumps(value, sort_keys=True, default=str).encode()])


def hash_bytes(chunks: Iterable[bytes]) -> str:
    """sha256 of the chunks, joined."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()
