"""The objectives that a run tries, and what each is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlr_rag.training.objectives import InfoNCE, ListwiseKL, Objective, WeightedSum

TEMPERATURE = 0.05  # of the students' cosines
_CONTRASTIVE = 0.1  # the share of the contrastive term beside distillation, as in arXiv 2502.19712


@dataclass(frozen=True)
class Recipe:
    """An objective by name.

    Attributes:
        name: Short, for tables.
        what: What is learned from what, for the report.
        needs_teacher: Whether it distills a teacher's scores.
        objective: A fresh objective, given the temperature of the teacher's scores.
    """

    name: str
    what: str
    needs_teacher: bool
    objective: Callable[[float], Objective]


def _contrastive(_: float) -> Objective:
    return InfoNCE(TEMPERATURE)


def _distillation(teacher_temperature: float) -> Objective:
    return WeightedSum((1.0, ListwiseKL(TEMPERATURE, teacher_temperature)), (_CONTRASTIVE, InfoNCE(TEMPERATURE)))


def _both(teacher_temperature: float) -> Objective:
    return WeightedSum((1.0, ListwiseKL(TEMPERATURE, teacher_temperature)), (1.0, InfoNCE(TEMPERATURE)))


RECIPES = (
    Recipe("contrastive", "the positive above mined and in-batch negatives (InfoNCE)", False, _contrastive),
    Recipe("distillation", "the teacher's order of each list (listwise KL + 0.1 InfoNCE)", True, _distillation),
    Recipe("both", "the teacher's order and the judgments alike (listwise KL + InfoNCE)", True, _both),
)
