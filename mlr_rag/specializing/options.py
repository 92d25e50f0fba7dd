"""The options of a specialization, checked before anything is done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.folders import check_space, resolved
from mlr_rag.specializing.budget import parse_budget
from mlr_rag.specializing.corpora import is_collection
from mlr_rag.specializing.output import is_ours
from mlr_rag.specializing.recipes import RECIPES, Recipe

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
        call: The command or the Python call, to make it again.
    """

    output: Path
    work: Path
    budget: float | None
    objective: str | None
    teacher_temperature: float | None
    seed: int
    call: str = ""


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
    place, folder = _places(output, work)
    if not is_ours(place):
        raise InvalidInputError(
            f"{place} is there already, and was not made by specialize",
            found="a file" if place.is_file() else "a folder with other things in it",
            expected="a folder that is empty, not there, or an earlier run's",
            remedy="Choose another output.",
        )
    known = [recipe.name for recipe in RECIPES] + ["queries"]
    if objective is not None and objective not in known:
        raise InvalidInputError("an unknown objective", found=objective, expected=f"{' | '.join(known)}, or None")
    if teacher is None and any(_taught(recipe, objective) for recipe in RECIPES):
        raise InvalidInputError(f"{objective} learns from a teacher", expected="teacher=", found=None)
    if teacher is not None and objective is not None and not any(_taught(recipe, objective) for recipe in RECIPES):
        raise InvalidInputError(
            f"a teacher, and objective={objective!r} learns from none",
            found=f"teacher={teacher!r:.80}",
            expected="an objective that does, or None",
            remedy="Leave out one of the two.",
        )
    _check_numbers(teacher, teacher_temperature, seed)
    if place in (folder, *folder.parents):
        raise InvalidInputError(
            "the work folder is in the output, which is replaced as a whole", found=folder, expected="another place"
        )
    for path in (place, folder):
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InvalidInputError(
                f"no folder can be made at {path}",
                found=f"{there}, {'which this user may not write to' if there.is_dir() else 'a file'}",
                expected="a folder that this user may write to",
            )
        check_space(there, _SPACE)
    return Options(place, folder, parse_budget(budget), objective, teacher_temperature, seed)


def check_apart(corpus: Any, options: Options) -> None:
    """Refuse an output within a folder of files: the next run would read the model's card and report as documents.

    Raises:
        InvalidInputError: it lies there.
    """
    if not isinstance(corpus, (str, Path)):
        return
    folder = resolved(Path(corpus))
    if not folder.is_dir() or is_collection(folder):
        return
    if folder in (options.output, *options.output.parents):
        raise InvalidInputError(
            "the output lies in the corpus, and would be read as a part of it",
            found=f"{options.output} in {folder}",
            expected="another place",
            remedy="Choose an output outside the corpus.",
        )


def _taught(recipe: Recipe, objective: str | None) -> bool:
    return recipe.name == objective and recipe.needs_teacher


def _places(output: Any, work: Any) -> tuple[Path, Path]:
    for name, value in (("output", output), ("work", work)):
        if not isinstance(value, (str, Path)) and (name, value) != ("work", None):
            raise InvalidInputError(f"{name} is no path", found=value, expected="a folder's path")
    place = resolved(Path(output))
    return place, place.parent / _WORK if work is None else resolved(Path(work))


def _check_numbers(teacher: Any, temperature: Any, seed: Any) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InvalidInputError("no such seed", found=seed, expected="an integer from 0 to 2**32 - 1")
    if temperature is None:
        return
    if not isinstance(temperature, (int, float)) or not 0 < temperature < float("inf"):
        raise InvalidInputError("no such temperature of a teacher", found=temperature, expected="a number above 0")
    if teacher is None:
        raise InvalidInputError("a temperature of a teacher, and no teacher", found=temperature, expected="teacher=")
