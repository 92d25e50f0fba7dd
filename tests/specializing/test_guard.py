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


def test_the_best_of_several_has_to_be_surer():
    differences = np.array([0.1, -0.1] * 100) + 0.0155
    first, third = (decide(BASE, BASE + differences, 0.0, 0.01, looks=looks) for looks in (1, 3))
    assert 0.05 / 3 < first.p == third.p < 0.05
    assert (first.accepted, third.accepted) == (True, False)
    assert "with 2 other candidates: p counts 3 times" in third.reasons[1]


def test_few_queries_that_were_asked_before_cannot_prove_another_one_and_that_is_said():
    gains = np.linspace(0.3, 0.9, 6)
    first, second = (decide(np.zeros(6), gains, 0.0, 0.01, looks=looks) for looks in (1, 2))
    assert (first.accepted, second.accepted) == (True, False)
    assert "6 can prove one candidate" in second.advice[0]


def test_five_queries_prove_nothing():
    assert not decide([0.1] * 5, [0.9] * 5, fall=0.0, tolerance=0.01).accepted, "p is 2 / 2**5"


def test_many_queries_of_five_passages_prove_nothing_and_are_told_as_what_they_are():
    decision = decide([0.1] * 40, [0.9] * 20 + [0.8] * 20, fall=0.0, tolerance=0.01, groups=[*range(5)] * 8)
    assert not decision.accepted, "p is 2 / 2**5"
    assert "40 held-out queries in 5 independent groups rises by" in decision.reasons[0]
    assert decision.advice == ("More held-out queries, of passages that none of these asks for.",)


def test_one_group_proves_nothing_and_no_difference_is_named():
    decision = decide([0.1] * 40, RANDOM.uniform(0.5, 1, 40), fall=0.0, tolerance=0.01, groups=[0] * 40)
    assert not decision.accepted
    assert decision.detectable is None
    assert "only differences" not in decision.advice[0]


def test_equal_models_are_no_gain_and_no_difference_of_zero_is_named():
    decision = decide(BASE, BASE, fall=0.0, tolerance=0.01)
    assert not decision.accepted
    assert decision.p == 1
    assert decision.advice == ("More held-out queries.",)


def simulated(shared: float, gain: float, groups: list[int]) -> float:
    """How often a gain is accepted where queries share so much of the variance with those of their group."""
    accepted = 0
    for _ in range(300):
        of_group, own = (
            RANDOM.normal(0, shared**0.5, max(groups) + 1),
            RANDOM.normal(0, (1 - shared) ** 0.5, len(groups)),
        )
        accepted += decide(np.zeros(len(groups)), gain + 0.1 * (of_group[groups] + own), 0.0, 0.01, groups).accepted
    return accepted / 300


SIZES = [group for group in range(18) for _ in range(1 + 3 * (group % 3))]  # 72 queries: groups of 1, 4 and 7


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.8])
def test_queries_that_gain_and_lose_together_are_accepted_by_chance_as_often_as_the_level_says(shared):
    assert 0.005 <= simulated(shared, 0.0, SIZES) <= 0.05, "one side of a level of 5%: 2.5% are meant"


def test_independent_queries_show_four_times_in_five_what_is_said_that_they_show():
    alone = [*range(72)]
    smallest = decide(np.zeros(72), RANDOM.normal(0, 0.1, 72), 0.0, 0.01, alone).detectable
    assert smallest == pytest.approx(2.8 * 0.1 / 72**0.5, rel=0.2)
    assert simulated(0.0, 2.8 * 0.1 / 72**0.5, alone) == pytest.approx(0.8, abs=0.07)


def test_chance_is_accepted_no_more_often_than_the_level_says():
    draws = [decide(BASE, BASE + RANDOM.normal(0, 0.1, 200), 0.0, 0.01).accepted for _ in range(100)]
    assert sum(draws) <= 7, "one side of a level of 5%: 2.5 are expected"
