"""ListCollator: from lists of texts to one batch of tokens, each distinct passage once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch

from mlr_rag.model.batches import pad, pad_features
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.tokenizing import tokenize


class ListCollator:
    """Makes the inputs of one training step for `ListLoss` out of lists, as rows of `to_dataset` or themselves.

    The inputs are two groups of features, `query_*` of the B queries and `passage_*` of the P distinct passages of
    all lists, each stamped with its task and tokenized with the prompt that `encode_query` and `encode_document` use.
    Both are sorted by their number of tokens, longest first, so that consecutive rows need little padding. "label"
    is a dict: what `ListBatch` holds (rows in the order of the sorted queries), and `keys`, a hash of each passage.

    It can be pickled, and so be used by a DataLoader's workers.

    Args:
        model: Whose tokenizer, prompts and limits are used.
    """

    valid_label_columns = ("labels",)  # asked for by sentence-transformers' trainer, which gives it to the sampler

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, rows: Sequence[TrainingList | dict[str, Any]]) -> dict[str, Any]:
        """The inputs of one step: `query_input_ids` `(B, T)`, `passage_input_ids` `(P, T)`, ..., and `label`."""
        lists = [row if isinstance(row, TrainingList) else _from_row(row) for row in rows]
        queries, query_order = self._tokenize([each.query for each in lists], "query")
        lists = [lists[row] for row in query_order]
        distinct = list(dict.fromkeys(passage for each in lists for passage in each.passages))
        passages, passage_order = self._tokenize(distinct, "document")
        column = {distinct[row]: place for place, row in enumerate(passage_order)}
        width = max(len(each.passages) for each in lists)
        return {
            **{f"query_{key}": value for key, value in queries.items()},
            **{f"passage_{key}": value for key, value in passages.items()},
            "label": {
                "index": pad([[column[passage] for passage in each.passages] for each in lists], -1, "right"),
                "teacher": _table([each.scores or () for each in lists], width, -math.inf),
                "labels": _table([each.relevance for each in lists], width, 0.0),
                "keys": torch.tensor([_key(distinct[row]) for row in passage_order]),
                "queries": tuple(each.query for each in lists),
            },
        }

    def _tokenize(self, texts: list[str], task: str) -> tuple[dict[str, Any], list[int]]:
        """The texts' features, longest first, and which text each row is."""
        features = tokenize(self.model, texts, task)
        order = sorted(range(len(texts)), key=lambda row: -len(features["input_ids"][row]))
        return {**pad_features(features, order, self.model.tokenizer), "task": task}, order


def _from_row(row: dict[str, Any]) -> TrainingList:
    return TrainingList(row["query"], row["passages"], row.get("scores"), row.get("labels"))


def _table(rows: Sequence[Sequence[float]], width: int, fill: float) -> torch.Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.float32)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
