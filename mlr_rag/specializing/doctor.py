"""The teacher doctor: whether a teacher knows more than its student, before an hour is spent on learning from it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np

from mlr_rag.evaluation.metrics import Qrels, Run, query_metrics
from mlr_rag.evaluation.significance import Difference, paired_test
from mlr_rag.specializing.independent import independent_groups
from mlr_rag.specializing.material import Judged
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
        finding: "better" than its student, or "worse"; "unsure" where these queries cannot tell.
        words_better: Whether BM25 is surely better than the teacher; False where it has the queries' words from the
            documents that they were made of.
        general: Whether the queries are not of the corpus, but the probe's.
        pairs: How many the teacher scored for it.
        temperature: Brings the teacher's min-max-normalized scores to the spread of the student's logits, so that the
            student learns an order and need not stretch its scale.
    """

    queries: int
    teacher: float
    student: float
    bm25: float
    difference: Difference
    finding: Literal["better", "unsure", "worse"]
    words_better: bool
    general: bool
    pairs: int
    temperature: float

    @property
    def verdict(self) -> str:
        """What follows, in a sentence or two."""
        words = f" BM25 ranks better than it ({self.bm25:.3f})." if self.words_better else ""
        return self._against_student() + words

    def _against_student(self) -> str:
        where = ", on general queries" if self.general else ""
        found = f"({self.teacher:.3f} against {self.student:.3f}{where})"
        if self.finding == "better":
            return f"It ranks clearly better than its student {found}."
        if self.finding == "worse":
            return (
                f"It ranks worse than its student {found}: what learns from it comes to no more. Train one on your "
                "judgments (train_cross_encoder), take a mean with others, or go without."
            )
        return f"It is not surely better than its student {found}: it may be the ceiling of what learns from it."


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
    generated: bool = False,
    general: bool = False,
) -> Diagnosis:
    """Let the teacher, the student and BM25 each rank the union of the student's and BM25's ten best.

    Whether it is worth learning from is a matter of the student alone; that BM25 is better is said.

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
        generated: Whether they were made of the documents, so that BM25 cannot be compared.
        general: Whether they are general ones in place of the corpus's own, which is said.
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
    of_asked = Judged({id: queries[id] for id in asked}, {id: dict(qrels[id]) for id in asked})
    groups = independent_groups(of_asked, {id: id for id in corpus})
    alike = [groups[id] for id in asked]
    against, by_words = (paired_test(values["teacher"], values[rival], alike) for rival in ("student", "bm25"))
    finding: Literal["better", "unsure", "worse"] = "unsure"
    if against.p < _LEVEL:
        finding = "better" if against.mean > 0 else "worse"
    return Diagnosis(
        len(asked),
        means["teacher"],
        means["student"],
        means["bm25"],
        against,
        finding,
        not generated and by_words.mean < 0 and by_words.p < _LEVEL,
        general,
        sum(map(len, scores.values())),
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
