"""The test: the base and the chosen model on queries that no decision has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlr_rag.evaluation.metrics import DEPTH, MEASURES, query_metrics
from mlr_rag.evaluation.significance import detectable, interval, paired_test, spread
from mlr_rag.specializing.finding import find
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.precision import HalfPrecision
from mlr_rag.specializing.report.data import Comparison, Example, Metric, QueryScore, ShownHit
from mlr_rag.training.mining.candidates import Dense, Run
from mlr_rag.training.mining.vectors import VectorCache

_EXAMPLES, _SHOWN = 10, 5  # queries of each kind, and hits of each


def compare(
    base: Any,
    model: Any,
    test: Judged,
    groups: Mapping[str, int],
    corpus: Mapping[str, str],
    vectors: VectorCache,
    earlier: Iterable[Comparison] = (),
) -> Comparison:
    """Both models' metrics of each test query over the corpus, their means with intervals, and examples.

    Args:
        base: The base model.
        model: The candidate.
        test: Queries and judgments.
        groups: Query id → its group, of queries that are not independent of each other.
        corpus: Document id → text.
        vectors: Where vectors are looked up, and kept.
        earlier: Other comparisons, some of them perhaps of the same queries.
    """
    runs = [find(Dense(HalfPrecision(each), vectors), test, corpus, DEPTH, "Testing") for each in (base, model)]
    before, after = (query_metrics(test.qrels, run) for run in runs)
    ids = sorted(test.qrels)
    scores = [
        QueryScore(id=id, text=test.queries[id], base=before["ndcg@10"][id], specialized=after["ndcg@10"][id])
        for id in ids
    ]
    ranked = sorted(scores, key=lambda score: (-score.difference, score.id))
    improved = [score for score in ranked[:_EXAMPLES] if score.difference > 0]
    hurt = [score for score in ranked[::-1][:_EXAMPLES] if score.difference < 0]
    of_query = [groups[id] for id in ids]
    count = len(set(of_query))
    spreads = spread([score.difference for score in scores], of_query) if count > 1 else None
    return Comparison(
        metrics={
            name: _metric([before[name][id] for id in ids], [after[name][id] for id in ids], of_query)
            for name in MEASURES
        },
        per_query=tuple(scores),
        improved=tuple(_example(score, test, corpus, runs) for score in improved),
        hurt=tuple(_example(score, test, corpus, runs) for score in hurt),
        detectable=None if spreads is None else detectable(len(ids), spreads),
        groups=count if count < len(ids) else None,
        looks=1 + len(_others(scores, earlier)),
    )


def _others(scores: Sequence[QueryScore], earlier: Iterable[Comparison]) -> set[tuple[tuple[str, float], ...]]:
    """Other candidates that half of these queries, or more, have been asked with, by what they came to."""
    asked = {(score.id, score.text) for score in scores}
    candidates = {
        tuple((score.id, score.specialized) for score in found.per_query)
        for found in earlier
        if found.ties < found.queries
        and 2 * len(asked & {(score.id, score.text) for score in found.per_query}) >= len(asked)
    }
    return candidates - {tuple((score.id, score.specialized) for score in scores)}


def _metric(base: Sequence[float], specialized: Sequence[float], groups: Sequence[int]) -> Metric:
    tested = paired_test(specialized, base, groups)  # the guard's
    return Metric(base=interval(base, groups), specialized=interval(specialized, groups), difference=tested)


def _example(score: QueryScore, test: Judged, corpus: Mapping[str, str], runs: list[Run]) -> Example:
    relevant = {document for document, grade in test.qrels[score.id].items() if grade > 0}
    before, after = (_hits(run[score.id], corpus, relevant) for run in runs)
    return Example(
        id=score.id,
        text=score.text,
        base=score.base,
        specialized=score.specialized,
        relevant=tuple(corpus[id] for id in sorted(relevant) if id in corpus)[:_SHOWN],
        before=before,
        after=after,
    )


def _hits(found: Mapping[str, float], corpus: Mapping[str, str], relevant: set[str]) -> tuple[ShownHit, ...]:
    return tuple(
        ShownHit(rank=rank, score=score, text=corpus[id], relevant=id in relevant)
        for rank, (id, score) in enumerate(list(found.items())[:_SHOWN], 1)
    )
