"""nDCG@10, recall@100 and MRR@10 of a retriever on a judged collection, computed by ir_measures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import ir_measures

from mlr_rag import progress
from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.itself import without_itself

if TYPE_CHECKING:
    from mlr_rag.retriever import Retriever

DEPTH = 100
MEASURES = {"ndcg@10": ir_measures.nDCG @ 10, "recall@100": ir_measures.R @ 100, "mrr@10": ir_measures.RR @ 10}
_AT_ONCE = 256  # queries

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """How well a retriever did.

    Attributes:
        metrics: "ndcg@10", "recall@100" and "mrr@10", means over the queries.
        documents: Documents in the corpus.
        blank: How many of them are blank, and hence not indexed.
        queries: Queries with a positive judgment.
        judgments: Judgments of these queries.
        seconds: Wall-clock time, indexing included.
    """

    metrics: dict[str, float]
    documents: int
    blank: int
    queries: int
    judgments: int
    seconds: float


def evaluate(retriever: Retriever, collection: Collection) -> Evaluation:
    """Make the retriever's store hold the collection, ask every query, and compare with the judgments.

    Raises:
        InvalidInputError: the store holds documents that are not this collection's.
    """
    started = time.perf_counter()
    others = retriever.count() - retriever.count({"collection": collection.name})
    if others:
        raise InvalidInputError(
            f"{retriever.store.url} holds documents that are not of {collection.name}",
            found=f"{others:,} others",
            expected="an empty collection, or one that an evaluation made",
            remedy="Evaluate in another place; memory: is always new.",
        )
    blank = [not text for _, text in collection.texts()]
    retriever.sync(collection.documents())
    run = search_all(retriever, collection.queries, collection.qrels)
    return Evaluation(
        metrics=mean_metrics(collection.qrels, run),
        documents=len(blank),
        blank=sum(blank),
        queries=len(collection.queries),
        judgments=collection.judgments,
        seconds=time.perf_counter() - started,
    )


def search_all(
    retriever: Retriever, queries: Mapping[str, str], qrels: Qrels, k: int = DEPTH
) -> dict[str, dict[str, float]]:
    """The run: the k best documents of each query and their scores, less what `without_itself` leaves out."""
    run: dict[str, dict[str, float]] = {}
    bar = progress.start("Searching", len(queries), None)
    remaining = iter(queries.items())
    while part := list(islice(remaining, _AT_ONCE)):
        for (id, _), hits in zip(part, retriever.search_many([text for _, text in part], k + 1), strict=True):
            run[id] = without_itself(id, ((hit.document.id, hit.score) for hit in hits), k, qrels)
        bar.update(len(part))
    bar.close()
    return run


def mean_metrics(qrels: Qrels, run: Run) -> dict[str, float]:
    """The mean of each measure over the judged queries; one without any hit counts as 0."""
    found = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
    return {name: float(found[measure]) for name, measure in MEASURES.items()}


def query_metrics(qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Each measure for each judged query: name → query id → value."""
    values = {name: dict.fromkeys(qrels, 0.0) for name in MEASURES}
    names = {measure: name for name, measure in MEASURES.items()}
    for metric in ir_measures.iter_calc(list(MEASURES.values()), qrels, run):
        values[names[metric.measure]][metric.query_id] = float(metric.value)
    return values
