"""Training lists for a specialization: one for each relevant passage of a query, and none of what is held out."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from mlr_rag.specializing.material import Judged
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.mining.building import build_lists
from mlr_rag.training.mining.candidates import Run, score_candidates
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import Teacher

POSITIVES = 4  # of a query that has more, those of the highest grades


@dataclass(frozen=True)
class Entries:
    """What lists are made of: a query with one passage that is relevant, and candidates that are not known to be.

    Attributes:
        queries: Entry → the query's text.
        positives: Entry → the id of its passage → the grade.
        candidates: Entry → the ids of others, best first.
        corpus: The texts of all of them.
    """

    queries: dict[str, str]
    positives: dict[str, dict[str, int]]
    candidates: dict[str, dict[str, float]]
    corpus: Mapping[str, str]

    def without(self, entries: Collection[str]) -> Entries:
        """All but these."""
        kept = {entry: text for entry, text in self.queries.items() if entry not in entries}
        return Entries(kept, self.positives, self.candidates, self.corpus)

    def score(self, teacher: Teacher, cache: ScoreCache, entries: list[str], depth: int) -> Run:
        """The teacher's scores of each entry's passage and its `depth` first candidates."""
        return score_candidates(
            teacher,
            {entry: self.queries[entry] for entry in entries},
            self.corpus,
            {entry: self.candidates[entry] for entry in entries},
            cache,
            depth,
            self.positives,
        )

    def lists(self, scores: Run, length: int) -> tuple[list[TrainingList], dict[str, int]]:
        """A list of each entry, with scores where there are any, and what was left out, by reason."""
        made: list[TrainingList] = []
        counts: dict[str, int] = {}
        for given in (scores, None):
            chosen = {entry: text for entry, text in self.queries.items() if (entry in scores) == (given is not None)}
            if chosen:
                lists, tally = build_lists(
                    chosen, self.corpus, self.positives, self.candidates, given, length=length, positives="one"
                )
                made += lists
                for reason, count in asdict(tally).items():
                    counts[reason] = counts.get(reason, 0) + count
        return made, counts


def make_entries(
    judged: Judged,
    run: Run,
    corpus: Mapping[str, str],
    held: frozenset[str] = frozenset(),
    passages: Mapping[str, str] | None = None,
) -> Entries:
    """An entry for each relevant passage, up to four a query.

    Args:
        judged: Training queries. What is relevant to one is a candidate of none of its entries.
        run: What they find, best first.
        corpus: Document id → text.
        held: Documents that may be in no list.
        passages: Query id → what stands for its relevant document, where that must not hold the query's own words.
    """
    replaced = {f"{query}\tpassage": text for query, text in (passages or {}).items()}
    queries: dict[str, str] = {}
    positives: dict[str, dict[str, int]] = {}
    candidates: dict[str, dict[str, float]] = {}
    for query, text in judged.queries.items():
        grades = {document: grade for document, grade in judged.qrels[query].items() if grade > 0}
        best = sorted(grades, key=lambda document: (-grades[document], document))
        others = {id: score for id, score in run.get(query, {}).items() if id not in grades and id not in held}
        for number, document in enumerate([id for id in best if id not in held and id in corpus][:POSITIVES]):
            entry = f"{query}\t{number}"
            passage = f"{query}\tpassage" if f"{query}\tpassage" in replaced else document
            queries[entry], positives[entry], candidates[entry] = text, {passage: grades[document]}, others
    return Entries(queries, positives, candidates, ChainMap(replaced, dict(corpus)))
