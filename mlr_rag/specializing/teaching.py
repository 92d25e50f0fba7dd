"""The teacher: whether it is worth learning from, how fast it is, and which objectives can be tried with it."""

from __future__ import annotations

import logging
import time
from functools import cached_property
from typing import Any

from mlr_rag.specializing.doctor import DEPTH, QUERIES, Diagnosis, examine
from mlr_rag.specializing.ground import Origin
from mlr_rag.specializing.plan import DOCTOR
from mlr_rag.specializing.precision import HalfPrecisionTeacher
from mlr_rag.specializing.probe import Probe
from mlr_rag.specializing.recipes import RECIPES, Recipe
from mlr_rag.specializing.searching import Searching
from mlr_rag.specializing.speed import TeacherSpeed, measure_teacher
from mlr_rag.specializing.stages import Done
from mlr_rag.training.teachers.teacher import Teacher

logger = logging.getLogger(__name__)

_FIRST = 10  # queries that tell how long the doctor would take
_TEMPERATURE = 0.3  # of a teacher's scores, where no doctor proposes another


class Teaching:
    """The stages that ask the teacher what it is worth; each is done once (see Workspace).

    Args:
        searching: What the base finds, which it is compared with.
        teacher: What is to be learned from beside the judgments.
        probe: General queries, which it is asked in place of those that rules made.
    """

    def __init__(self, searching: Searching, teacher: Teacher | None, probe: Probe) -> None:
        self.searching, self.probe = searching, probe
        self.ground, self.options, self.work = searching.ground, searching.options, searching.work
        self.teacher = None if teacher is None else HalfPrecisionTeacher(teacher, self.ground.base.device.type)

    @cached_property
    def examined(self) -> Done[Diagnosis] | None:
        """What the teacher is worth: on dev queries, or, where those are by rules, on general ones.

        Of queries that rules took out of documents nobody knows what else is relevant to them, so that a teacher who
        does is called wrong.
        """
        ground, teacher, searching = self.ground, self.teacher, self.searching
        wanted = possible_recipes(self.options.objective, False, ground.origin)
        if teacher is None or not any(recipe.needs_teacher for recipe in wanted):
            return None
        general = ground.origin == "rules"
        asked, corpus = (self.probe.judged, self.probe.corpus) if general else (ground.split.dev, ground.corpus)
        needs: list[Any] = [ground.key, self.probe.fingerprint] if general else [searching.found.key]
        needs += [teacher.fingerprint, teacher.truncation, self.options.budget]

        def work() -> Diagnosis:
            runs = searching.find(asked, corpus, DEPTH) if general else searching.found.value
            started, left = time.perf_counter(), searching.clock.left
            for most in (_FIRST, QUERIES):
                done = examine(
                    teacher, asked.queries, asked.qrels, corpus, runs.dense, runs.words, self.work.scores,
                    self.options.seed, most, ground.generated and not general, general,
                )  # fmt: skip
                if (time.perf_counter() - started) * QUERIES / _FIRST > DOCTOR * left:
                    break  # a slow teacher is judged by a few queries
            return done

        done = self.work.stage("doctor", needs, Diagnosis, work)
        known = done.value
        logger.log(logging.INFO if known.finding == "better" else logging.WARNING, "The teacher: %s", known.verdict)
        return done

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What the teacher is worth."""
        return None if self.examined is None else self.examined.value

    @cached_property
    def speed(self) -> TeacherSpeed | None:
        """How fast the teacher is."""
        teacher, ground, seed = self.teacher, self.ground, self.options.seed
        if teacher is None:
            return None

        def work() -> TeacherSpeed:
            queries = list(ground.split.train.queries.values())
            return measure_teacher(teacher, ground.corpus, queries, self.work.scores, seed)

        needs = [ground.key, teacher.fingerprint, teacher.truncation, ground.base.device.type]
        return self.work.stage("teacher speed", needs, TeacherSpeed, work).value

    @property
    def reading(self) -> float:
        """Seconds that it takes to read a document where nothing is learned but what it says of queries by rules.

        Such a teacher is known before any search; of others nothing is told beforehand.
        """
        if self.ground.origin != "rules" or self.speed is None or not self.alone:
            return 0.0
        return self.speed.document

    @property
    def temperature(self) -> float:
        """As asked for, or as the doctor proposes."""
        given, known = self.options.teacher_temperature, self.diagnosis
        return given if given is not None else known.temperature if known is not None else _TEMPERATURE

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """The objectives to try: the one that was asked for, or all that can be; () for a query adapter alone."""
        hopeless = self.diagnosis is None or self.diagnosis.finding == "worse"
        return possible_recipes(self.options.objective, hopeless, self.ground.origin)

    @property
    def alone(self) -> bool:
        """Whether nothing else is learned from than the teacher's scores."""
        return bool(self.recipes) and all(recipe.needs_teacher for recipe in self.recipes)


def possible_recipes(objective: str | None, hopeless: bool, origin: Origin) -> tuple[Recipe, ...]:
    """Those that can be tried with a teacher, or without a hope of one.

    Of queries by rules a teacher alone knows what is relevant: what is learned from their own documents is to find
    these by their words, and dev queries of the same kind applaud.
    """
    if origin == "rules" and objective is None and not hopeless:
        objective = "distillation"
    if objective is not None:
        return tuple(recipe for recipe in RECIPES if recipe.name == objective)
    return tuple(recipe for recipe in RECIPES if not (recipe.needs_teacher and hopeless))
