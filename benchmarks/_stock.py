"""What sentence-transformers' documentation has people do: mined hard negatives, MultipleNegativesRankingLoss."""

from __future__ import annotations

import copy
import math
import random
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
_MINING, _TIMED = 0.3, 96  # of the time, for mining; documents that tell how long it takes


class _Times(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self.ends.append(time.perf_counter())


def fine_tune(path: Path, budget: float, seed: int) -> SentenceTransformer:
    """The model after `budget` seconds, mining included, or four epochs: its schedule is planned to end there.

    Of a corpus that takes too long to encode a part is mined, as a reader of the documentation would come to do.
    """
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
    pairs, texts = _part(model, pairs, list(corpus.values()), _MINING * budget, random.Random(seed))
    columns = {"anchor": [query for query, _ in pairs], "positive": [text for _, text in pairs]}
    mined = mine_hard_negatives(Dataset.from_dict(columns), model, corpus=texts, num_negatives=1, verbose=False)
    times = _Times()
    _train(copy.deepcopy(model), mined, _PROBE, seed, times)
    a_step = (times.ends[-1] - times.ends[1]) / (len(times.ends) - 2)
    steps = min(math.ceil(_EPOCHS * len(mined) / _BATCH), int((deadline - time.perf_counter()) / a_step))
    _train(model, mined, max(1, steps), seed, _Times())
    return model.eval()


def _part(
    model: SentenceTransformer, pairs: list[tuple[str, str]], texts: list[str], seconds: float, draw: random.Random
) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs and documents to mine among: all, or as many as can be encoded in the time."""
    few = draw.sample(texts, min(_TIMED, len(texts)))
    model.encode_document(few[:8])
    started = time.perf_counter()
    model.encode_document(few)
    room = int(seconds * len(few) / (time.perf_counter() - started))
    if room >= len(texts):
        return pairs, texts
    chosen, wanted = [], dict[str, None]()
    for pair in draw.sample(pairs, len(pairs)):
        if len(wanted) >= room // 2:
            break
        chosen.append(pair)
        wanted[pair[1]] = None
    others = [text for text in texts if text not in wanted]
    return chosen, [*wanted, *draw.sample(others, min(len(others), max(0, room - len(wanted))))]


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
