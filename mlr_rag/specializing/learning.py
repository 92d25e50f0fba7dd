"""What is learned: the stages from the search for candidates to the model that the dev queries choose."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.doctor import QUERIES, Diagnosis, examine
from mlr_rag.specializing.finding import find, pooled
from mlr_rag.specializing.interpolation import interpolate
from mlr_rag.specializing.lists import Entries, make_entries
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.options import Options
from mlr_rag.specializing.plan import BATCH, DOCTOR, Plan, make_plan, room
from mlr_rag.specializing.precision import HalfPrecision, HalfPrecisionTeacher
from mlr_rag.specializing.probe import TOLERANCE, Probe
from mlr_rag.specializing.recipes import RECIPES, Recipe
from mlr_rag.specializing.running import DevEvaluator, Pace, train
from mlr_rag.specializing.speed import Speed, measure_speed
from mlr_rag.specializing.split import Split
from mlr_rag.specializing.stages import Done, Workspace
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.mining.bm25 import BM25
from mlr_rag.training.mining.building import build_lists
from mlr_rag.training.mining.candidates import Dense, Run, rrf
from mlr_rag.training.mining.consistency import consistent
from mlr_rag.training.query_side import train_query_adapter
from mlr_rag.training.teachers.teacher import Teacher
from mlr_rag.training.trainer.trainer import TrainingResult

FOUND = 30  # candidates of a query
ROUND_TRIP = 20  # the last rank at which a generated query may find its document
SCORED = 12  # of them that the teacher scores
_FIRST = 10  # queries that tell how fast a teacher is
_TEMPERATURE = 0.3  # of a teacher's scores, where no doctor proposes another
_RATE = 1e-4  # the highest learning rate, for batches of 32 lists
_RANK = 64  # of the query adapter
_WHOLE = 200  # passages in a list of the query adapter's: room for 100 that are relevant
_SHARES = (1.0, 0.75, 0.5, 0.25, 0.125)  # of the tuned weights
_ADAPTED = (1.0, 0.5, 0.25, 0.125)  # of what the query adapter adds


@dataclass(frozen=True)
class Ground:
    """What everything after the split stands on.

    Attributes:
        base: The model to specialize.
        corpus: Document id → text.
        split: Train, dev and test queries.
        generated: Whether the queries were made of the documents.
        passages: Query id → what stands for its relevant document in training (see make_entries).
        key: Hash of all of it.
    """

    base: Any
    corpus: Mapping[str, str]
    split: Split
    generated: bool
    passages: Mapping[str, str]
    key: str


@dataclass(frozen=True)
class Candidate:
    """A model that may be handed back.

    Attributes:
        name: How it was made; what "tuned" and "interpolated" are called with a query adapter, too.
        model: The model.
        share: Of the tuned weights.
        dev: nDCG@10 of the dev queries.
        probe: nDCG@10 of the general probe.
        adapter: Share of the query adapter; 0 without.
    """

    name: Literal["tuned", "interpolated", "query_adapter", "base"]
    model: Any
    share: float
    dev: float
    probe: float
    adapter: float = 0.0


@dataclass(frozen=True)
class Found:
    """What the base and BM25 find for the train and dev queries."""

    dense: Run
    words: Run


@dataclass(frozen=True)
class Examined:
    """What the doctor says of a teacher, and how fast it was."""

    diagnosis: Diagnosis
    pairs_a_second: float


@dataclass(frozen=True)
class TrialResult:
    """The dev queries' nDCG@10 before and after a trial."""

    before: float
    after: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """nDCG@10 of the dev queries and of the general probe."""

    dev: float
    probe: float


@dataclass(frozen=True)
class Adapted:
    """A query adapter's weights, by name, and how each share of it does."""

    weights: dict[str, list[list[float]]]
    measured: list[Measured]


class Learning:
    """The stages from search to the candidate that is chosen on dev; each is done once (see Workspace)."""

    def __init__(
        self, ground: Ground, options: Options, work: Workspace, clock: Clock, teacher: Teacher | None, probe: Probe
    ) -> None:
        self.ground, self.options, self.work, self.clock, self.probe = ground, options, work, clock, probe
        self.teacher = None if teacher is None else HalfPrecisionTeacher(teacher, ground.base.device.type)

    @cached_property
    def speed(self) -> Speed:
        """How fast the machine is."""
        ground = self.ground

        def work() -> Speed:
            return measure_speed(ground.base, ground.corpus, list(ground.split.train.queries.values()))

        return self.work.stage("speed", [ground.key], Speed, work).value

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
        ground, split = self.ground, self.ground.split

        def work() -> int:
            held = len(_documents(split.dev, split.test) & ground.corpus.keys())
            tried = len(RECIPES) if self.options.objective is None and self.teacher is not None else 1
            return room(self.clock.left, self.speed, len(ground.corpus), held, len(split.train.queries), tried)

        count = self.work.stage("room", [ground.key, self.options.budget], int, work).value
        return {id: ground.corpus[id] for id in sorted(self.order[:count])}

    @cached_property
    def learnable(self) -> Judged:
        """The training queries with a relevant document among these."""
        train, sought = self.ground.split.train, self.sought
        return train.only({query for query, grades in train.qrels.items() if any(id in sought for id in grades)})

    @cached_property
    def found(self) -> Done[Found]:
        """What the base and BM25 find for the train and dev queries."""
        ground, sought = self.ground, self.sought
        queries = {**self.learnable.queries, **ground.split.dev.queries}
        dense = Dense(HalfPrecision(ground.base), self.work.vectors)

        def work() -> Found:
            return Found(
                find(dense, queries, sought, FOUND, "Searching by vectors"),
                find(BM25(), queries, sought, FOUND, "Searching by words"),
            )

        return self.work.stage("search", [ground.key, FOUND, self.options.seed, len(sought)], Found, work)

    @cached_property
    def candidates(self) -> Run:
        """The two, fused by rank."""
        fused = rrf([self.found.value.dense, self.found.value.words])
        return {query: dict(islice(of_query.items(), FOUND)) for query, of_query in fused.items()}

    @cached_property
    def examined(self) -> Done[Examined] | None:
        """What the teacher is worth, and how fast it is."""
        ground, teacher, found = self.ground, self.teacher, self.found
        if teacher is None:
            return None
        dev, runs = ground.split.dev, found.value

        def work() -> Examined:
            started, known, left = time.perf_counter(), self.work.scores.asked, self.clock.left
            for most in (_FIRST, QUERIES):
                done = examine(
                    teacher, dev.queries, dev.qrels, ground.corpus, runs.dense, runs.words, self.work.scores,
                    self.options.seed, most,
                )  # fmt: skip
                seconds = time.perf_counter() - started
                if seconds * QUERIES / _FIRST > DOCTOR * left:
                    break  # a slow teacher is judged by a few queries
            return Examined(done, max(1, self.work.scores.asked - known) / seconds)

        needs = [found.key, teacher.fingerprint, teacher.truncation, self.options.seed, self.options.budget]
        return self.work.stage("doctor", needs, Examined, work)

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What the teacher is worth."""
        return None if self.examined is None else self.examined.value.diagnosis

    @property
    def teacher_temperature(self) -> float:
        """As asked for, or as the doctor proposes."""
        given, known = self.options.teacher_temperature, self.diagnosis
        return given if given is not None else known.temperature if known is not None else _TEMPERATURE

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """The objectives to try: the one that was asked for, or all that can be."""
        if self.options.objective is not None:
            return tuple(recipe for recipe in RECIPES if recipe.name == self.options.objective)
        hopeless = self.diagnosis is None or self.diagnosis.finding == "worse"
        return tuple(recipe for recipe in RECIPES if not (recipe.needs_teacher and hopeless))

    @cached_property
    def trusted(self) -> Judged:
        """The training queries; of generated ones those that find their own document (round-trip consistency)."""
        train = self.learnable
        if not self.ground.generated:
            return train
        sources = {query: next(iter(grades)) for query, grades in train.qrels.items()}
        return train.only(set(consistent(sources, self.candidates, ROUND_TRIP).ids))

    @cached_property
    def entries(self) -> Entries:
        """What lists are made of."""
        ground = self.ground
        return make_entries(self.trusted, self.candidates, ground.corpus, ground.split.held_documents, ground.passages)

    @cached_property
    def planned(self) -> Done[Plan]:
        """What fits into the budget."""
        teaches = any(recipe.needs_teacher for recipe in self.recipes)

        def work() -> Plan:
            pairs = None if self.examined is None or not teaches else self.examined.value.pairs_a_second
            return make_plan(
                self.clock.left, self.speed, len(self.ground.corpus), len(self.sought), len(self.entries.queries),
                len(self.recipes), None if pairs is None else pairs / (SCORED + 1),
            )  # fmt: skip

        needs = [self.found.key, self.options.budget, [recipe.name for recipe in self.recipes]]
        return self.work.stage("plan", needs, Plan, work)

    @property
    def plan(self) -> Plan:
        """What fits into the budget."""
        return self.planned.value

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

        return self.work.stage("score", [self.planned.key, teacher.fingerprint, teacher.truncation, SCORED], Run, work)

    @cached_property
    def lists(self) -> tuple[list[TrainingList], dict[str, int]]:
        """Training lists, and what was left out of them."""
        return self.entries.lists({} if self.scored is None else self.scored.value, self.plan.length)

    @cached_property
    def whole_lists(self) -> list[TrainingList]:
        """A list of each training query with all that is relevant to it: every other document is a negative."""
        held, corpus = self.ground.split.held_documents, self.ground.corpus
        free = {
            query: {id: grade for id, grade in grades.items() if id not in held}
            for query, grades in self.trusted.qrels.items()
        }
        return build_lists(self.trusted.queries, corpus, free, self.candidates, length=_WHOLE)[0]

    @cached_property
    def pool(self) -> dict[str, str]:
        """The documents that dev queries search whenever a model is measured."""
        dev, room = self.ground.split.dev, self.plan.dev_documents
        judged = {id for grades in dev.qrels.values() for id, grade in grades.items() if grade > 0}
        found = {query: self.candidates[query] for query in dev.queries}
        depth = next((depth for depth in range(FOUND, 0, -1) if len(judged | {*pooled(found, depth)}) <= room), 1)
        ids = judged | set(pooled(found, depth))
        others = sorted(self.ground.corpus.keys() - ids)
        more = random.Random(self.options.seed).sample(others, max(0, min(room - len(ids), len(others))))  # noqa: S311
        return {id: self.ground.corpus[id] for id in sorted(ids.union(more))}

    @cached_property
    def evaluator(self) -> DevEvaluator:
        """Measures a model by the dev queries over the pool."""
        dev = self.ground.split.dev
        return DevEvaluator(RetrievalEvaluator(dev.queries, dev.qrels, self.pool))

    def _pace(self, steps: int, evaluations: int) -> Pace:
        return Pace(steps, evaluations, BATCH, _RATE, None, self.options.seed)

    def _folder(self, name: str, recipe: Recipe, pace: Pace) -> Path:
        return self.work.run_folder(name, [*self._depends(recipe), asdict(pace)])

    def _train(self, name: str, recipe: Recipe, pace: Pace) -> tuple[Any, TrainingResult, float]:
        objective, folder = recipe.objective(self.teacher_temperature), self._folder(name, recipe, pace)
        return train(self.ground.base, self.lists[0], objective, pace, self.evaluator, folder)

    def _depends(self, recipe: Recipe) -> list[Any]:
        """What a run depends on beside its pace: of the teacher only where it is learned from."""
        scored = [] if not recipe.needs_teacher or self.scored is None else [self.scored.key, self.teacher_temperature]
        return [self.planned.key, recipe.name, *scored]

    @cached_property
    def trials(self) -> list[Done[TrialResult]]:
        """A short run of each objective, where there are several."""
        if len(self.recipes) < 2:
            return []

        pace = self._pace(self.plan.trial_steps, 1)

        def work(recipe: Recipe) -> TrialResult:
            _, result, seconds = self._train("trial", recipe, pace)
            return TrialResult(result.start or 0.0, result.best or 0.0, result.steps, seconds)

        done = []
        for recipe in self.recipes:
            done.append(
                self.work.stage(f"trial {recipe.name}", self._depends(recipe), TrialResult, partial(work, recipe))
            )
            self.work.delete(self._folder("trial", recipe, pace))
        return done

    @property
    def recipe(self) -> Recipe:
        """The one that did best on dev in its trial; the simplest of equals."""
        if not self.trials:
            return self.recipes[0]
        after = [done.value.after for done in self.trials]
        return self.recipes[after.index(max(after))]

    @cached_property
    def trained(self) -> tuple[Done[TrainingResult], Any]:
        """The run of the chosen objective: what it came to, and the model."""
        made: list[Any] = []

        def run() -> TrainingResult:
            pace = self._pace(self.plan.steps, self.plan.evaluations)
            model, result, _ = self._train("train", self.recipe, pace)
            made.append(model)
            return result

        done = self.work.stage("train", self._depends(self.recipe), TrainingResult, run)
        if not made:
            run()  # it is at its end, and only loaded
        return done, made[0]

    @cached_property
    def tuned(self) -> list[Candidate]:
        """The tuned weights, then less and less of them, until one keeps general knowledge and less is worse on dev."""
        done, model = self.trained

        def mixed(share: float) -> Any:
            return model if share == 1 else interpolate(self.ground.base, model, share)

        def work() -> list[Measured]:
            found: list[Measured] = []
            for share in _SHARES:
                found.append(self._measure(mixed(share)))
                if len(found) > 1 and self._keeps(found[-2]) and found[-1].dev < found[-2].dev:
                    break
            return found

        values = self.work.stage("mix", [done.key, self.probe.fingerprint, _SHARES], list[Measured], work).value
        return [
            Candidate("tuned" if share == 1 else "interpolated", mixed(share), share, measured.dev, measured.probe)
            for share, measured in zip(_SHARES, values, strict=False)
        ]

    @cached_property
    def base(self) -> Candidate:
        """Candidate zero."""
        base = self.ground.base
        needs = [self.planned.key, self.probe.fingerprint]
        found = self.work.stage("base", needs, Measured, lambda: self._measure(base)).value
        return Candidate("base", base, 0.0, found.dev, found.probe)

    def adapted(self, candidate: Candidate) -> list[Candidate]:
        """The candidate with an adapter for queries, trained against every document: all of it, and less of it."""
        ground, start = self.ground, candidate.model
        rank = min(_RANK, start.dimension)
        models = {share: start.add_query_adapter(rank, seed=self.options.seed) for share in _ADAPTED}

        def work() -> Adapted:
            dev, first = ground.split.dev, models[1.0]
            train_query_adapter(
                first, self.whole_lists, self.searched, dev=(dev.queries, dev.qrels), cache=self.work.vectors,
                epochs=self.plan.adapter_epochs, seed=self.options.seed,
            )  # fmt: skip
            weights = {name: value.tolist() for name, value in first[-2].state_dict().items()}
            return Adapted(weights, [self._measure(_set(model, weights, share)) for share, model in models.items()])

        needs = [self.planned.key, start.fingerprint, self.probe.fingerprint, rank, _ADAPTED]
        done = self.work.stage("adapter", needs, Adapted, work).value
        return [
            Candidate(
                "query_adapter" if candidate.name == "base" else candidate.name,
                _set(model, done.weights, share),
                candidate.share,
                measured.dev,
                measured.probe,
                share,
            )
            for (share, model), measured in zip(models.items(), done.measured, strict=True)
        ]

    @cached_property
    def searched(self) -> dict[str, str]:
        """The documents that test queries search, and the adapter learns from: all that there is time for."""
        held = _documents(self.ground.split.dev, self.ground.split.test)
        count = max(self.plan.test_documents, len(held))
        return {id: self.ground.corpus[id] for id in sorted(self.order[:count])}

    def choose(self) -> Candidate:
        """The best on dev of those that keep general knowledge; the base where none is better."""
        candidates = [self.base]
        if self.options.objective != "queries":
            kept = [each for each in self.tuned if self._keeps(each)]
            candidates += sorted(kept, key=lambda each: -each.dev)[:1]
        if self.plan.adapter_epochs:
            candidates += [each for start in tuple(candidates) for each in self.adapted(start) if self._keeps(each)]
        return max(candidates, key=lambda each: each.dev)

    def _keeps(self, measured: Candidate | Measured) -> bool:
        return bool(self.base.probe - measured.probe <= TOLERANCE)

    def _measure(self, model: Any) -> Measured:
        return Measured(self.evaluator.measure(model), self.probe.measure(HalfPrecision(model)).ndcg)


def _documents(*parts: Judged) -> set[str]:
    return {id for part in parts for grades in part.qrels.values() for id in grades}


def _set(model: Any, weights: Mapping[str, list[list[float]]], share: float) -> Any:
    """The model, its query adapter with these weights, of which this share is added."""
    values = {name: torch.tensor(value) for name, value in weights.items()}
    model[-2].load_state_dict({**values, "write": share * values["write"]})
    return model
