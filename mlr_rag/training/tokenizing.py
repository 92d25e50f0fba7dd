"""The tokens of texts, as `encode_query` and `encode_document` read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlr_rag.encoders import prompt_of
from mlr_rag.model.encoding import FEATURES, TOKENIZER_LOCK, UNPADDED

_AT_ONCE = 256  # texts; what a tokenizer keeps beside the tokens is many times their size


def tokenize(model: Any, texts: Sequence[str], task: str) -> dict[str, Any]:
    """Features without padding, one row a text, behind the model's prompt for the task and cut to what it reads."""
    features: dict[str, Any] = {}
    prompt = prompt_of(model, task) or None
    for start in range(0, len(texts), _AT_ONCE):
        part = list(texts[start : start + _AT_ONCE])
        with TOKENIZER_LOCK:  # evaluation may encode on another thread
            tokens = model.preprocess(part, prompt=prompt, task=task, processing_kwargs=UNPADDED)
        for key in FEATURES:
            if isinstance(tokens.get(key), list):
                features.setdefault(key, []).extend(tokens[key])
            elif key in tokens:
                features[key] = tokens[key]
    return features
