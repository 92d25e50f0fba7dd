"""Candidates in the order that a teacher would put them in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.mining.candidates import Corpus, Run, score_candidates
from mlr_rag.training.teachers.scores import ScoreCache


def rerank(
    run: Mapping[str, Mapping[str, float]],
    queries: Mapping[str, str],
    corpus: Corpus,
    teacher: Any,
    cache: ScoreCache | str | Path | None = None,
    depth: int = 20,
    show_progress: bool | None = None,
) -> Run:
    """The `depth` best candidates of each query by the teacher's scores; those below, or without one, are left out.

    Compare its nDCG@10 with that of the run itself: a teacher that ranks no better than its student has nothing to
    teach.

    Args:
        run: Query id → document id → score, in any order; ties go by id.
        queries: Query id → text.
        corpus: Document id → text, or an open Retriever.
        teacher: Whatever `as_teacher` takes.
        cache: Where the teacher's scores are kept: a ScoreCache, or the path of its file.
        depth: How many candidates it ranks.
        show_progress: By default on a terminal.

    Raises:
        InvalidInputError: the run names a query or a document that is not there.
        TeacherError: see ScoreCache.score.
    """
    if depth < 1:
        raise InvalidInputError("nothing to rank", found=f"depth={depth}", expected="1 or more")
    best = {query: dict(_ranked(scores)[:depth]) for query, scores in run.items()}
    return score_candidates(teacher, queries, corpus, best, cache, show_progress=show_progress)


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
