"""Models as teachers: the logits of a cross-encoder, the cosines of a bi-encoder."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from mlr_rag.encoders import Encoder, open_encoder
from mlr_rag.errors import InvalidInputError, ModelError, UnsupportedModelError
from mlr_rag.model.batches import pad_features, token_batches
from mlr_rag.model.identity import architecture, hash_bytes, hash_json, tokenizer_state, weight_bytes
from mlr_rag.model.loading import check_safe, read_json
from mlr_rag.model.names import resolve
from mlr_rag.training.cache import open_cache
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.teachers.scores import Pair, Scores

_CPU_TOKENS, _GPU_TOKENS = 3072, 32768  # in a padded batch; see mlr_rag.model.encoding


class CrossEncoderTeacher:
    """The raw logits of a sentence-transformers CrossEncoder: a sigmoid would flatten the differences at the top.

    Args:
        model: A CrossEncoder, or the name or folder of one, which is loaded as `MLRModel` loads its own: no network
            where none is needed, no pickle, no code from the folder.
        max_length: Tokens of a pair that are read, at most; by default the model's own.

    Raises:
        ModelNotFoundError: no such model; lists what was tried.
        UnsafeModelError: loading it would run code.
        UnsupportedModelError: it gives no score, or several.
    """

    def __init__(self, model: CrossEncoder | str | Path, max_length: int | None = None) -> None:
        self.model: Any = load_cross_encoder(model) if isinstance(model, (str, Path)) else model
        if self.model.num_labels != 1:
            raise UnsupportedModelError(
                "a teacher gives one score a pair", found=f"{self.model.num_labels} labels", expected="1"
            )
        own = self.model.max_seq_length
        if max_length is not None and (max_length < 8 or (own is not None and max_length > own)):
            raise InvalidInputError(
                "max_length is out of range", found=max_length, expected=f"8 to {own or 'any number'}"
            )
        self.max_length: int | None = max_length or own
        self.name = str(getattr(getattr(self.model, "config", None), "_name_or_path", ""))
        self._lock = threading.Lock()  # a fast tokenizer keeps its padding and truncation in shared state
        self._hashed: tuple[Any, str] = None, ""

    @property
    def fingerprint(self) -> str:
        """sha256 of weights, architecture, tokenizer and prompt; made anew when one of them has changed."""
        now = _state(self.model)
        if self._hashed[0] != now:
            self._hashed = now, _fingerprint(self.model)
        return self._hashed[1]

    @property
    def truncation(self) -> str:
        """See Teacher."""
        return "none" if self.max_length is None else f"{self.max_length} tokens"

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """See Teacher."""
        scores = np.empty(len(pairs))
        if not len(pairs):
            return scores
        model = self.model.eval()
        options = {"padding": False, "truncation": self.max_length is not None, "max_length": self.max_length}
        with self._lock:
            tokens = model.preprocess(
                list(pairs),
                prompt=_prompt(model),
                processing_kwargs={"text": options, "common": {"return_tensors": None}},
            )
        lengths = [len(row) for row in tokens["input_ids"]]
        device = model.device
        with torch.inference_mode():
            for rows in token_batches(lengths, _CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS):
                features = pad_features(tokens, rows, model.tokenizer)
                moved = {key: value.to(device) if hasattr(value, "to") else value for key, value in features.items()}
                scores[rows] = model(moved)["scores"].float().reshape(len(rows)).cpu().numpy()
        return scores


class BiEncoderTeacher:
    """The cosine of query and passage under an encoder; its best layer's where it gives several vectors a document.

    Args:
        model: Whatever is an Encoder or can be made one (see mlr_rag.encoders), or a name or folder.
        vectors: Where vectors are looked up, and kept; for those of embeddings without a fingerprint, None.
        fingerprint: Of embeddings that have none of their own.

    Attributes:
        batch: Pairs to ask it for at once: more where a passage is encoded anew in every call.
    """

    def __init__(self, model: Any, vectors: VectorCache | str | Path | None = None, fingerprint: str = "") -> None:
        self.encoder: Encoder = open_encoder(model)
        self.name = str(getattr(self.encoder, "name", ""))
        self._vectors, self._fingerprint = open_cache(VectorCache, vectors), fingerprint
        self.batch = 16384 if vectors is None else 1024

    @property
    def fingerprint(self) -> str:
        """See Teacher."""
        known = self._fingerprint or self.encoder.fingerprint
        return known and f"cosine {known}"

    @property
    def truncation(self) -> str:
        """See Teacher."""
        length = getattr(self.encoder, "max_seq_length", None)
        return f"{length} tokens" if length else "the encoder's own"

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """See Teacher."""
        if not len(pairs):
            return np.empty(0)
        queries = self._vectors.encode(self.encoder, [query for query, _ in pairs], "query", show_progress=False)
        passages = self._vectors.encode(
            self.encoder, [passage for _, passage in pairs], "document", show_progress=False
        )
        layers = passages.reshape(len(pairs), -1, passages.shape[-1])
        scores: Scores = np.einsum("nd,nmd->nm", queries, layers, dtype=np.float64).max(axis=1)
        return scores


def is_cross_encoder(folder: Path) -> bool:
    """Whether a model's folder says that it scores pairs."""
    settings = read_json(folder / "config_sentence_transformers.json") or {}
    if settings.get("model_type"):
        return bool(settings["model_type"] == "CrossEncoder")
    if (folder / "modules.json").exists():
        return False
    config = read_json(folder / "config.json") or {}
    return str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")


def load_cross_encoder(name: str | Path) -> CrossEncoder:
    """The CrossEncoder of that name or folder, with raw logits; no code from the folder is run, and no pickle read.

    Args:
        name: A hub id or a folder.

    Raises:
        ModelNotFoundError, UnsafeModelError.
        UnsupportedModelError: it is something else, such as an encoder.
        ModelError: it cannot be loaded.
    """
    folder = resolve(name)
    if not is_cross_encoder(folder):
        raise UnsupportedModelError(
            f"{name} is no cross-encoder",
            found=(read_json(folder / "config.json") or {}).get("architectures"),
            expected="a model that scores pairs (...ForSequenceClassification)",
            remedy="Use BiEncoderTeacher, or make a cross-encoder of it with train_cross_encoder.",
        )
    for entry in read_json(folder / "modules.json") or [{"path": ""}]:
        check_safe(folder / entry["path"])
    try:
        model: CrossEncoder = CrossEncoder(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
            activation_fn=torch.nn.Identity(),
        )
    except Exception as problem:  # many libraries read a model's files, each with errors of its own
        raise ModelError(
            f"the cross-encoder in {folder} cannot be loaded", found=f"{type(problem).__name__} {problem!s:.200}"
        ) from problem
    return model


def _fingerprint(model: Any) -> str:
    return "cross-encoder " + hash_json(
        {
            "weights": hash_bytes(weight_bytes(model)),
            "architecture": hash_json(architecture(model[0])),
            "tokenizer": hash_json(tokenizer_state(model.tokenizer)),
            "modules": [[name, type(module).__name__] for name, module in model.named_modules() if name],
            "prompt": _prompt(model),
            "precision": str(model.dtype),
        }
    )


def _state(model: Any) -> tuple[Any, ...]:
    """Changes with every weight or setting that is changed, though not by writing through `.data`."""
    tensors = [*model.parameters(), *model.buffers()]
    versions = [(each.data_ptr(), -1 if each.is_inference() else each._version) for each in tensors]
    return *versions, _prompt(model), id(model.tokenizer)


def _prompt(model: Any) -> str | None:
    prompt: str | None = model.prompts.get(model.default_prompt_name)
    return prompt
