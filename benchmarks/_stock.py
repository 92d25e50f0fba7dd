"""What sentence-transformers' documentation has people do: mined hard negatives, MultipleNegativesRankingLoss."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import mine_hard_negatives
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from mlr_rag.evaluation.collection import Collection
from mlr_rag.model.names import DEFAULT_MODEL, resolve

_EPOCHS = 4  # as many as specialize allows itself
_BATCH, _RATE, _WARMUP = 16, 2e-5, 0.1  # the documentation's
_PROBE = 8  # steps that tell how many fit into the time


class _Times(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self.ends.append(time.perf_counter())


def fine_tune(path: Path, budget: float, seed: int) -> SentenceTransformer:
    """The model after `budget` seconds, mining included, or four epochs: its schedule is planned to end there."""
    deadline = time.perf_counter() + budget
    disable_progress_bars()
    train = Collection.load(path, "train")
    corpus = {id: text for id, text in train.texts() if text}
    pairs = [
        (train.queries[query], corpus[document])
        for query, grades in train.qrels.items()
        for document, grade in grades.items()
        if grade > 0 and document in corpus
    ]
    model = SentenceTransformer(str(resolve(DEFAULT_MODEL)))
    columns = {"anchor": [query for query, _ in pairs], "positive": [text for _, text in pairs]}
    mined = mine_hard_negatives(
        Dataset.from_dict(columns), model, corpus=list(corpus.values()), num_negatives=1, verbose=False
    )
    times = _Times()
    _train(copy.deepcopy(model), mined, _PROBE, seed, times)
    a_step = (times.ends[-1] - times.ends[1]) / (len(times.ends) - 2)
    steps = min(math.ceil(_EPOCHS * len(mined) / _BATCH), int((deadline - time.perf_counter()) / a_step))
    _train(model, mined, max(1, steps), seed, _Times())
    return model.eval()


def _train(model: SentenceTransformer, pairs: Dataset, steps: int, seed: int, times: _Times) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=_BATCH,
            learning_rate=_RATE,
            warmup_ratio=_WARMUP,
            batch_sampler="no_duplicates",
            seed=seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
        )
        trainer = SentenceTransformerTrainer(
            model, arguments, pairs, loss=MultipleNegativesRankingLoss(model), callbacks=[times]
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.train()
