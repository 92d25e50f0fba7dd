"""Batches of texts of like length, cut by their number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def token_batches(lengths: Sequence[int], max_tokens: int, max_rows: int | None = None) -> list[list[int]]:
    """Indices grouped so that a padded batch has at most `max_tokens` tokens, longest texts first.

    A text longer than `max_tokens` is a batch of its own.
    """
    batches: list[list[int]] = []
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else lengths[index]
        if batch and ((len(batch) + 1) * longest > max_tokens or len(batch) == max_rows):
            batches.append(batch)
            batch = []
        batch.append(index)
    return [*batches, batch] if batch else batches


def pad(rows: Sequence[Sequence[int]], value: int, side: str) -> torch.Tensor:
    """Rows of integers as one tensor, filled up with `value` on one side."""
    width = max(map(len, rows))
    if side == "left":
        return torch.tensor([[value] * (width - len(row)) + list(row) for row in rows])
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])


def pad_features(tokens: dict[str, Any], rows: Sequence[int], tokenizer: Any) -> dict[str, Any]:
    """The features of some rows of an unpadded tokenization, padded to the longest of them."""
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    features: dict[str, Any] = {}
    for key, values in tokens.items():
        if isinstance(values, list):
            features[key] = pad([values[row] for row in rows], fill.get(key, 0), tokenizer.padding_side)
        else:
            features[key] = values
    return features
