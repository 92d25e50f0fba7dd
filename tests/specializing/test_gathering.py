"""What training lists are made of, and what a query adapter learns from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.lists import Entries
from tests.specializing.gathered import CORPUS, DEV, FOUND, gathered

PLAN = SimpleNamespace(length=3)


def test_an_adapter_learns_from_the_documents_that_it_is_given() -> None:
    made, some = gathered(), {f"d{n:03}": CORPUS[f"d{n:03}"] for n in range(100)}
    lists = made.whole_lists(some)
    asked = {each.query for each in lists}
    near = {f"query {n}" for n in range(100 - 7)}  # others find none of these beside their own
    assert asked == near - {"query 1", "query 2"}, "held out, or with its words in it"
    assert all(set(each.passages) <= set(some.values()) for each in lists)
    assert made.whole_lists({"d700": "text 700"}) == []


def test_a_teacher_that_leaves_nothing_to_train_on_is_an_error() -> None:
    entries: Any = SimpleNamespace(queries=dict.fromkeys("abc", ""))
    entries.without = lambda _: SimpleNamespace(lists=lambda *_: ([], {}))
    scored = SimpleNamespace(value={"c": {}})
    made = gathered(entries=entries, doubted=frozenset("ab"), scored=scored, plan=PLAN, alone=True)
    with pytest.raises(InvalidInputError, match="3 queries and their documents, of which the teacher doubts 2"):
        _ = made.lists


@pytest.mark.parametrize("alone", [True, False])
def test_what_the_teacher_did_not_score_is_learned_from_only_beside_its_scores(alone: bool) -> None:
    some = sorted(DEV.queries)[:5]
    scores = {query: {f"d{query[1:]}": 1.0, **dict.fromkeys(list(FOUND[query])[:4], 0.5)} for query in some}
    made = gathered(
        entries=Entries(DEV.queries, DEV.qrels, FOUND, CORPUS),
        doubted=frozenset(some[:1]),
        scored=SimpleNamespace(value=scores),
        plan=PLAN,
        alone=alone,
    )
    lists, counts = made.lists
    left = some[1:] if alone else sorted(DEV.queries.keys() - {some[0]})
    assert sorted(each.query for each in lists) == sorted(DEV.queries[query] for query in left)
    assert counts["not scored by the teacher"] == (len(DEV.queries) - 5 if alone else 0)


def test_objectives_that_need_a_teacher_are_not_tried_where_it_grades_nothing() -> None:
    entries = Entries(DEV.queries, DEV.qrels, FOUND, CORPUS)
    alike = {query: dict.fromkeys([f"d{query[1:]}", *list(FOUND[query])[:4]], 0.5) for query in DEV.queries}
    graded = {query: {id: float(place) for place, id in enumerate(scores)} for query, scores in alike.items()}
    names = [
        [recipe.name for recipe in made.recipes]
        for made in (
            gathered(entries=entries, doubted=frozenset(), scored=SimpleNamespace(value=scores), plan=PLAN)
            for scores in (alike, graded)
        )
    ]
    assert names == [["contrastive"], ["contrastive", "distillation", "both"]]
