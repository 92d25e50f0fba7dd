"""The layer report: what each layer of a model, and each pair, is worth on judged documents, before any training."""

from __future__ import annotations

import copy
import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.layer_pass import LayerPass
from mlr_rag.evaluation.layer_report import LEVEL, LayerReport, Measured, Population, is_pooling
from mlr_rag.evaluation.layer_scores import Scores, Similarity, System
from mlr_rag.evaluation.metrics import query_metrics
from mlr_rag.evaluation.significance import (
    Values,
    detectable,
    holm,
    interval,
    paired_bootstrap,
    paired_randomization,
)
from mlr_rag.model.model import MLRModel
from mlr_rag.model.sides import query_side

METRIC = "ndcg@10"
QUERIES = 1000


def measure_layers(
    model: str | Path | SentenceTransformer,
    collection: Collection,
    similarity: Similarity = "cosine",
    queries: int = QUERIES,
    seed: int = 0,
) -> LayerReport:
    """Every layer's and every pair's nDCG@10 on a judged collection, from encoding it once.

    A document is the token-pooled vector of a layer, or two of them; a query is its last layer (arXiv 2509.23861).
    The embedding layer is not measured.

    Args:
        model: What MLRModel.from_pretrained takes, or a multi-layer model, whose encoder is then measured.
        collection: The whole corpus is encoded.
        similarity: "cosine", or "dot": of vectors before the model normalizes them, as in the paper.
        queries: At most so many of the judged queries, drawn at random.
        seed: Of the draw, and of the tests.

    Raises:
        InvalidInputError: a bad option; a model of one layer, or with a query side of its own.
        ModelNotFoundError, UnsafeModelError, UnsupportedModelError: see MLRModel.from_pretrained.
    """
    started = time.perf_counter()
    if similarity not in get_args(Similarity):
        raise InvalidInputError("an unknown similarity", found=similarity, expected=" | ".join(get_args(Similarity)))
    if isinstance(queries, bool) or not isinstance(queries, int) or queries < 1:
        raise InvalidInputError("not a number of queries", found=queries, expected="1 or more")
    every = _with_every_layer(model)
    chosen = sorted(collection.queries)
    chosen = sorted(random.Random(seed).sample(chosen, min(queries, len(chosen))))  # noqa: S311  (no secret)
    qrels = {id: collection.qrels[id] for id in chosen}
    measured = LayerPass(every, {id: collection.queries[id] for id in chosen}, qrels, similarity)
    total = sum(1 for _ in collection.documents())
    measured.run(collection.documents(), total)
    values = {
        system: np.array(list(query_metrics(qrels, measured.rankings(system))[METRIC].values()))
        for system in measured.best
    }
    return LayerReport(
        model=every.name,
        collection=collection.name,
        split=collection.split,
        similarity=similarity,
        num_layers=len(every.layers),
        documents=total,
        cut=measured.cut,
        queries=len(chosen),
        of_queries=len(collection.queries),
        systems=_compared(values, seed),
        populations={name: _shares(scores) for name, scores in measured.scores.items()},
        detectable=_detectable(values, len(every.layers)),
        seconds=time.perf_counter() - started,
    )


def load_split(path: str | Path, split: str | None = None) -> Collection:
    """A collection with the judgments to choose layers by: a split's, or the first that there is of dev, train, test.

    Test comes last, as what is chosen on it can no longer be judged on it.

    Raises:
        InvalidInputError: see Collection.load.
    """
    for candidate in [split] if split else ["dev", "train"]:
        try:
            return Collection.load(path, candidate)
        except InvalidInputError as problem:
            if split or not problem.problem.endswith(f" has no qrels/{candidate}.tsv"):
                raise
    return Collection.load(path, "test")


def _with_every_layer(model: str | Path | SentenceTransformer) -> MLRModel:
    if isinstance(model, SentenceTransformer):
        model = copy.deepcopy(model)  # layers are taken by hooks, which are not to stay on the caller's model
        opened = model if isinstance(model, MLRModel) else MLRModel.from_pretrained(model, -1, "last")
    else:
        opened = MLRModel.open(model, layers=-1, pooling="last")
    if query_side(opened):
        raise InvalidInputError(
            f"{opened.name} has a query side of its own, whose layers are not the documents'",
            expected="one encoder for both",
            remedy="Measure its base.",
        )
    modules: list[Any] = list(opened)
    transformer, pooling, *tail = modules
    if pooling.num_layers < 2:
        raise InvalidInputError(f"{opened.name} has nothing to compare", found="1 layer", expected="2 or more")
    token_pooling = Pooling(pooling.dimension, pooling.token_pooling, include_prompt=pooling.include_prompt)
    settings: dict[str, Any] = {
        "prompts": opened.prompts,
        "default_prompt_name": opened.default_prompt_name,
        "truncate_dim": opened.truncate_dim,
        "device": str(opened.device),
    }
    plain = SentenceTransformer(modules=[transformer, token_pooling, *tail], **settings)
    every = MLRModel.from_pretrained(plain, range(1, pooling.num_layers + 1), "multi_vector")
    every.name = opened.name
    return every


def _compared(values: dict[System, Values], seed: int) -> tuple[Measured, ...]:
    (last, base), *others = values.items()
    differences = [
        replace(paired_bootstrap(each, base, seed=seed), p=paired_randomization(each, base, seed=seed))
        for _, each in others
    ]
    corrected = holm([difference.p for difference in differences])
    rest = [
        Measured(system, interval(each, seed=seed), difference, p)
        for (system, each), difference, p in zip(others, differences, corrected, strict=True)
    ]
    return (Measured(last, interval(base, seed=seed)), *rest)


def _shares(scores: Scores) -> Population:
    n = max(1, scores.n)
    shares = (scores.highest / n).tolist(), (scores.above / n).tolist()
    return Population(scores.n, *shares, scores.mean().tolist(), scores.std().tolist())


def _detectable(values: dict[System, Values], num_layers: int) -> float | None:
    """By the typical (root mean square) spread of the poolings that could be recommended around the last layer."""
    (_, base), *others = values.items()
    spreads = [float(np.var(each - base)) for system, each in others if is_pooling(system, num_layers)]
    spreads = [spread for spread in spreads if spread > 0]
    level = LEVEL / len(others)
    if not spreads or 2.0 ** (1 - len(base)) >= level:  # the smallest p of a randomization test: all signs alike
        return None
    return detectable(len(base), math.sqrt(sum(spreads) / len(spreads)), alpha=level)
