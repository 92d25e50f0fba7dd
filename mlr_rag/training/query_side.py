"""Training a query adapter: every document's vector is a constant, and so is every query's before the adapter.

So both are encoded once, each step is two small matrix products, and every document of the corpus can be a negative of
every query. A separate query encoder has no such constants: freeze the documents (`model.freeze_documents()`) and give
the model to MLRTrainer.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mlr_rag import progress
from mlr_rag.encoders import vectors_per_document
from mlr_rag.errors import InvalidInputError, TrainingError
from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.evaluation.itself import without_itself
from mlr_rag.evaluation.metrics import Qrels, mean_metrics
from mlr_rag.model import MLRModel
from mlr_rag.model.query_adapter import QueryAdapter
from mlr_rag.model.sides import query_side
from mlr_rag.training.cache import open_cache
from mlr_rag.training.lists import ListBatch, TrainingList
from mlr_rag.training.losses._checks import check_positive_number
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.objectives import InfoNCE, Objective

logger = logging.getLogger(__name__)

_DEPTH = 10  # nDCG@10 asks for no more


@dataclass(frozen=True)
class QueryTraining:
    """What `train_query_adapter` did.

    Attributes:
        history: nDCG@10 of the dev queries over the corpus: first as the adapter came, then after each epoch; ()
            without dev queries.
        best: The epoch whose weights were kept; 0 where training made nothing better.
        losses: The mean loss of each epoch.
        seconds: Wall-clock time, encoding included.
    """

    history: tuple[float, ...]
    best: int
    losses: tuple[float, ...]
    seconds: float


def train_query_adapter(
    model: MLRModel,
    lists: Sequence[TrainingList],
    corpus: Mapping[str, str] | None = None,
    objective: Objective | None = None,
    *,
    dev: tuple[Mapping[str, str], Qrels] | None = None,
    held: Collection[str] = (),
    cache: VectorCache | str | Path | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    show_progress: bool | None = None,
) -> QueryTraining:
    """Train the model's query adapter, in place; no document's vector changes, whatever comes of it.

    Encoding is nearly all of the cost, and is kept in the cache: a run that was killed takes seconds when it is run
    again. The same input and seed give the same weights.

    Args:
        model: From `add_query_adapter`. What it is trained from is its adapter as it comes.
        lists: Queries, and what is known of their passages. A relevant document that is missing from its query's list
            counts as a negative, so let the lists hold all of them (`build_lists(..., positives="all")`).
        corpus: Document id → text: all of them are candidates in every batch. By default only the lists' passages.
        objective: What is to become small; by default InfoNCE. It sees each document by the vectors that stores hold.
        dev: Other queries, id → text, and their judgments, query id → document id → grade: the weights of the epoch
            with the best nDCG@10 over the corpus are kept, the first ones included. Without them the last ones are.
        held: Ids of documents of the corpus that dev queries search, and that are no candidates in training.
        cache: Where vectors are kept: a VectorCache, or the path of its file.
        epochs: Passes over the lists.
        batch_size: Lists in a step.
        learning_rate: AdamW's at the start; it falls linearly to 0.
        seed: Of the order of the lists.
        show_progress: By default on a terminal.

    Raises:
        InvalidInputError: the model has no adapter, a frozen one, or a query encoder of its own; no lists; dev without
            a corpus, with judged queries that have no text, or without any relevant document.
        TrainingError: scores, the loss or weights are not finite. The adapter is left at its best, or as it came.
    """
    started = time.perf_counter()
    adapter = _only_adapter(model)
    _check(adapter, lists, corpus, dev, epochs, batch_size, learning_rate)
    frozen = _Frozen(model, lists, corpus, open_cache(VectorCache, cache), show_progress, held)
    searched = None if dev is None or corpus is None else _Dev(frozen, corpus, *dev)
    objective = objective or InfoNCE()
    learned = [parameter for part in (adapter, objective) for parameter in part.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(lists) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    history = [] if searched is None else [searched.ndcg(adapter)]
    best, kept, losses = 0, copy.deepcopy(adapter.state_dict()), []
    bar = progress.start("Training the query adapter", len(lists) * epochs, show_progress)
    try:
        for epoch in range(1, epochs + 1):
            total = 0.0
            for rows in torch.split(torch.randperm(len(lists), generator=generator), batch_size):
                scores = frozen.scores(adapter, frozen.queries[rows])[:, : frozen.candidates]
                _check_finite("a score", [scores], epoch)
                loss = objective(scores, frozen.batch(rows))
                _check_finite("the loss", [loss], epoch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(rows)
                bar.update(len(rows))
            _check_finite("a weight", learned, epoch)
            losses.append(total / len(lists))
            if searched is not None:
                history.append(searched.ndcg(adapter))
                logger.info("epoch %s: loss %.4f, dev nDCG@10 %.4f", epoch, losses[-1], history[-1])
            if searched is None or history[-1] > history[best]:
                best, kept = epoch, copy.deepcopy(adapter.state_dict())
    finally:
        bar.close()
        adapter.load_state_dict(kept)
    return QueryTraining(tuple(history), best, tuple(losses), time.perf_counter() - started)


class _Frozen:
    """All that training does not change: vectors of documents and, before the adapter, of queries; and the lists."""

    def __init__(
        self,
        model: MLRModel,
        lists: Sequence[TrainingList],
        corpus: Mapping[str, str] | None,
        cache: VectorCache,
        show_progress: bool | None,
        held: Collection[str] = (),
    ) -> None:
        self._cache, self._show, self._model = cache, show_progress, model
        self._base = model.without_query_adapter()
        self._base.truncate_dim = None  # the adapter comes before the cut
        self._several = vectors_per_document(model) > 1
        texts = {id: text for id, text in (corpus or {}).items() if text.strip()}
        listed = (passage for each in lists for passage in each.passages)
        candidates = dict.fromkeys([*(text for id, text in texts.items() if id not in held), *listed])
        self.candidates = len(candidates)  # the first columns; those of dev queries alone come after them
        self.columns = {text: column for column, text in enumerate(dict.fromkeys([*candidates, *texts.values()]))}
        vectors = self._encoded(list(self.columns), "document")
        layers = vectors.reshape(len(vectors), -1, vectors.shape[-1]).flip(1)  # the last layer first
        self.documents = normalize(layers[..., : model.truncate_dim], dim=-1)
        self._texts = [each.query for each in lists]
        self.queries = self._encoded(self._texts, "query")
        width = max(len(each.passages) for each in lists)
        self._index = torch.full((len(lists), width), -1)
        self._teacher = torch.full((len(lists), width), -math.inf)
        self._labels = torch.zeros(len(lists), width)
        for row, each in enumerate(lists):
            here = slice(len(each.passages))
            self._index[row, here] = torch.tensor([self.columns[passage] for passage in each.passages])
            self._labels[row, here] = torch.tensor(each.relevance)
            if each.scores is not None:
                self._teacher[row, here] = torch.tensor(each.scores)

    def encoded_queries(self, texts: Sequence[str]) -> Tensor:
        """`(n, D)`, before the adapter."""
        return self._encoded(texts, "query")

    def scores(self, adapter: QueryAdapter, queries: Tensor) -> Tensor:
        """`(B, P, m)` of queries `(B, D)` with every document."""
        adapted = normalize(adapter.adapt(queries)[:, : self._model.truncate_dim], dim=-1)
        return torch.einsum("bd,pmd->bpm", adapted, self.documents)

    def batch(self, rows: Tensor) -> ListBatch:
        """What the objective sees of these lists beside the scores."""
        index, teacher, labels = (
            table[rows].to(self._model.device) for table in (self._index, self._teacher, self._labels)
        )
        texts = tuple(self._texts[row] for row in rows.tolist())
        return ListBatch(index, teacher, labels, texts, self._several)

    def _encoded(self, texts: Sequence[str], task: str) -> Tensor:
        return torch.from_numpy(self._cache.encode(self._base, texts, task, self._show)).to(self._model.device)


class _Dev:
    """The dev queries, searched with each epoch's adapter."""

    def __init__(self, frozen: _Frozen, corpus: Mapping[str, str], queries: Mapping[str, str], qrels: Qrels) -> None:
        self._frozen = frozen
        self._qrels = {id: grades for id, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
        self._ids = list(self._qrels)
        self._queries = frozen.encoded_queries([queries[id] for id in self._ids])
        self._documents = sorted(id for id in corpus if corpus[id].strip())
        self._columns = torch.tensor([frozen.columns[corpus[id]] for id in self._documents])

    @torch.no_grad()
    def ndcg(self, adapter: QueryAdapter) -> float:
        run: dict[str, dict[str, float]] = {}
        for start in range(0, len(self._ids), 256):
            scores = self._frozen.scores(adapter, self._queries[start : start + 256]).amax(-1)[:, self._columns]
            found = scores.topk(min(_DEPTH + 1, len(self._documents)))
            for id, values, places in zip(
                self._ids[start:], found.values.tolist(), found.indices.tolist(), strict=False
            ):
                hits = zip((self._documents[place] for place in places), values, strict=True)
                run[id] = without_itself(id, hits, _DEPTH, self._qrels)
        return mean_metrics(self._qrels, run)["ndcg@10"]


def _only_adapter(model: Any) -> QueryAdapter:
    parts = query_side(model)
    adapters = [part for part in parts if isinstance(part, QueryAdapter)]
    if len(parts) != 1 or not adapters:
        raise InvalidInputError(
            "what only queries go through is not just an adapter",
            found=[type(part).__name__ for part in parts],
            expected="QueryAdapter",
            remedy="Use model.add_query_adapter(); for a separate query encoder freeze_documents() and MLRTrainer.",
        )
    return adapters[0]


def _check(
    adapter: QueryAdapter,
    lists: Sequence[TrainingList],
    corpus: Mapping[str, str] | None,
    dev: tuple[Mapping[str, str], Qrels] | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    if not all(parameter.requires_grad for parameter in adapter.parameters()):
        raise InvalidInputError(
            "the adapter is frozen",
            found="weights without requires_grad",
            expected="weights to train",
            remedy="Call model.freeze_documents(), which leaves the adapter to be trained.",
        )
    if not lists:
        raise InvalidInputError("no lists to train on", expected="one or more")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInputError(f"{name} cannot be used", found=value, expected="1 or more")
    check_positive_number("learning_rate", learning_rate)
    if dev is not None and corpus is None:
        raise InvalidInputError("dev queries, and no corpus to search", expected="corpus, a mapping of id → text")
    if dev is not None and corpus is not None:
        RetrievalEvaluator(*dev, corpus)  # it refuses what cannot be evaluated


def _check_finite(name: str, tensors: Sequence[Tensor], epoch: int) -> None:
    if all(tensor.isfinite().all() for tensor in tensors):
        return
    raise TrainingError(
        f"not finite in epoch {epoch}: {name}",
        found="NaN or infinity",
        expected="numbers",
        remedy="Lower the learning rate, or raise the objective's temperature.",
    )
