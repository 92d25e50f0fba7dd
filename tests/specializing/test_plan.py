from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from mlr_rag.specializing.plan import BATCH, EPOCHS, make_plan
from mlr_rag.specializing.speed import Speed

SPEED = Speed(encode=100.0, train=50.0, products=1e7)


def test_without_a_budget_nothing_is_left_out():
    plan = make_plan(math.inf, SPEED, documents=20_000, lists=1000, candidates=3, teacher=5.0)
    assert plan.left_out == ()
    assert (plan.test_documents, plan.scored, plan.length) == (20_000, 1000, 8)
    assert plan.steps == math.ceil(EPOCHS * 1000 / BATCH)


def test_what_there_is_no_time_for_is_said():
    plan = make_plan(600, SPEED, documents=1_000_000, lists=50_000, candidates=3, teacher=5.0)
    said = " ".join(plan.left_out)
    assert "of 1,000,000 documents" in said
    assert "of 50,000 queries" in said
    assert "50,000 lists" in said
    assert plan.length == 2


def test_one_candidate_needs_no_trial_and_no_teacher_no_scores():
    plan = make_plan(600, SPEED, documents=1000, lists=500, candidates=1, teacher=None)
    assert (plan.trial_steps, plan.scored) == (0, 0)


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
    plan = make_plan(left, Speed(encode, train, 1e8), documents, lists, candidates, None)
    trials = candidates if candidates > 1 else 0
    training = (plan.steps + trials * plan.trial_steps) * BATCH * plan.length / train
    encoding = (plan.test_documents + (8 + trials) * plan.dev_documents + 4 * 330) / encode
    adapting = 2 * plan.adapter_epochs * lists * plan.test_documents / 1e8
    least = plan.steps <= 10 or 0 < plan.trial_steps <= 10 or plan.test_documents <= 500 or plan.dev_documents <= 200
    assert least or training + encoding + adapting <= left * 0.91
