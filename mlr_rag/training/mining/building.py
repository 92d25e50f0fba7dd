"""From candidates, judgments and a teacher's scores to training lists, with a count of all that is left out."""

from __future__ import annotations

import logging
import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.mining.candidates import Corpus, check_corpus, check_known, check_texts, passages
from mlr_rag.training.teachers.scores import ScoreCache

logger = logging.getLogger(__name__)

Graded = Mapping[str, Mapping[str, float]]  # query id → document id → grade or score


@dataclass(frozen=True)
class Counts:
    """What became of the queries, and what was left out of their lists.

    Each query is one of lists, blank_queries, without_positives and too_short.

    Attributes:
        queries: Queries given.
        lists: Queries with a list.
        blank_queries: Queries without a visible character.
        without_positives: Queries with no relevant document in the corpus, or with none that has a teacher score;
            without judgments, with no candidate.
        too_short: Queries whose list would hold fewer than two passages, as those that were not mined.
        positives_missing_from_corpus: Relevant documents that the corpus lacks, or holds blank.
        positives_added: Relevant documents in lists that were not among the candidates.
        positives_left_out: Relevant documents that found no room in their list.
        false_negatives_dropped: Candidates that the teacher likes about as much as the positive.
        duplicates_dropped: Passages that say the same as another one of their list, or as a positive.
        unscored_dropped: Candidates without a teacher score.
        positives_unscored: Relevant documents without a teacher score: they are in no list, and never negatives.
    """

    queries: int = 0
    lists: int = 0
    blank_queries: int = 0
    without_positives: int = 0
    too_short: int = 0
    positives_missing_from_corpus: int = 0
    positives_added: int = 0
    positives_left_out: int = 0
    false_negatives_dropped: int = 0
    duplicates_dropped: int = 0
    unscored_dropped: int = 0
    positives_unscored: int = 0


def build_lists(
    queries: Mapping[str, str],
    corpus: Corpus,
    qrels: Graded | None,
    run: Graded,
    scores: Graded | None = None,
    *,
    length: int = 20,
    positives: Literal["all", "one"] = "all",
    max_teacher_ratio: float | None = None,
    sampling: Literal["top", "random"] = "top",
    seed: int = 0,
) -> tuple[list[TrainingList], Counts]:
    """A list for each query: its positives, best first, then candidates that are not known to be relevant.

    A positive is a document with a grade above 0, found or not; it is never a negative. Without judgments it is the
    candidate that the teacher scores highest, as in arXiv 2502.19712. Passages whose texts differ only in case, width
    or white space are one.

    Args:
        queries: Query id → text.
        corpus: Document id → text, or an open Retriever.
        qrels: Query id → document id → grade; these become the labels. None where there are no judgments.
        run: The candidates of each query, best first, as `mine` gives them.
        scores: The teacher's scores, as `score_candidates` gives them (with `qrels`, where there are any). What has no
            score is left out, positives too.
        length: Passages in a list, at the most.
        positives: "all" that have room in half of the list, those of the highest grades first, or only "one".
        max_teacher_ratio: Leave out negatives with a higher teacher score than this part of the highest-scored
            positive's; both are min-max normalized over the query's scored passages. The paper has 0.6. Where a teacher
            scores all passages of a query alike, none is left out; nor by default, however much it likes them.
        sampling: Which negatives: the "top" candidates, or "random" ones.
        seed: Of the random choice, which is made for each query by itself.

    Raises:
        InvalidInputError: an option makes no sense, or the run names a document that the corpus lacks.
    """
    recipe = _Recipe(length, positives, max_teacher_ratio, sampling, seed)
    recipe.check(qrels, scores)
    check_texts(queries, "query")
    check_corpus(corpus)
    tally: Counter[str] = Counter(queries=len(queries))
    lists: list[TrainingList] = []
    for id, text in queries.items():
        grades = None if qrels is None else qrels.get(id, {})
        likes = None if scores is None else scores.get(id, {})
        made = recipe.build(id, text, corpus, grades, list(run.get(id, ())), likes, tally)
        if isinstance(made, str):
            tally[made] += 1
        else:
            lists.append(made)
    if tally["positives_unscored"]:
        logger.warning(
            "%d relevant documents have no teacher score, and are left out. Where the teacher skipped none, pass qrels "
            "to score_candidates, which then scores them as well",
            tally["positives_unscored"],
        )
    return lists, Counts(**(tally | Counter(lists=len(lists))))


@dataclass(frozen=True)
class _Recipe:
    """The options of build_lists."""

    length: int
    positives: str
    ratio: float | None
    sampling: str
    seed: int

    def check(self, qrels: Graded | None, scores: Graded | None) -> None:
        if self.length < 2:
            raise InvalidInputError("a list needs two passages", found=f"length={self.length}", expected="2 or more")
        for name, value, known in (
            ("positives", self.positives, ("all", "one")),
            ("sampling", self.sampling, ("top", "random")),
        ):
            if value not in known:
                raise InvalidInputError(f"an unknown {name}", found=value, expected=" | ".join(known))
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise InvalidInputError("not a ratio of teacher scores", found=self.ratio, expected="above 0, at most 1")
        if scores is None and (qrels is None or self.ratio is not None):
            why = "no positives are known" if qrels is None else "max_teacher_ratio compares them"
            raise InvalidInputError(f"teacher scores are needed: {why}", expected="scores=score_candidates(...)")

    def build(
        self,
        id: str,
        query: str,
        corpus: Corpus,
        grades: Mapping[str, float] | None,
        candidates: list[str],
        scores: Mapping[str, float] | None,
        tally: Counter[str],
    ) -> TrainingList | str:
        """The list, or the name of the count that says why there is none."""
        if not query.strip():
            return "blank_queries"
        relevant = [] if grades is None else [document for document, grade in grades.items() if grade > 0]
        texts = passages(corpus, list(dict.fromkeys([*candidates, *relevant])))
        check_known(id, candidates, texts)
        found = set(candidates)
        if scores is not None:
            tally["unscored_dropped"] += sum(document not in scores for document in found.difference(relevant))
            candidates = [document for document in candidates if document in scores]
        if grades is None:
            known = sorted(candidates, key=lambda document: -(scores or {})[document])[:1]
        else:
            known = [document for document in relevant if document in texts]
            tally["positives_missing_from_corpus"] += len(relevant) - len(known)
            known.sort(key=lambda document: (-grades[document], -(scores or {}).get(document, 0)))
        if not known:
            return "without_positives"
        if not found and scores == {}:  # it was not mined, so that nobody asked the teacher
            return "too_short"
        seen: set[str] = set()
        distinct = _distinct(_scored_first(known, scores), texts, seen, tally)
        if scores is not None:
            tally["positives_unscored"] += sum(document not in scores for document in distinct)
            distinct = [document for document in distinct if document in scores]
        if not distinct:
            return "without_positives"
        chosen = distinct[: 1 if self.positives == "one" else self.length // 2]
        tally["positives_left_out"] += len(distinct) - len(chosen)
        negatives = [document for document in candidates if document not in known]
        negatives = self._unlike(known, _distinct(negatives, texts, seen, tally), scores, tally)
        members = [*chosen, *self._sample(id, negatives, self.length - len(chosen))]
        if len(members) < 2:
            return "too_short"
        tally["positives_added"] += len(set(chosen) - found)
        return TrainingList(
            query,
            tuple(texts[document] for document in members),
            None if scores is None else tuple(scores[document] for document in members),
            None if grades is None else tuple(max(0.0, float(grades.get(document, 0))) for document in members),
        )

    def _unlike(
        self, positives: list[str], negatives: list[str], scores: Mapping[str, float] | None, tally: Counter[str]
    ) -> list[str]:
        """The negatives that the teacher likes clearly less than the positives."""
        if self.ratio is None or scores is None:
            return negatives
        liked = [scores[document] for document in positives if document in scores]
        values = [*liked, *(scores[document] for document in negatives)]
        lowest = min(values)
        if max(values) == lowest:
            return negatives
        limit = lowest + self.ratio * (max(liked) - lowest)
        kept = [document for document in negatives if scores[document] <= limit]
        tally["false_negatives_dropped"] += len(negatives) - len(kept)
        return kept

    def _sample(self, id: str, negatives: list[str], room: int) -> list[str]:
        """Some of the negatives, in their order."""
        if self.sampling == "top" or len(negatives) <= room:
            return negatives[:room]
        drawn = random.Random(f"{self.seed} {id}").sample(range(len(negatives)), room)  # noqa: S311
        return [negatives[place] for place in sorted(drawn)]


def _scored_first(positives: list[str], scores: Mapping[str, float] | None) -> list[str]:
    """So that of two that say the same the one with a score is kept."""
    return positives if scores is None else sorted(positives, key=lambda document: document not in scores)


def _distinct(documents: Sequence[str], texts: Mapping[str, str], seen: set[str], tally: Counter[str]) -> list[str]:
    """The documents that say what none before them says; `seen` grows."""
    kept = []
    for document in documents:
        said = normalized(texts[document])
        if said in seen:
            tally["duplicates_dropped"] += 1
        else:
            seen.add(said)
            kept.append(document)
    return kept


def normalized(text: str) -> str:
    """A text less its case, its width and its white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def with_scores(
    lists: Sequence[TrainingList], teacher: Any, cache: ScoreCache | str | Path | None = None
) -> list[TrainingList]:
    """The lists with the teacher's scores of their passages, in place of any that they have.

    A passage that a teacher with `skip_failures` could not score is left out, and with it a list of which fewer than
    two are left; the cache's `skipped` counts them.

    Args:
        lists: Any number.
        teacher: Who is asked: whatever `as_teacher` takes; of a list of teachers it is the mean, each brought to one
            scale over these very pairs.
        cache: Where scores are kept: a ScoreCache, or the path of its file; None keeps them nowhere.

    Raises:
        TeacherError: see ScoreCache.score.
    """
    from mlr_rag.training.teachers.teacher import scored  # which imports torch

    pairs = [(each.query, passage) for each in lists for passage in each.passages]
    scores = iter(scored(teacher, pairs, cache).tolist())
    made = (_with(each, [next(scores) for _ in each.passages]) for each in lists)
    return [each for each in made if each is not None]


def _with(each: TrainingList, scores: list[float]) -> TrainingList | None:
    """The list with these scores, less its passages whose score is NaN; None where fewer than two are left."""
    places = [place for place, score in enumerate(scores) if not isnan(score)]
    if len(places) < 2:
        return None
    passages, labels = each.passages, each.labels
    return replace(
        each,
        passages=tuple(passages[place] for place in places),
        scores=tuple(scores[place] for place in places),
        labels=None if labels is None else tuple(labels[place] for place in places),
    )


def percentiles(scores: Graded, low: float = 1, high: float = 99) -> tuple[float, float]:
    """The percentiles of all the scores, for `normalize_teacher(method="percentile")`.

    Raises:
        InvalidInputError: there are no scores.
    """
    values = [value for of_query in scores.values() for value in of_query.values()]
    if not values:
        raise InvalidInputError("no scores to take percentiles of", expected="one or more")
    bounds = np.percentile(values, [low, high])
    return float(bounds[0]), float(bounds[1])
