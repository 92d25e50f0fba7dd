"""What the experiments of training share: data that is fixed once, a plain training loop, and exact search."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._cells import Values
from benchmarks._common import say
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.itself import without_itself
from mlr_rag.evaluation.metrics import query_metrics
from mlr_rag.model.batches import pad_features, token_batches
from mlr_rag.model.encoding import UNPADDED
from mlr_rag.specializing.precision import half_precision
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.mining.bm25 import BM25
from mlr_rag.training.mining.candidates import mine
from mlr_rag.training.trainer.arguments import has_bfloat16
from mlr_rag.training.trainer.attention import plain_attention

Similarity = Literal["cosine", "dot"]
Grades = dict[str, dict[str, int]]
HARD = 30  # BM25's best documents that are not relevant: a query's hard negatives are drawn from them
HELD_OUT = 500  # queries of the training split that nothing is trained on
TOKENS = 128
_WINDOW, _TOKENS_AT_ONCE = 2048, 8192
_FEATURES = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Queries:
    """Judged queries."""

    texts: dict[str, str]
    qrels: Grades


@dataclass(frozen=True)
class Data:
    """A collection as all cells see it: the same corpus, hard negatives and queries."""

    name: str
    corpus: dict[str, str]
    train: Queries
    hard: dict[str, list[str]]  # training query -> documents, the hardest first
    evaluated: dict[str, Queries]  # by split


def load(archive: Path, folder: Path, test_queries: int) -> Data:
    """Read a collection, hold out training queries, and find the hard negatives (kept in the folder)."""
    corpus = {document.id: document.text for document in Collection.load(archive).documents()}
    train, test = (Collection.load(archive, split) for split in ("train", "test"))
    order = sorted(train.queries)
    random.Random(0).shuffle(order)
    held_out, order = order[:HELD_OUT], order[HELD_OUT:]
    sample = sorted(test.queries)
    sample = sorted(random.Random(0).sample(sample, min(test_queries, len(sample))))
    trained = _some(train, [id for id in order if any(document in corpus for document in train.qrels[id])])
    hard = _hard_negatives(trained, corpus, folder / f"hard-{train.name}.json")
    evaluated = {"held-out": _some(train, held_out), "test": _some(test, sample)}
    return Data(train.name, corpus, trained, hard, evaluated)


def batches(data: Data, seed: int, steps: int, lists: int, length: int) -> Iterator[list[tuple[str, list[str]]]]:
    """The batches of a seed, the same for every method: (query id, a relevant document and its hard negatives)."""
    rng = random.Random(zlib.crc32(f"{data.name} {seed}".encode()))
    order: list[str] = []
    for _ in range(steps):
        while len(order) < lists:
            epoch = [id for id in data.train.texts if len(data.hard[id]) >= length - 1]
            rng.shuffle(epoch)
            order += epoch
        chosen, order = order[:lists], order[lists:]
        yield [(id, _draw(data, id, length, rng)) for id in chosen]


def as_list(data: Data, query: str, documents: Sequence[str], scores: Sequence[float] | None = None) -> TrainingList:
    """A batch's row as a TrainingList, with its judgments as labels."""
    grades = data.train.qrels[query]
    return TrainingList(
        data.train.texts[query],
        tuple(data.corpus[id] for id in documents),
        tuple(scores) if scores is not None else None,
        tuple(float(max(grades.get(id, 0), 0)) for id in documents),
    )


def as_inputs(collator: Any, lists: Iterable[Sequence[TrainingList]]) -> Iterator[tuple[list[dict[str, Any]], Any]]:
    """Batches as `ListLoss` wants them: the features of queries and of passages, and the labels."""
    for batch in lists:
        made = collator(batch)
        yield (
            [
                {key.removeprefix(side): value for key, value in made.items() if key.startswith(side)}
                for side in ("query_", "passage_")
            ],
            made["label"],
        )


def train(model: Any, loss: nn.Module, inputs: Iterable[tuple[Any, Any]], steps: int, rate: float) -> float:
    """AdamW without decay or dropout, the rate up for a tenth of the steps and down to 0; the last tenth's loss."""
    optimizer = torch.optim.AdamW(loss.parameters(), lr=rate, weight_decay=0.0, fused=True)
    rising = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, (steps - step) / (steps - rising + 1))
    )
    values: list[float] = []
    model.train()
    model[0].eval()  # no dropout, for all methods alike; the pooling must be in training, to give the layers
    for features, labels in inputs:
        parts = loss(features, labels)
        value = sum(parts.values()) if isinstance(parts, dict) else parts
        value.backward()
        nn.utils.clip_grad_norm_(loss.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        values.append(float(value.detach()))
    model.eval()
    return float(np.mean(values[-max(1, steps // 10) :]))


@contextmanager
def in_half(model: Any, wanted: bool) -> Iterator[None]:
    """The model computes in bfloat16, where the processor has it; scores and losses do not."""
    with half_precision("cpu", wanted), plain_attention(model, wanted and has_bfloat16("cpu")):
        yield


@torch.inference_mode()
def encode(model: Any, texts: Sequence[str], task: str, similarity: Similarity) -> Tensor:
    """Vectors `(n, m, D)`, m = 1 but for multi-vector documents; as they are for "dot", of length 1 for "cosine"."""
    model.eval()
    several = task != "query" and model.vectors_per_document > 1
    tokens = model.preprocess(list(texts), task=task, processing_kwargs=UNPADDED)
    kept = {key: value for key, value in tokens.items() if key in _FEATURES}
    vectors: Tensor | None = None
    for rows in token_batches([len(row) for row in tokens["input_ids"]], _TOKENS_AT_ONCE):
        features = pad_features(kept, rows, model.tokenizer) | {"task": task}
        for module in list(model)[:2]:  # not its own Normalize, which a raw product does without
            features = module(features)
        found = features["layer_embeddings"] if several else features["sentence_embedding"].unsqueeze(1)
        if similarity == "cosine":
            found = nn.functional.normalize(found, dim=-1)
        found = found.float()  # whatever it was computed in
        vectors = found.new_empty(len(texts), *found.shape[1:]) if vectors is None else vectors
        vectors[rows] = found
    if vectors is None:
        raise ValueError("no texts")
    return vectors


@torch.inference_mode()
def search(model: Any, data: Data, split: str, similarity: Similarity, k: int = 100) -> dict[str, dict[str, float]]:
    """The k best documents of every query, by the largest product over a document's vectors."""
    ids, texts = list(data.corpus), list(data.corpus.values())
    queries = data.evaluated[split].texts
    asked = encode(model, list(queries.values()), "query", similarity)[:, 0]
    best = torch.full((len(queries), 0), 0.0)
    where = torch.zeros(best.shape, dtype=torch.long)
    for start in range(0, len(texts), _WINDOW):
        documents = encode(model, texts[start : start + _WINDOW], "document", similarity)
        best, where = merge(best, where, largest(asked, documents), start, k)
    return as_run(data.evaluated[split], ids, best, where, k)


def largest(queries: Tensor, documents: Tensor) -> Tensor:
    """Scores `(q, n)` of vectors `(q, D)` with `(n, m, D)`, a few documents at a time."""
    step = max(1, 2**24 // (len(queries) * documents.shape[1]))
    with torch.autocast("cpu", enabled=False):
        parts = [torch.einsum("qd,nmd->qnm", queries, part).amax(-1) for part in documents.split(step)]
    return torch.cat(parts, dim=1)


def merge(best: Tensor, where: Tensor, scores: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """The best k + 1 of what was found before and a window's scores."""
    places = torch.arange(start, start + scores.shape[1]).expand_as(scores)
    scores, places = torch.cat([best, scores], 1), torch.cat([where, places], 1)
    top = scores.topk(min(k + 1, scores.shape[1]))
    return top.values, places.gather(1, top.indices)


def as_run(queries: Queries, ids: Sequence[str], best: Tensor, where: Tensor, k: int) -> dict[str, Any]:
    """A run for ir_measures, less what `without_itself` leaves out."""
    run = {}
    for query, scores, places in zip(queries.texts, best.tolist(), where.tolist(), strict=True):
        found = ((ids[place], score) for place, score in zip(places, scores, strict=True))
        run[query] = without_itself(query, found, k, queries.qrels)
    return run


def measure(data: Data, split: str, run: Mapping[str, Mapping[str, float]]) -> Values:
    """nDCG@10, and whether a relevant document is among the first 5, 20 and 100, for every query in order."""
    judged = data.evaluated[split]
    ndcg = query_metrics(judged.qrels, run)["ndcg@10"]
    found: Values = {"ndcg@10": np.array([ndcg[id] for id in judged.texts])}
    for k in (5, 20, 100):
        hits = [any(judged.qrels[id].get(document, 0) > 0 for document in list(run[id])[:k]) for id in judged.texts]
        found[f"top-{k}"] = np.array(hits, dtype=np.float64)
    return found


def _some(collection: Collection, ids: Sequence[str]) -> Queries:
    return Queries({id: collection.queries[id] for id in ids}, {id: collection.qrels[id] for id in ids})


def _draw(data: Data, query: str, length: int, rng: random.Random) -> list[str]:
    relevant = [id for id, grade in data.train.qrels[query].items() if grade > 0 and id in data.corpus]
    positive = rng.choice(sorted(relevant))
    return [positive, *rng.sample(data.hard[query], length - 1)]


def _hard_negatives(queries: Queries, corpus: dict[str, str], file: Path) -> dict[str, list[str]]:
    """BM25's best that are not relevant, each text once."""
    if file.exists():
        known: dict[str, list[str]] = json.loads(file.read_text("utf-8"))
        return known
    say("BM25's hard negatives of", file.stem)
    found = {}
    for query, scores in mine(queries.texts, corpus, (BM25(),), depth=2 * HARD).items():
        relevant = {corpus[id] for id, grade in queries.qrels[query].items() if grade > 0 and id in corpus}
        first = {corpus[id]: id for id in reversed(list(scores)) if corpus[id] not in relevant}
        found[query] = [id for id in scores if first.get(corpus[id]) == id][:HARD]
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(found), "utf-8")
    fresh.replace(file)
    return found
