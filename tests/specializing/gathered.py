"""A Gathering whose search is done, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mlr_rag.specializing.gathering import Gathering
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.recipes import RECIPES

COUNT = 400
CORPUS = {f"d{n:03}": f"text {n}" for n in range(2 * COUNT)}
DEV = Judged({f"q{n:03}": f"query {n}" for n in range(COUNT)}, {f"q{n:03}": {f"d{n:03}": 1} for n in range(COUNT)})
FOUND = {
    query: {f"d{(int(query[1:]) + 7 * step) % len(CORPUS):03}": 1.0 / step for step in range(1, 31)}
    for query in DEV.queries
}


def gathered(**stages: Any) -> Gathering:
    """With these stages done, too."""
    split = SimpleNamespace(dev=DEV, held_documents=frozenset({"d001"}))
    ground = SimpleNamespace(split=split, corpus=CORPUS, passages={"q002": "part of a text"}, generated=False)
    options = SimpleNamespace(seed=0)
    searching = SimpleNamespace(ground=ground, options=options, candidates=FOUND, sought=CORPUS, clock=None)
    alone = stages.pop("alone", False)
    teaching: Any = SimpleNamespace(
        searching=searching, ground=ground, options=options, work=None, alone=alone,
        recipes=tuple(recipe for recipe in RECIPES if recipe.needs_teacher or not alone),
    )  # fmt: skip
    made = Gathering(teaching)
    vars(made).update(trusted=DEV, **stages)
    return made
