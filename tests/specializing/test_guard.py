from __future__ import annotations

import numpy as np
import pytest

from mlr_rag.specializing.guard import decide

RANDOM = np.random.default_rng(0)
BASE = RANDOM.uniform(0, 1, 200)


def test_a_clear_gain_is_accepted():
    decision = decide(BASE, BASE + RANDOM.normal(0.05, 0.1, 200), fall=0.002, tolerance=0.01)
    assert decision.accepted
    assert decision.p < 0.05
    assert decision.advice == ()
    assert "rises by" in decision.reasons[0]


@pytest.mark.parametrize("gain", [-0.05, 0.0, 0.001])
def test_what_is_no_better_or_worse_is_refused_and_told_what_could_have_been_seen(gain):
    decision = decide(BASE, BASE + RANDOM.normal(gain, 0.1, 200), fall=0.0, tolerance=0.01)
    assert not decision.accepted
    assert "with 200 only differences over 0.02 can be seen" in decision.advice[0]


def test_a_gain_that_costs_general_knowledge_is_refused():
    decision = decide(BASE, BASE + 0.1, fall=0.02, tolerance=0.01)
    assert not decision.accepted
    assert "beyond the tolerance of 0.010" in decision.reasons[1]


def test_five_queries_prove_nothing():
    assert not decide([0.1] * 5, [0.9] * 5, fall=0.0, tolerance=0.01).accepted, "p is 2 / 2**5"


def test_equal_models_are_no_gain():
    decision = decide(BASE, BASE, fall=0.0, tolerance=0.01)
    assert not decision.accepted
    assert decision.p == 1


def test_chance_is_accepted_no_more_often_than_the_level_says():
    draws = [decide(BASE, BASE + RANDOM.normal(0, 0.1, 200), 0.0, 0.01).accepted for _ in range(100)]
    assert sum(draws) <= 7, "one side of a level of 5%: 2.5 are expected"
