"""The teacher doctor: whether a teacher knows more than its student, before an hour is spent on learning from it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np

from mlr_rag.evaluation.metrics import Qrels, Run, query_metrics
from mlr_rag.evaluation.significance import Difference, paired_bootstrap
from mlr_rag.specializing.recipes import TEMPERATURE
from mlr_rag.training.mining.candidates import score_candidates
from mlr_rag.training.teachers.scores import ScoreCache

QUERIES, DEPTH = 60, 10  # asked, and candidates of each ranker
LEAST, MOST = 0.05, 1.0  # the temperatures that are proposed
_LEVEL = 0.05


@dataclass(frozen=True)
class Diagnosis:
    """What a teacher is worth on held-out queries: nDCG@10 of the same candidates in the order of each ranker.

    Attributes:
        queries: How many were asked.
        teacher: The teacher's order.
        student: The order of the model that is to learn.
        bm25: BM25's.
        difference: Teacher - student, by query.
        finding: "better" than student and BM25; "worse" than one of them; "unsure" where these queries cannot tell.
        temperature: Brings the teacher's min-max-normalized scores to the spread of the student's logits, so that the
            student learns an order and need not stretch its scale.
    """

    queries: int
    teacher: float
    student: float
    bm25: float
    difference: Difference
    finding: Literal["better", "unsure", "worse"]
    temperature: float

    @property
    def verdict(self) -> str:
        """What follows, in a sentence."""
        best = max(self.student, self.bm25)
        if self.finding == "better":
            return f"It ranks clearly better than its student ({self.teacher:.3f} against {self.student:.3f})."
        rival = "its student" if self.student >= self.bm25 else "BM25"
        if self.finding == "worse":
            return (
                f"It ranks worse than {rival} ({self.teacher:.3f} against {best:.3f}): what learns from it comes to no "
                "more. Train one on your judgments (train_cross_encoder), take a mean with others, or go without."
            )
        return (
            f"It is not surely better than {rival} ({self.teacher:.3f} against {best:.3f}): it may be the ceiling of "
            "what learns from it."
        )


def examine(
    teacher: Any,
    queries: Mapping[str, str],
    qrels: Qrels,
    corpus: Mapping[str, str],
    dense: Run,
    words: Run,
    cache: ScoreCache,
    seed: int = 0,
    most: int = QUERIES,
) -> Diagnosis:
    """Let the teacher, the student and BM25 each rank the union of the student's and BM25's ten best.

    Args:
        teacher: A Teacher.
        queries: Held-out queries, id → text; at most `most` of them are asked.
        qrels: Their judgments.
        corpus: Document id → text.
        dense: What the student finds, with its cosines.
        words: What BM25 finds.
        cache: Keeps the teacher's scores.
        seed: Of the choice of queries.
        most: How many are asked.
    """
    ids = sorted(id for id in qrels if id in queries)
    asked = sorted(random.Random(seed).sample(ids, min(most, len(ids))))  # noqa: S311
    pool = {id: _first(dense, id) | _first(words, id) for id in asked}
    scores = score_candidates(teacher, {id: queries[id] for id in asked}, corpus, pool, cache, show_progress=False)
    judged = {id: qrels[id] for id in asked}
    found = {
        name: query_metrics(judged, {id: _within(run.get(id, {}), pool[id]) for id in asked})["ndcg@10"]
        for name, run in (("teacher", scores), ("student", dense), ("bm25", words))
    }
    values = {name: [of_query[id] for id in asked] for name, of_query in found.items()}
    means = {name: float(np.mean(of_name)) for name, of_name in values.items()}
    rival = "student" if means["student"] >= means["bm25"] else "bm25"
    against = paired_bootstrap(values["teacher"], values[rival])
    finding: Literal["better", "unsure", "worse"] = "unsure"
    if against.p < _LEVEL:
        finding = "better" if against.mean > 0 else "worse"
    return Diagnosis(
        len(asked),
        means["teacher"],
        means["student"],
        means["bm25"],
        paired_bootstrap(values["teacher"], values["student"]),
        finding,
        _temperature(scores, dense),
    )


def _first(run: Run, query: str) -> dict[str, float]:
    ranked = sorted(run.get(query, {}).items(), key=lambda hit: (-hit[1], hit[0]))
    return dict(ranked[:DEPTH])


def _within(scores: Mapping[str, float], pool: Mapping[str, float]) -> dict[str, float]:
    """The run over the pool alone; what a ranker did not find comes last, in no better order than by id."""
    least = min(scores.values(), default=0.0) - 1
    return {document: scores.get(document, least) for document in pool}


def _temperature(scores: Run, cosines: Run) -> float:
    """TEMPERATURE times the teacher's spread over the student's, of the lists that both have scored."""
    ratios = []
    for query, of_query in scores.items():
        both = [id for id in of_query if id in cosines.get(query, {})]
        taught = np.array([of_query[id] for id in both])
        known = np.array([cosines[query][id] for id in both])
        if len(both) > 2 and np.ptp(taught) > 0 and known.std() > 0:
            ratios.append(float((taught / np.ptp(taught)).std() / known.std()))
    return float(np.clip(round(TEMPERATURE * median(ratios), 3), LEAST, MOST)) if ratios else 0.3
