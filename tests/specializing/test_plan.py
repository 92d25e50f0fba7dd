from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.plan import BATCH, EPOCHS, make_plan, make_schedule, room
from mlr_rag.specializing.speed import Speed

SPEED = Speed(encode=100.0, ask=500.0, train=50.0, products=1e7)


def _five_a_second(lists: int) -> float:
    return lists / 5


def test_without_a_budget_nothing_is_left_out():
    plan = make_plan(
        math.inf,
        SPEED,
        documents=20_000,
        sought=20_000,
        asked=0,
        held=0,
        lists=1000,
        candidates=3,
        adapters=2,
        scoring=_five_a_second,
    )
    assert plan.left_out == ()
    assert (plan.test_documents, plan.scored, plan.length) == (20_000, 1000, 8)
    schedule = make_schedule(math.inf, plan, 1000, 3, a_step=1.0)
    assert schedule.steps == math.ceil(EPOCHS * 1000 / BATCH)
    assert schedule.trial_steps == math.ceil(schedule.steps / 3)
    assert schedule.left_out == ()


def test_what_there_is_no_time_for_is_said():
    plan = make_plan(
        600,
        SPEED,
        documents=1_000_000,
        sought=30_000,
        asked=0,
        held=0,
        lists=50_000,
        candidates=3,
        adapters=2,
        scoring=_five_a_second,
    )
    said = " ".join(plan.left_out)
    assert "sought among 30,000 of 1,000,000 documents" in said
    assert "search 11,640 of 1,000,000 documents" in said
    assert "of 50,000 queries" in said
    assert plan.length == 2
    assert "50,000 lists" in make_schedule(400, plan, 50_000, 3, a_step=1.0).left_out[0]


def test_where_nothing_else_is_learned_from_scores_and_training_fill_the_time():
    sizes = {
        "documents": 5000,
        "sought": 5000,
        "asked": 0,
        "held": 0,
        "lists": 50_000,
        "candidates": 1,
        "adapters": 0,
        "scoring": _five_a_second,
    }
    beside, alone = (make_plan(900, SPEED, **sizes, alone=alone, generated=True) for alone in (False, True))
    assert beside.scored == int(0.3 * 900 * 0.97 * 5)
    assert (beside.lists, alone.lists) == (50_000, alone.scored // 2)
    assert (alone.length, alone.epochs) == (8, 2)
    assert alone.beside + alone.scored / 5 + alone.lists * 8 / SPEED.train == pytest.approx(900 * 0.97, abs=1)
    slow = make_plan(900, replace(SPEED, train=10.0), **sizes, alone=True, generated=True)
    assert slow.length == 2
    assert slow.lists == slow.scored // 2 >= 1000
    few = make_plan(900, SPEED, **sizes | {"lists": 100}, alone=True, generated=True)
    assert make_schedule(900, few, 50, 1, a_step=1.0).steps == math.ceil(2 * 50 / BATCH)
    assert few.scored == 100


def test_one_candidate_needs_no_trial_and_no_teacher_no_scores():
    plan = make_plan(600, SPEED, documents=1000, sought=1000, asked=0, held=0, lists=500, candidates=1, adapters=2)
    assert plan.scored == 0
    assert make_schedule(400, plan, 500, 1, a_step=1.0).trial_steps == 0


def test_an_adapter_alone_needs_no_steps_and_gets_the_time():
    sizes = {"documents": 1000, "sought": 1000, "asked": 0, "held": 0, "lists": 500}
    plan = make_plan(60, SPEED, **sizes, candidates=0, adapters=1)
    assert (plan.evaluations, plan.adapter_epochs) == (0, 10)
    assert plan.seconds < make_plan(0, SPEED, **sizes, candidates=1, adapters=2).seconds


@settings(deadline=None)
@given(
    left=st.floats(120, 7200),
    encode=st.floats(5, 2000),
    train=st.floats(5, 1000),
    documents=st.integers(500, 200_000),
    lists=st.integers(50, 100_000),
    candidates=st.integers(1, 3),
)
def test_the_planned_work_fits_into_the_time_where_it_is_not_the_least_that_makes_sense(
    left, encode, train, documents, lists, candidates
):
    plan = make_plan(left, Speed(encode, 5 * encode, train, 1e8), documents, documents, 0, 0, lists, candidates, 2)
    trials = candidates if candidates > 1 else 0
    adapters = 2 if plan.adapter_epochs else 0
    models = 5 + adapters
    encoding = (plan.test_documents + (4 + trials + models) * plan.dev_documents + models * 660 / 5) / encode
    products = plan.adapter_epochs * lists * (documents + plan.test_documents)
    adapting = adapters * lists / (5 * encode) + products / 1e8
    assert plan.beside == pytest.approx(encoding + adapting, abs=0.1)
    least = plan.beside > left * 0.9 or plan.test_documents <= 500 or plan.dev_documents <= 200
    shortest = (1 + trials) * 10 * BATCH * plan.length / train + 1
    assert least or plan.seconds <= left * 0.98 or plan.seconds - plan.beside <= shortest


@settings(deadline=None)
@given(
    left=st.floats(60, 7200),
    a_step=st.floats(0.01, 60),
    lists=st.integers(50, 100_000),
    candidates=st.integers(1, 3),
)
def test_training_takes_what_time_is_left_by_what_a_step_takes(left, a_step, lists, candidates):
    plan = make_plan(600, SPEED, 5000, 5000, 0, 0, lists, candidates, 2)
    found = make_schedule(left, plan, lists, candidates, a_step)
    tries = candidates if candidates > 1 else 0
    room = left * 0.97 - plan.beside
    least = found.steps <= 10 or 0 < found.trial_steps <= 10
    assert least or (found.steps + tries * found.trial_steps) * a_step <= room
    whole = found.steps == math.ceil(EPOCHS * lists / BATCH)
    assert whole == (not found.left_out)
    if not whole and not least:
        assert (found.steps + tries * found.trial_steps + 1 + tries) * a_step > room or found.trial_steps < 10


def test_without_adapters_there_is_no_time_for_them_and_nothing_to_say():
    plan = make_plan(200, SPEED, 5000, 5000, 0, 0, lists=50_000, candidates=1, adapters=0)
    assert plan.adapter_epochs == 0
    assert not [line for line in plan.left_out if "adapter" in line]


def test_a_corpus_is_searched_as_far_as_there_is_time():
    sizes = {"documents": 1_000_000, "held": 400, "lists": 5000, "candidates": 3}
    assert room(math.inf, SPEED, **sizes) == 1_000_000
    assert room(1000, SPEED, **sizes) == 30_000
    assert room(1000, SPEED, **sizes | {"documents": 10_000}) == 10_000


def test_where_a_teacher_reads_them_too_fewer_documents_are_searched():
    sizes = {"documents": 1_000_000, "held": 400, "lists": 5000, "candidates": 1}
    assert room(1000, SPEED, **sizes, reading=0.09) == 5000
    assert room(1000, SPEED, **sizes, reading=0.001) == room(1000, SPEED, **sizes) == 30_000
    assert room(math.inf, SPEED, **sizes, reading=1.0) == 1_000_000


def test_a_budget_that_is_too_small_is_refused_with_one_that_is_not():
    sizes = {"documents": 1_000_000, "held": 400, "lists": 5000, "candidates": 3}
    with pytest.raises(InvalidInputError, match="the budget is too small") as raised:
        room(30, SPEED, **sizes)
    enough = float(str(raised.value.expected).split()[3])
    assert room(enough, SPEED, **sizes) == max(400, int(enough * 0.3 * SPEED.encode))


def test_what_held_out_queries_need_is_searched_and_its_time_is_planned():
    sizes = {"documents": 20_000, "sought": 20_000, "lists": 1000, "candidates": 1, "adapters": 0}
    few, many = (make_plan(300, SPEED, **sizes, asked=asked, held=held) for asked, held in ((0, 0), (3000, 9000)))
    assert (many.dev_documents, many.test_documents) == (3000, 9000)
    more = 9 * (3000 - few.dev_documents) + 9000 - few.test_documents
    assert many.beside - few.beside == pytest.approx(more / SPEED.encode, abs=0.2)
