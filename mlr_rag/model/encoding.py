"""From texts to unit vectors: tokens once, batches by length, a window of texts at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mlr_rag import progress
from mlr_rag.documents import check_characters
from mlr_rag.encoders import Batch
from mlr_rag.errors import InvalidInputError
from mlr_rag.model.batches import pad_features, token_batches

WINDOW = 2048  # texts whose tokens are held at once
BATCH_TOKENS = 3072  # on CPUs 2,048 to 4,096 are alike; twice that falls out of the caches and costs 15%
TOKENIZER_LOCK = threading.Lock()  # a fast tokenizer keeps its padding and truncation in shared state
UNPADDED = {"text": {"padding": False}, "common": {"return_tensors": None}}
FEATURES = ("input_ids", "attention_mask", "token_type_ids", "modality", "prompt_length")


def check_texts(inputs: Any) -> list[str]:
    """One text or many as a list; blank ones have vectors too.

    Raises:
        InvalidInputError: names the first that is not a text, or holds half a character.
    """
    if isinstance(inputs, str):
        inputs = [inputs]
    elif isinstance(inputs, (bytes, Mapping)) or not isinstance(inputs, Iterable):
        raise InvalidInputError("nothing to encode", found=type(inputs).__name__, expected="a text, or a list of texts")
    texts = list(inputs)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            found = f"{type(text).__name__} {text!r:.80}"
            raise InvalidInputError(f"text {place:,} is not a string", found=found, expected="str")
        if not text.isascii():
            check_characters(text, f"text {place:,}", InvalidInputError)
    return texts


def stream(
    model: Any,
    texts: Sequence[str],
    task: str,
    prompt: str | None,
    batch_size: int | None = None,
    return_layers: bool = False,
) -> Iterator[Batch]:
    """Encode one window of texts, yielding each batch as it is done, longest texts first."""
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise InvalidInputError("batch_size is not a number of texts", found=batch_size, expected="1 or more, or None")
    if not texts:
        return
    model.eval()
    with TOKENIZER_LOCK:
        tokens = model.preprocess(list(texts), prompt=prompt, task=task, processing_kwargs=UNPADDED)
    lengths = [len(row) for row in tokens["input_ids"]]
    cut = _cut(model, tokens, texts, prompt)
    features = {key: value for key, value in tokens.items() if key in FEATURES}
    for rows in token_batches(lengths, BATCH_TOKENS, batch_size):
        batch = pad_features(features, rows, model.tokenizer)
        yield Batch(rows, _run(model, batch, task, return_layers), sum(cut[row] for row in rows))


def encode(
    model: Any,
    texts: Sequence[str],
    task: str,
    prompt: str | None,
    batch_size: int | None,
    show_progress: bool | None,
    return_layers: bool,
) -> tuple[npt.NDArray[np.float32], int]:
    """The vectors of any number of texts, in their order, and how many texts were cut."""
    several = return_layers or (model.vectors_per_document > 1 and task != "query")
    shape = (len(texts), len(model.layers), model.dimension) if several else (len(texts), model.dimension)
    vectors, cut = np.empty(shape, np.float32), 0
    quick = show_progress is None and len(texts) <= WINDOW
    bar = progress.start("Encoding", len(texts), False if quick else show_progress)
    for start in range(0, len(texts), WINDOW):
        for batch in stream(model, texts[start : start + WINDOW], task, prompt, batch_size, return_layers):
            vectors[[start + index for index in batch.indices]] = batch.vectors
            cut += batch.cut
            bar.update(len(batch.indices))
    bar.close()
    return vectors, cut


def _cut(model: Any, tokens: Any, texts: Sequence[str], prompt: str | None) -> list[bool]:
    if getattr(tokens, "encodings", None):
        return [bool(encoding.overflowing) for encoding in tokens.encodings]
    # A tokenizer in Python does not tell, so the texts that fill the model are tokenized again, whole.
    limit, tokenize = model.max_seq_length, model.tokenizer
    return [
        len(row) >= limit and len(tokenize((prompt or "") + text)["input_ids"]) > limit
        for row, text in zip(tokens["input_ids"], texts, strict=True)
    ]


@torch.inference_mode()
def _run(model: Any, features: dict[str, Any], task: str, return_layers: bool) -> npt.NDArray[np.float32]:
    device = model.device
    moved = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in features.items()}
    out = model(moved, task=task, return_layers=return_layers)
    vectors = out["layer_embeddings" if return_layers else "sentence_embedding"].float()
    if model.truncate_dim is not None:
        vectors = vectors[..., : model.truncate_dim]
    unit: npt.NDArray[np.float32] = nn.functional.normalize(vectors, dim=-1).cpu().numpy()
    return unit
