"""What is learned from: the queries that can be, the plan, the teacher's scores, the training lists."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property, partial
from itertools import islice
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.lists import Entries, make_entries
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.measuring import Measuring
from mlr_rag.specializing.plan import Plan, make_plan
from mlr_rag.specializing.recipes import Recipe
from mlr_rag.specializing.speed import TeacherSpeed
from mlr_rag.specializing.stages import Done
from mlr_rag.specializing.teaching import Teaching
from mlr_rag.training.lists import TrainingList, check_lists
from mlr_rag.training.mining.building import build_lists
from mlr_rag.training.mining.candidates import Run
from mlr_rag.training.mining.consistency import confident, consistent, teacher_agrees

ROUND_TRIP = 20  # the last rank at which a generated query may find its document
SCORED = 12  # candidates that the teacher scores
UNSCORED = "not scored by the teacher"
_WHOLE = 200  # passages in a list of the query adapter's: room for 100 that are relevant


class Gathering:
    """The stages from what was found to training lists; each is done once (see Workspace).

    Args:
        teaching: The teacher, and what it is compared with.
    """

    def __init__(self, teaching: Teaching) -> None:
        self.teaching, self.searching = teaching, teaching.searching
        self.ground, self.options, self.work = teaching.ground, teaching.options, teaching.work
        self.clock, self.measuring = teaching.searching.clock, Measuring(teaching.searching)

    @property
    def adapters(self) -> int:
        """How many query adapters to train.

        Every other document is a negative to them: not for queries by rules, which know one document of theirs.
        """
        if self.options.objective == "queries":
            return 1
        return 0 if self.ground.origin == "rules" else 2

    @cached_property
    def usable(self) -> Judged:
        """The training queries; those that are but words of their document only with a teacher."""
        train = self.searching.learnable
        taught = any(recipe.needs_teacher for recipe in self.teaching.recipes)
        return train if taught else train.only(train.queries.keys() - self.ground.bare)

    @cached_property
    def trusted(self) -> Judged:
        """Of generated ones those that find their own document (round-trip consistency)."""
        usable = self.usable
        if not self.ground.generated:
            return usable
        sources = {query: next(iter(grades)) for query, grades in usable.qrels.items()}
        return usable.only(set(consistent(sources, self.searching.candidates, ROUND_TRIP).ids))

    @cached_property
    def entries(self) -> Entries:
        """What lists are made of."""
        ground, candidates = self.ground, self.searching.candidates
        made = make_entries(self.trusted, candidates, ground.corpus, ground.split.held_documents, ground.passages)
        if not made.queries:
            raise InvalidInputError(
                "no training query is left",
                found=f"{len(self.trusted.queries):,} of {len(ground.split.train.queries):,} that find their document",
                expected="one or more with a passage that is not held out",
                remedy="Pass more queries, or such as the documents answer; of those by rules most need a teacher that "
                "knows more than the model.",
            )
        return made

    @cached_property
    def plan(self) -> Plan:
        """What fits into the budget."""
        searching, teaching, measuring = self.searching, self.teaching, self.measuring
        recipes = teaching.recipes
        speed = teaching.speed if any(recipe.needs_teacher for recipe in recipes) else None

        def work() -> Plan:
            return make_plan(
                self.clock.left, searching.speed, len(self.ground.corpus), len(searching.sought),
                measuring.least, len(measuring.held), len(self.entries.queries), len(recipes), self.adapters,
                None if speed is None else partial(self._scoring, speed), teaching.alone, self.ground.generated,
            )  # fmt: skip

        names = [recipe.name for recipe in recipes]
        speeds = [asdict(searching.speed), None if speed is None else asdict(speed)]
        needs = [searching.found.key, self.options.budget, names, *speeds]
        return self.work.stage("plan", needs, Plan, work).value

    @cached_property
    def _order(self) -> list[str]:
        """Entries in the order in which the teacher scores as many as there is time for."""
        entries = sorted(self.entries.queries)
        return random.Random(self.options.seed).sample(entries, len(entries))  # noqa: S311

    @cached_property
    def _documents(self) -> list[int]:
        """How many documents the first of these come to, by how many they are."""
        met, counts, made = set[str](), [0], self.entries
        for entry in self._order:
            met.update(made.positives[entry], islice(made.candidates[entry], SCORED))
            counts.append(len(met))
        return counts

    def _scoring(self, speed: TeacherSpeed, entries: int) -> float:
        """Seconds that the teacher takes for the first of them."""
        return speed.seconds(entries * (SCORED + 1), self._documents[entries])

    @property
    def basis(self) -> list[Any]:
        """What everything later depends on: another budget may come to the same plan."""
        sizes = asdict(self.plan)
        for name in ("beside", "seconds", "left_out"):
            del sizes[name]
        return [self.searching.found.key, sizes]

    @cached_property
    def scored(self) -> Done[Run] | None:
        """The teacher's scores."""
        teacher, plan = self.teaching.teacher, self.plan
        if teacher is None or not plan.scored:
            return None
        chosen = sorted(self._order[: plan.scored])

        def work() -> Run:
            return self.entries.score(teacher, self.work.scores, chosen, SCORED)

        needs = [self.searching.found.key, plan.scored, teacher.fingerprint, teacher.truncation, SCORED]
        return self.work.stage("score", needs, Run, work)

    @cached_property
    def doubted(self) -> frozenset[str]:
        """Entries of generated queries that the teacher does not believe in (arXiv 2502.19712).

        It prefers another passage, or finds none that is as good as those of other queries usually are.
        """
        if self.scored is None or not self.ground.generated:
            return frozenset()
        scores = self.scored.value
        sources = {entry: next(iter(self.entries.positives[entry])) for entry in scores}
        agreed = set(teacher_agrees(sources, scores, scored=2).ids)
        sure = set(confident({entry: scores[entry] for entry in agreed}).ids) if agreed else agreed
        return frozenset(scores.keys() - sure)

    @cached_property
    def lists(self) -> tuple[list[TrainingList], dict[str, int]]:
        """Training lists, and what was left out of them."""
        scores, alone = {} if self.scored is None else self.scored.value, self.teaching.alone
        unscored = self.entries.queries.keys() - scores.keys() if alone else set[str]()
        lists, counts = self.entries.without(self.doubted | unscored).lists(scores, self.plan.length)
        if self.teaching.recipes and not (check_lists(lists, teacher=True)[0] if alone else lists):
            doubts = f", of which the teacher doubts {len(self.doubted):,} and grades the candidates of no other one"
            raise InvalidInputError(
                "nothing is left to train on",
                found=f"{len(self.entries.queries):,} queries and their documents{doubts if scores else ''}",
                expected="a query and other passages that its document is to be told from",
                remedy="Pass queries of your own, have a language model write them (llm=), or take another teacher.",
            )
        return lists, {**counts, UNSCORED: len(unscored)}

    @cached_property
    def searched(self) -> dict[str, str]:
        """The documents that test queries search, and an adapter of a tuned model."""
        return self.measuring.searched(self.plan.test_documents)

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """The objectives to try, but for those that need a teacher where it grades nothing."""
        graded = bool(check_lists(self.lists[0], teacher=True)[0])
        return tuple(recipe for recipe in self.teaching.recipes if graded or not recipe.needs_teacher)

    def whole_lists(self, documents: Mapping[str, str]) -> list[TrainingList]:
        """A list of each training query with all of these that are relevant: every other one is a negative.

        Queries with a passage of their own in place of the document are left out: the document holds their words.
        """
        held, trusted = self.ground.split.held_documents, self.trusted
        free = {
            query: {id: grade for id, grade in trusted.qrels[query].items() if id in documents and id not in held}
            for query in trusted.queries.keys() - self.ground.passages.keys()
        }
        asked = {query: trusted.queries[query] for query in sorted(free) if any(g > 0 for g in free[query].values())}
        candidates = self.searching.candidates
        near = {query: {id: score for id, score in candidates[query].items() if id in documents} for query in asked}
        return build_lists(asked, documents, free, near, length=_WHOLE)[0] if asked else []
