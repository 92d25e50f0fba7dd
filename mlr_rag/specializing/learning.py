"""Training: a short trial of each objective, and the run of the one that did best."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib import metadata
from typing import Any

from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.specializing.gathering import Gathering
from mlr_rag.specializing.plan import BATCH, Schedule, make_schedule
from mlr_rag.specializing.recipes import Recipe
from mlr_rag.specializing.running import DevEvaluator, Pace, train
from mlr_rag.specializing.speed import measure_step
from mlr_rag.specializing.stages import Done
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.trainer.trainer import TrainingResult

_TIMES, _FAR = 3, 1.5
_RATE = 1e-4  # the highest learning rate, for batches of 32 lists
_PACKAGES = ("torch", "transformers", "sentence-transformers")  # other versions train other weights


@dataclass(frozen=True)
class TrialResult:
    """The dev queries' nDCG@10 before and after a trial."""

    before: float
    after: float
    steps: int
    seconds: float


class Learning:
    """The stages that train; each is done once (see Workspace).

    Args:
        gathered: What is learned from.
    """

    def __init__(self, gathered: Gathering) -> None:
        self.gathered, self.teaching, self.work = gathered, gathered.teaching, gathered.work

    @cached_property
    def evaluator(self) -> DevEvaluator:
        """Measures a model by dev queries over the pool."""
        measuring, room = self.gathered.measuring, self.gathered.plan.dev_documents
        dev = measuring.dev(room)
        return DevEvaluator(RetrievalEvaluator(dev.queries, dev.qrels, measuring.pool(room)))

    @cached_property
    def schedule(self) -> Schedule:
        """How long is trained, by the time that a few steps take."""
        gathered = self.gathered
        if not self.gathered.recipes:
            return Schedule(0, 0, ())
        lists, scored, options = gathered.lists[0], gathered.scored, gathered.options

        def work() -> Schedule:
            few = random.Random(options.seed).sample(lists, min(BATCH, len(lists)))  # noqa: S311
            a_step = 1.0 if options.budget is None else self._a_step(few)
            return make_schedule(gathered.clock.left, gathered.plan, len(lists), len(self.gathered.recipes), a_step)

        names = [recipe.name for recipe in self.gathered.recipes]
        device = gathered.ground.base.device.type
        needs = [*gathered.basis, options.budget, names, None if scored is None else scored.key, device]
        return self.work.stage("schedule", needs, Schedule, work).value

    def _a_step(self, lists: list[TrainingList]) -> float:
        """Seconds of a step; measured again where it takes far longer than planned, as on a machine that was busy."""
        gathered = self.gathered
        planned, seconds = BATCH * gathered.plan.length / gathered.searching.speed.train, math.inf
        for _ in range(_TIMES):
            seconds = min(seconds, measure_step(gathered.ground.base, lists))
            if seconds < _FAR * planned:
                break
        return seconds

    @cached_property
    def trials(self) -> list[Done[TrialResult]]:
        """A short run of each objective, where there are several."""
        recipes = self.gathered.recipes
        if len(recipes) < 2:
            return []
        pace = self._pace(self.schedule.trial_steps, 1)

        def work(recipe: Recipe) -> TrialResult:
            _, result, seconds = self._train("trial", recipe, pace)
            return TrialResult(result.start or 0.0, result.best or 0.0, result.steps, seconds)

        done = []
        for recipe in recipes:
            needs = self._needs(recipe, pace)
            done.append(self.work.stage(f"trial {recipe.name}", needs, TrialResult, partial(work, recipe)))
            self.work.delete(self.work.run_folder("trial", needs))
        return done

    @property
    def recipe(self) -> Recipe:
        """The one that did best on dev in its trial; the simplest of equals."""
        if not self.trials:
            return self.gathered.recipes[0]
        after = [done.value.after for done in self.trials]
        return self.gathered.recipes[after.index(max(after))]

    @cached_property
    def trained(self) -> tuple[Done[TrainingResult], Any]:
        """The run of the chosen objective: what it came to, and the model."""
        made: list[Any] = []
        pace = self._pace(self.schedule.steps, self.gathered.plan.evaluations)

        def run() -> TrainingResult:
            model, result, _ = self._train("train", self.recipe, pace)
            made.append(model)
            return result

        done = self.work.stage("train", self._needs(self.recipe, pace), TrainingResult, run)
        if not made:
            run()  # it is at its end, and only loaded
        return done, made[0]

    def _pace(self, steps: int, evaluations: int) -> Pace:
        return Pace(steps, evaluations, BATCH, _RATE, self.gathered.options.seed)

    def _needs(self, recipe: Recipe, pace: Pace) -> list[Any]:
        """What a run depends on: of the teacher only where it is learned from, or has left out lists."""
        gathered, scored = self.gathered, self.gathered.scored
        taught: list[Any] = []
        if scored is not None and (recipe.needs_teacher or gathered.doubted):
            taught.append(scored.key)
        if recipe.needs_teacher:
            taught.append(self.teaching.temperature)
        versions = [metadata.version(package) for package in _PACKAGES]
        return [*gathered.basis, recipe.name, *taught, asdict(pace), versions, gathered.ground.base.device.type]

    def _train(self, name: str, recipe: Recipe, pace: Pace) -> tuple[Any, TrainingResult, float]:
        gathered = self.gathered
        folder = self.work.run_folder(name, self._needs(recipe, pace))
        objective = recipe.objective(self.teaching.temperature)
        return train(gathered.ground.base, gathered.lists[0], objective, pace, self.evaluator, folder)
