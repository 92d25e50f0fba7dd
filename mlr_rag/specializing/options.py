"""The options of a specialization, checked before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.folders import check_space, resolved
from mlr_rag.specializing.budget import parse_budget
from mlr_rag.specializing.recipes import RECIPES

REPORT = "report"  # the folder of the report, within the output
_WORK = ".mlr-rag"  # beside the output: runs with outputs in one folder share what they have in common
_SPACE = 1 << 30  # checkpoints and vectors


@dataclass(frozen=True)
class Options:
    """What `specialize` was asked for.

    Attributes:
        output: The folder for the model and the report; the run's own, or not there yet.
        work: The folder of stages and caches.
        budget: Seconds; None for no limit.
        objective: The name of a recipe, "queries" for a query adapter alone, or None to find out which.
        teacher_temperature: None for the one that the doctor proposes.
        seed: Of every choice.
    """

    output: Path
    work: Path
    budget: float | None
    objective: str | None
    teacher_temperature: float | None
    seed: int


def check_options(
    output: str | Path,
    work: str | Path | None,
    budget: str | float | None,
    objective: str | None,
    teacher: Any,
    teacher_temperature: float | None,
    seed: int,
) -> Options:
    """The options, or an error before the long stages.

    Raises:
        InvalidInputError: the output is a file or another's folder, or an option makes no sense.
        StoreFullError: there is no room on the disk.
    """
    place = resolved(Path(output))
    if (
        place.exists()
        and not (place / REPORT / "report.json").exists()
        and (not place.is_dir() or any(place.iterdir()))
    ):
        raise InvalidInputError(
            f"{output} is there already, and was not made by specialize",
            found="a file" if place.is_file() else "a folder with other things in it",
            expected="a folder that is empty, not there, or an earlier run's",
            remedy="Choose another output.",
        )
    known = [recipe.name for recipe in RECIPES] + ["queries"]
    if objective is not None and objective not in known:
        raise InvalidInputError("an unknown objective", found=objective, expected=f"{' | '.join(known)}, or None")
    if teacher is None and any(recipe.name == objective and recipe.needs_teacher for recipe in RECIPES):
        raise InvalidInputError(f"{objective} learns from a teacher", expected="teacher=", found=None)
    if teacher_temperature is not None and not 0 < teacher_temperature < float("inf"):
        raise InvalidInputError("teacher_temperature", found=teacher_temperature, expected="above 0")
    folder = place.parent / _WORK if work is None else resolved(Path(work))
    there = next(each for each in (folder, *folder.parents) if each.exists())
    check_space(there, _SPACE)
    return Options(place, folder, parse_budget(budget), objective, teacher_temperature, seed)
