"""LengthBucketSampler: batches of lists of like length, in another order each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.tokenizing import tokenize

_BATCHES_IN_BUCKET = 32


class LengthBucketSampler(DefaultBatchSampler):
    """Puts lists of like length into one batch: every list once an epoch, in an order that seed and epoch settle.

    Lists are shuffled, cut into buckets of 32 batches, sorted by length within a bucket, and the batches shuffled. A
    list's length is the number of tokens of its passages as the model reads them; it is counted once. The order of
    an epoch does not depend on those before it, so a resumed run sees the same batches.

    Args:
        dataset: What `to_dataset` made.
        batch_size: Lists in a batch; the last batch may have fewer.
        drop_last: Leave such a batch out.
        model: Whose tokenizer counts.
        valid_label_columns: Not in use; sentence-transformers' trainer passes it.
        generator: Not in use, as the order is that of seed and epoch alone.
        seed: Another seed is another order.

    Raises:
        InvalidInputError: batch_size is not a number of lists.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        model: Any,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InvalidInputError("batch_size is not a number of lists", found=batch_size, expected="1 or more")
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        self.lengths = count_tokens(model, dataset["passages"])

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches = []
        size = self.batch_size * _BATCHES_IN_BUCKET
        for start in range(0, len(order), size):
            bucket = sorted(order[start : start + size], key=lambda row: -self.lengths[row])
            batches += [bucket[first : first + self.batch_size] for first in range(0, len(bucket), self.batch_size)]
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[place]

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + bool(rest and not self.drop_last)


def count_tokens(model: Any, lists: Any) -> list[int]:
    """How many tokens the passages of each list have together, cut to what the model reads; each text once."""
    texts = list(dict.fromkeys(passage for passages in lists for passage in passages))
    lengths = [len(row) for row in tokenize(model, texts, "document")["input_ids"]]
    of_text = dict(zip(texts, lengths, strict=True))
    return [sum(of_text[passage] for passage in passages) for passages in lists]
