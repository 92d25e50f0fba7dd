"""What is learned from: the stages from the first look at the machine's speed to the training lists."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.doctor import DEPTH, QUERIES, Diagnosis, examine
from mlr_rag.specializing.finding import find, pooled
from mlr_rag.specializing.ground import Ground, Origin
from mlr_rag.specializing.lists import Entries, make_entries
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.options import Options
from mlr_rag.specializing.plan import DOCTOR, Plan, make_plan, room
from mlr_rag.specializing.precision import HalfPrecision, HalfPrecisionTeacher
from mlr_rag.specializing.probe import Probe
from mlr_rag.specializing.recipes import RECIPES, Recipe
from mlr_rag.specializing.speed import Speed, measure_speed, measure_teacher
from mlr_rag.specializing.stages import Done, Workspace
from mlr_rag.training.lists import TrainingList, check_lists
from mlr_rag.training.mining.bm25 import BM25
from mlr_rag.training.mining.building import build_lists
from mlr_rag.training.mining.candidates import Dense, Run, rrf
from mlr_rag.training.mining.consistency import confident, consistent, teacher_agrees
from mlr_rag.training.teachers.teacher import Teacher

logger = logging.getLogger(__name__)

FOUND = 30  # candidates of a query
ROUND_TRIP = 20  # the last rank at which a generated query may find its document
SCORED = 12  # of them that the teacher scores
_FIRST = 10  # queries that tell how long the doctor would take
_TEMPERATURE = 0.3  # of a teacher's scores, where no doctor proposes another
_NEAR, _LEAST_MEASURING = 5, 50  # candidates that a dev query should search at the least, and dev queries
_WHOLE = 200  # passages in a list of the query adapter's: room for 100 that are relevant


@dataclass(frozen=True)
class Found:
    """What the base and BM25 find for the train and dev queries."""

    dense: Run
    words: Run


class Gathering:
    """The stages from search to lists; each is done once (see Workspace).

    Args:
        ground: The model, the documents and the split queries.
        options: What was asked for.
        work: Keeps what the stages give.
        clock: How much time is left.
        teacher: What is to be learned from beside the judgments.
        probe: General queries, on which a candidate must not fall.
    """

    def __init__(
        self, ground: Ground, options: Options, work: Workspace, clock: Clock, teacher: Teacher | None, probe: Probe
    ) -> None:
        self.ground, self.options, self.work, self.clock, self.probe = ground, options, work, clock, probe
        self.teacher = None if teacher is None else HalfPrecisionTeacher(teacher, ground.base.device.type)

    @cached_property
    def speed(self) -> Speed:
        """How fast the machine is."""
        ground, device = self.ground, self.ground.base.device.type

        def work() -> Speed:
            return measure_speed(ground.base, ground.corpus, list(ground.split.train.queries.values()))

        return self.work.stage("speed", [ground.key, device], Speed, work).value

    @cached_property
    def order(self) -> list[str]:
        """The documents, those first that are needed most: for held-out queries, then for training."""
        split, corpus = self.ground.split, self.ground.corpus
        draw = random.Random(self.options.seed)  # noqa: S311
        order: dict[str, None] = {}
        for part in (_documents(split.dev, split.test), _documents(split.train), set(corpus)):
            ids = sorted(part & corpus.keys() - order.keys())
            order.update(dict.fromkeys(draw.sample(ids, len(ids))))
        return list(order)

    @cached_property
    def sought(self) -> Mapping[str, str]:
        """The documents among which candidates are sought: all that there is time for."""
        ground, split, options = self.ground, self.ground.split, self.options

        def work() -> int:
            held = len(_documents(split.dev, split.test) & ground.corpus.keys())
            tried = len(_recipes(options.objective, self.teacher is None, ground.origin))
            return room(self.clock.left, self.speed, len(ground.corpus), held, len(split.train.queries), tried)

        count = self.work.stage("room", [ground.key, options.budget, options.objective], int, work).value
        return {id: ground.corpus[id] for id in sorted(self.order[:count])}

    @cached_property
    def learnable(self) -> Judged:
        """The training queries with a relevant document among these."""
        train, sought = self.ground.split.train, self.sought
        known = {
            query
            for query, grades in train.qrels.items()
            if any(grade > 0 and id in sought for id, grade in grades.items())
        }
        return train.only(known)

    @cached_property
    def found(self) -> Done[Found]:
        """What the base and BM25 find for the train and dev queries."""
        ground, sought = self.ground, self.sought
        train, dev = self.learnable, ground.split.dev
        asked = Judged({**train.queries, **dev.queries}, {**train.qrels, **dev.qrels})
        needs = [ground.key, FOUND, self.options.seed, len(sought)]
        return self.work.stage("search", needs, Found, lambda: self._find(asked, sought, FOUND))

    def _find(self, asked: Judged, corpus: Mapping[str, str], depth: int) -> Found:
        dense = Dense(HalfPrecision(self.ground.base), self.work.vectors)
        return Found(
            find(dense, asked, corpus, depth, "Searching by vectors"),
            find(BM25(), asked, corpus, depth, "Searching by words"),
        )

    @cached_property
    def candidates(self) -> Run:
        """The two, fused by rank."""
        fused = rrf([self.found.value.dense, self.found.value.words])
        return {query: dict(islice(of_query.items(), FOUND)) for query, of_query in fused.items()}

    @cached_property
    def examined(self) -> Done[Diagnosis] | None:
        """What the teacher is worth: on dev queries, or, where those are by rules, on general ones.

        Of queries that rules took out of documents nobody knows what else is relevant to them, so that a teacher who
        does is called wrong.
        """
        ground, teacher, found = self.ground, self.teacher, self.found
        possible = _recipes(self.options.objective, False, ground.origin)
        if teacher is None or not any(recipe.needs_teacher for recipe in possible):
            return None
        general = ground.origin == "rules"
        asked, corpus = (self.probe.judged, self.probe.corpus) if general else (ground.split.dev, ground.corpus)

        def work() -> Diagnosis:
            started, left = time.perf_counter(), self.clock.left
            runs = self._find(asked, corpus, DEPTH) if general else found.value
            for most in (_FIRST, QUERIES):
                done = examine(
                    teacher, asked.queries, asked.qrels, corpus, runs.dense, runs.words, self.work.scores,
                    self.options.seed, most, ground.generated and not general, general,
                )  # fmt: skip
                if (time.perf_counter() - started) * QUERIES / _FIRST > DOCTOR * left:
                    break  # a slow teacher is judged by a few queries
            return done

        needs = [found.key, teacher.fingerprint, teacher.truncation, self.options.budget]
        needs += [self.probe.fingerprint] if general else []
        done = self.work.stage("doctor", needs, Diagnosis, work)
        known = done.value
        logger.log(logging.INFO if known.finding == "better" else logging.WARNING, "The teacher: %s", known.verdict)
        return done

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What the teacher is worth."""
        return None if self.examined is None else self.examined.value

    @cached_property
    def teacher_speed(self) -> float:
        """Pairs that the teacher scores in a second."""
        teacher, ground, seed = self.teacher, self.ground, self.options.seed
        if teacher is None:
            return 0.0

        def work() -> float:
            queries = list(ground.split.train.queries.values())
            return measure_teacher(teacher, ground.corpus, queries, self.work.scores, seed)

        return self.work.stage(
            "teacher speed", [ground.key, teacher.fingerprint, teacher.truncation], float, work
        ).value

    @property
    def teacher_temperature(self) -> float:
        """As asked for, or as the doctor proposes."""
        given, known = self.options.teacher_temperature, self.diagnosis
        return given if given is not None else known.temperature if known is not None else _TEMPERATURE

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """The objectives to try: the one that was asked for, or all that can be; () for a query adapter alone."""
        hopeless = self.diagnosis is None or self.diagnosis.finding == "worse"
        return _recipes(self.options.objective, hopeless, self.ground.origin)

    @property
    def taught(self) -> bool:
        """Whether nothing else is learned from than the teacher's scores."""
        return bool(self.recipes) and all(recipe.needs_teacher for recipe in self.recipes)

    @property
    def adapters(self) -> int:
        """How many query adapters to train.

        Every other document is a negative to them: not for queries by rules, which know one document of theirs.
        """
        if self.options.objective == "queries":
            return 1
        return 0 if self.ground.origin == "rules" else 2

    @cached_property
    def trusted(self) -> Judged:
        """The training queries; of generated ones those that find their own document (round-trip consistency).

        Those that are but words of it only with a teacher.
        """
        train = self.learnable
        if not any(recipe.needs_teacher for recipe in self.recipes):
            train = train.only(train.queries.keys() - self.ground.bare)
        if not self.ground.generated:
            return train
        sources = {query: next(iter(grades)) for query, grades in train.qrels.items()}
        return train.only(set(consistent(sources, self.candidates, ROUND_TRIP).ids))

    @cached_property
    def entries(self) -> Entries:
        """What lists are made of."""
        ground = self.ground
        made = make_entries(self.trusted, self.candidates, ground.corpus, ground.split.held_documents, ground.passages)
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
        recipes = self.recipes
        teaches = any(recipe.needs_teacher for recipe in recipes)
        scored = self.teacher_speed / (SCORED + 1) if teaches else None

        def work() -> Plan:
            return make_plan(
                self.clock.left, self.speed, len(self.ground.corpus), len(self.sought), len(self.entries.queries),
                len(recipes), self.adapters, scored, self.taught,
            )  # fmt: skip

        names = [recipe.name for recipe in recipes]
        needs = [self.found.key, self.options.budget, names, scored]
        return self.work.stage("plan", needs, Plan, work).value

    @property
    def basis(self) -> list[Any]:
        """What everything later depends on: another budget may come to the same plan."""
        sizes = asdict(self.plan)
        return [
            self.found.key,
            {name: size for name, size in sizes.items() if name not in ("beside", "seconds", "left_out")},
        ]

    @cached_property
    def scored(self) -> Done[Run] | None:
        """The teacher's scores."""
        teacher, plan = self.teacher, self.plan
        if teacher is None or not plan.scored:
            return None
        entries = sorted(self.entries.queries)
        chosen = sorted(random.Random(self.options.seed).sample(entries, min(plan.scored, len(entries))))  # noqa: S311

        def work() -> Run:
            return self.entries.score(teacher, self.work.scores, chosen, SCORED)

        needs = [self.found.key, plan.scored, teacher.fingerprint, teacher.truncation, SCORED]
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
        scores = {} if self.scored is None else self.scored.value
        idle = self.entries.queries.keys() - scores.keys() if self.taught else set[str]()
        lists, counts = self.entries.without(self.doubted | idle).lists(scores, self.plan.length)
        if self.taught and not check_lists(lists, teacher=True)[0]:
            raise InvalidInputError(
                "the teacher leaves nothing to train on",
                found=f"it doubts {len(self.doubted):,} of {len(self.entries.queries):,} queries and their documents, "
                "and scores the candidates of the others alike",
                expected="a query, of whose candidates it prefers the document",
                remedy="Pass queries of your own, have a language model write them (llm=), or take another teacher.",
            )
        return lists, counts

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
        near = {
            query: {id: score for id, score in self.candidates[query].items() if id in documents} for query in asked
        }
        return build_lists(asked, documents, free, near, length=_WHOLE)[0] if asked else []

    @cached_property
    def measuring(self) -> Judged:
        """The dev queries that models are measured by: as many as there is room for with what they ask for."""
        dev, ids, chosen = self.ground.split.dev, set[str](), list[str]()
        order = random.Random(self.options.seed).sample(sorted(dev.queries), len(dev.queries))  # noqa: S311
        for query in order:
            ids.update(dev.relevant(query), islice(self.candidates[query], _NEAR))
            if len(ids) > self.plan.dev_documents and len(chosen) >= _LEAST_MEASURING:
                break
            chosen.append(query)
        return dev.only(chosen)

    @cached_property
    def pool(self) -> dict[str, str]:
        """The documents that these search whenever a model is measured."""
        dev, room = self.measuring, self.plan.dev_documents
        judged = {id for query in dev.queries for id in dev.relevant(query)}
        found = {query: self.candidates[query] for query in dev.queries}
        depth = next((depth for depth in range(FOUND, 0, -1) if len(judged | {*pooled(found, depth)}) <= room), 1)
        ids = judged | set(pooled(found, depth))
        others = sorted(self.sought.keys() - ids)
        more = random.Random(self.options.seed).sample(others, max(0, min(room - len(ids), len(others))))  # noqa: S311
        return {id: self.ground.corpus[id] for id in sorted(ids.union(more))}

    @cached_property
    def searched(self) -> dict[str, str]:
        """The documents that test queries search, and an adapter of a tuned model: all that there is time for."""
        held = _documents(self.ground.split.dev, self.ground.split.test) & self.ground.corpus.keys()
        count = max(self.plan.test_documents, len(held))
        return {id: self.ground.corpus[id] for id in sorted(self.order[:count])}


def _recipes(objective: str | None, hopeless: bool, origin: Origin) -> tuple[Recipe, ...]:
    """Those that can be tried with a teacher, or without a hope of one.

    Of queries by rules a teacher alone knows what is relevant: what is learned from their own documents is to find
    these by their words, and dev queries of the same kind applaud.
    """
    if origin == "rules" and objective is None and not hopeless:
        objective = "distillation"
    if objective is not None:
        return tuple(recipe for recipe in RECIPES if recipe.name == objective)
    return tuple(recipe for recipe in RECIPES if not (recipe.needs_teacher and hopeless))


def _documents(*parts: Judged) -> set[str]:
    return {id for part in parts for grades in part.qrels.values() for id in grades}
