"""Which dev queries measure models, over which documents; and what a query adapter learns from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.gathering import Gathering
from mlr_rag.specializing.lists import Entries
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.recipes import RECIPES

COUNT = 400
CORPUS = {f"d{n:03}": f"text {n}" for n in range(2 * COUNT)}
DEV = Judged({f"q{n:03}": f"query {n}" for n in range(COUNT)}, {f"q{n:03}": {f"d{n:03}": 1} for n in range(COUNT)})
FOUND = {
    query: {f"d{(int(query[1:]) + 7 * step) % len(CORPUS):03}": 1.0 / step for step in range(1, 31)}
    for query in DEV.queries
}


@pytest.fixture
def gathered() -> Gathering:
    split = SimpleNamespace(dev=DEV, held_documents=frozenset({"d001"}))
    ground = SimpleNamespace(split=split, corpus=CORPUS, passages={"q002": "part of a text"})
    made: Any = Gathering(ground, SimpleNamespace(seed=0), None, None, None, None)  # type: ignore[arg-type]
    vars(made).update(candidates=FOUND, sought=CORPUS, trusted=DEV)
    return made


@pytest.mark.parametrize("room", [350, 400])
def test_dev_queries_are_as_many_as_there_is_room_for_with_what_they_ask_for(gathered: Any, room: int) -> None:
    vars(gathered).update(plan=SimpleNamespace(dev_documents=room))
    chosen = gathered.measuring.queries
    assert 50 < len(chosen) < COUNT
    assert len(gathered.pool) == room
    for query in chosen:
        assert {f"d{query[1:]}", *list(FOUND[query])[:5]} <= gathered.pool.keys()


def test_fifty_are_the_least(gathered: Any) -> None:
    vars(gathered).update(plan=SimpleNamespace(dev_documents=10))
    assert len(gathered.measuring.queries) == 50
    assert len(gathered.pool) <= 100, "each asks for its own, and one more"


def test_all_of_them_where_there_is_room(gathered: Any) -> None:
    vars(gathered).update(plan=SimpleNamespace(dev_documents=len(CORPUS)))
    assert gathered.measuring == DEV
    assert gathered.pool == CORPUS


def test_an_adapter_learns_from_the_documents_that_it_is_given(gathered: Any) -> None:
    some = {f"d{n:03}": CORPUS[f"d{n:03}"] for n in range(100)}
    lists = gathered.whole_lists(some)
    asked = {each.query for each in lists}
    near = {f"query {n}" for n in range(100 - 7)}  # others find none of these beside their own
    assert asked == near - {"query 1", "query 2"}, "held out, or with its words in it"
    assert all(set(each.passages) <= set(some.values()) for each in lists)
    assert gathered.whole_lists({"d700": "text 700"}) == []


def test_a_teacher_that_leaves_nothing_to_train_on_is_an_error(gathered: Any) -> None:
    entries = SimpleNamespace(queries=dict.fromkeys("abc", ""))
    entries.without = lambda _: SimpleNamespace(lists=lambda *_: ([], {}))
    plan = SimpleNamespace(length=3)
    recipes = tuple(recipe for recipe in RECIPES if recipe.needs_teacher)
    vars(gathered).update(entries=entries, doubted=frozenset("ab"), scored=None, recipes=recipes, plan=plan)
    with pytest.raises(InvalidInputError, match="doubts 2 of 3 queries"):
        _ = gathered.lists


@pytest.mark.parametrize("name", ["distillation", "contrastive"])
def test_what_the_teacher_did_not_score_is_learned_from_only_beside_its_scores(gathered: Any, name: str) -> None:
    entries = Entries(DEV.queries, DEV.qrels, FOUND, CORPUS)
    some = sorted(DEV.queries)[:5]
    scores = {query: {f"d{query[1:]}": 1.0, **dict.fromkeys(list(FOUND[query])[:4], 0.5)} for query in some}
    recipes = tuple(recipe for recipe in RECIPES if recipe.name == name)
    plan, scored = SimpleNamespace(length=3), SimpleNamespace(value=scores)
    vars(gathered).update(entries=entries, doubted=frozenset(some[:1]), scored=scored, recipes=recipes, plan=plan)
    lists, _ = gathered.lists
    left = some[1:] if name == "distillation" else sorted(DEV.queries.keys() - {some[0]})
    assert sorted(each.query for each in lists) == sorted(DEV.queries[query] for query in left)
