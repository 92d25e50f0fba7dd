from __future__ import annotations

import math
import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy import stats

from mlr_rag import InvalidInputError
from mlr_rag.evaluation.significance import detectable, holm, interval, paired_bootstrap, paired_randomization, spread

TESTS = [
    lambda a, b, *groups, **options: paired_bootstrap(a, b, *groups, **options).p,
    paired_randomization,
]


def systems(n: int, effect: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated per-query values between 0 and 1, many of them equal, as nDCG has them."""
    draw = np.random.default_rng(seed)
    b = draw.choice([0.0, 0.39, 0.5, 0.63, 1.0], n)
    a = np.where(draw.random(n) < 0.4, np.clip(b + draw.normal(effect, 0.3, n), 0, 1), b)
    return a, b


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    values = systems(200)[0]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    ours = interval(values)
    assert ours.mean == pytest.approx(values.mean())
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=0.002)


def test_the_interval_of_a_difference_is_that_of_the_differences() -> None:
    a, b = systems(80, 0.1)
    difference, alone = paired_bootstrap(a, b), interval(a - b)
    assert (difference.mean, difference.low, difference.high) == (alone.mean, alone.low, alone.high)
    assert difference.low < difference.mean < difference.high


@pytest.mark.parametrize("effect", [0.0, 0.12, 0.2])
def test_the_randomization_test_is_scipys(effect: float) -> None:
    a, b = systems(150, effect)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert paired_randomization(a, b, samples=20_000) == pytest.approx(theirs, abs=0.015)


@pytest.mark.parametrize("n", [2, 5, 9, 13])
def test_for_few_queries_the_randomization_test_is_exact(n: int) -> None:
    a, b = systems(n, 0.2, seed=n)
    theirs = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples").pvalue
    assert paired_randomization(a, b) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("effect", [0.0, 0.12, 0.2])
def test_bootstrap_randomization_and_t_test_agree_on_many_queries(effect: float) -> None:
    a, b = systems(300, effect, seed=2)
    theirs = stats.ttest_rel(a, b).pvalue
    assert paired_bootstrap(a, b).p == pytest.approx(theirs, abs=0.02)
    assert paired_randomization(a, b) == pytest.approx(theirs, abs=0.02)


@pytest.mark.parametrize("test", TESTS)
def test_a_true_null_is_rejected_about_as_often_as_the_level_says(test: object) -> None:
    draw = np.random.default_rng(0)
    pairs = [(draw.random(40), draw.random(40)) for _ in range(400)]
    rejected = np.mean([test(a, b, samples=500) < 0.05 for a, b in pairs])
    assert 0.02 <= rejected <= 0.09


@pytest.mark.parametrize("test", TESTS)
def test_one_query_or_no_difference_gives_p_1(test: object) -> None:
    assert test([0.9], [0.1]) == 1.0
    assert test([0.3] * 40, [0.3] * 40) == 1.0
    assert test([0.1 + 0.2] * 40, [0.3] * 40) == 1.0  # equal but for the last bit


def test_one_query_gives_an_interval_of_no_width() -> None:
    assert (interval([0.7]).low, interval([0.7]).high) == pytest.approx((0.7, 0.7))


@pytest.mark.parametrize("test", TESTS)
def test_exchanging_the_systems_changes_only_the_sign(test: object) -> None:
    a, b = systems(60, 0.05)
    assert test(a, b) == test(b, a)
    assert paired_bootstrap(a, b).mean == -paired_bootstrap(b, a).mean


def test_a_seed_gives_the_same_again_and_another_seed_another() -> None:
    a, b = systems(60, 0.03)
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b)
    assert paired_bootstrap(a, b) != paired_bootstrap(a, b, seed=1)
    assert paired_randomization(a, b) != paired_randomization(a, b, seed=1)


def test_groups_of_one_query_each_change_nothing() -> None:
    a, b = systems(60, 0.05)
    groups = [f"query {n}" for n in range(60)]
    assert paired_bootstrap(a, b, groups) == paired_bootstrap(a, b)
    assert paired_randomization(a, b, groups) == paired_randomization(a, b)
    assert interval(a, groups) == interval(a)
    assert spread(a, groups) == spread(a) == pytest.approx(np.std(a, ddof=1))


@pytest.mark.parametrize("test", TESTS)
def test_copies_of_queries_in_their_group_add_no_evidence_and_as_independent_ones_do(test: object) -> None:
    a, b = systems(30, 0.1)
    five_times = [np.repeat(each, 5) for each in (a, b)]
    groups = np.repeat(np.arange(30), 5)
    assert test(*five_times, groups) == pytest.approx(test(a, b), abs=1e-12)
    assert test(*five_times) < 0.5 * test(a, b)
    assert spread(five_times[0], groups) / 150**0.5 == pytest.approx(spread(a) / 30**0.5)


def test_copies_of_queries_in_their_group_leave_the_interval_as_it_is() -> None:
    a, _ = systems(30)
    ours, alone = interval(np.repeat(a, 5), np.repeat(np.arange(30), 5)), interval(a)
    assert (ours.mean, ours.low, ours.high) == pytest.approx((alone.mean, alone.low, alone.high))


def test_for_few_groups_all_exchanges_of_whole_groups_are_tried() -> None:
    a, b = systems(12, 0.2, seed=3)
    groups = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5]
    sums = [(a - b)[[place for place, label in enumerate(groups) if label == group]].sum() for group in range(6)]
    every = [abs(np.dot(signs, sums)) for signs in product((-1, 1), repeat=6)]
    assert paired_randomization(a, b, groups) == np.mean(np.array(every) >= abs(sum(sums)) - 1e-9)


def test_the_interval_of_groups_of_all_sizes_holds_the_truth_about_as_often_as_it_says() -> None:
    draw, groups = np.random.default_rng(0), np.repeat(np.arange(60), np.arange(60) % 6 + 1)
    held = {True: 0, False: 0}
    for seed in range(300):
        values = draw.normal(0, 1, 60)[groups] + draw.normal(0, 0.5, len(groups))
        for known in held:
            found = interval(values, groups if known else None, samples=400, seed=seed)
            held[known] += found.low <= 0 <= found.high
    assert held[True] / 300 == pytest.approx(0.93, abs=0.03)  # percentiles of 60 are a little too narrow
    assert held[False] / 300 < 0.8


def test_the_spread_of_groups_tells_the_error_of_the_mean() -> None:
    draw, groups = np.random.default_rng(0), np.repeat(np.arange(60), np.arange(60) % 6 + 1)
    samples = [draw.normal(0, 1, 60)[groups] + draw.normal(0, 0.5, len(groups)) for _ in range(300)]
    told = np.mean([spread(values, groups) for values in samples]) / len(groups) ** 0.5
    assert told == pytest.approx(np.std([values.mean() for values in samples]), rel=0.1)


@pytest.mark.parametrize("test", [*TESTS, lambda a, b, groups: interval(a, groups)])
def test_groups_of_other_queries_are_refused(test: object) -> None:
    with pytest.raises(InvalidInputError, match="each query needs its group: found 2 for 3 queries"):
        test([0.1, 0.2, 0.3], [0.3, 0.2, 0.2], [0, 1])


def test_one_group_proves_nothing_and_has_no_spread() -> None:
    for test in TESTS:
        assert test([0.9, 0.8], [0.1, 0.3], ["one", "one"]) == 1.0
    with pytest.raises(InvalidInputError, match="one group of queries has no spread"):
        spread([0.9, 0.8], ["one", "one"])


def test_memory_stays_bounded_for_many_queries() -> None:
    a, b = systems(20_000, 0.01)
    tracemalloc.start()
    paired_bootstrap(a, b, samples=2000)  # 40 million draws, 320 MB if held at once
    paired_randomization(a, b, samples=2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6


def test_holm_multiplies_by_what_is_left_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_detectable_is_what_a_t_test_finds_four_times_in_five() -> None:
    n, std = 100, 0.3
    effect = detectable(n, std)
    assert effect == pytest.approx(2.8016 * std / math.sqrt(n), rel=1e-4)
    draws = np.random.default_rng(0).normal(effect, std, (2000, n))
    found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.03)
    assert detectable(n, std, alpha=0.05 / 40) > effect


@pytest.mark.parametrize(
    ("a", "b", "problem"),
    [
        ([], [], r"no per-query values.*\(0,\)"),
        ([[1.0]], [[1.0]], r"no per-query values.*\(1, 1\)"),
        ([1.0, 2.0], [1.0], "different queries: found 2 and 1"),
        ([1.0, float("nan")], [1.0, 2.0], "not finite: found nan at 1"),
    ],
)
@pytest.mark.parametrize("test", TESTS)
def test_values_that_are_no_pairs_are_refused(test: object, a: list, b: list, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        test(a, b)


def test_no_samples_and_no_queries_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no samples to draw: found 0"):
        interval([0.5, 0.6], samples=0)
    with pytest.raises(InvalidInputError, match="n=0"):
        detectable(0, 0.1)
