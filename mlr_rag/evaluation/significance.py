"""How sure a difference is: paired tests and intervals over queries.

A measure of a system is a mean over queries, and another set of queries would have given another. Here the queries
are resampled (bootstrap) or the two systems exchanged query by query (randomization); no distribution is assumed.
Smucker, Allan and Carterette (CIKM 2007) compare these tests for retrieval and find that they agree with each other;
Sakai (SIGIR 2006) introduces the bootstrap there, and topic set size design (Information Retrieval Journal 2016).

Queries that ask for the same passages, or are paraphrases, gain and lose together: as independent ones they would tell
more than they know. `groups` names the group of each, by a label. Then whole groups are resampled (the cluster
bootstrap: Field and Welsh, JRSS B 2007) and whole groups exchanged, as the wild cluster bootstrap does with residuals
(Cameron, Gelbach and Miller, Review of Economics and Statistics 2008); groups of one query each change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlr_rag.errors import InvalidInputError

CONFIDENCE = 0.95
_AT_ONCE = 2**22  # numbers drawn and held at a time
_EQUAL = 1e-12  # means that differ by less are equal: sums of floats depend on their order

Values = npt.NDArray[np.float64]
Groups: TypeAlias = Sequence[Hashable] | None


@dataclass(frozen=True)
class Interval:
    """A mean over queries and its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of a - b over queries, its 95% interval, and p: how likely one as large is, were both alike."""

    p: float


def interval(
    values: Sequence[float] | Values, groups: Groups = None, *, samples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of per-query values `(n,)` and its 95% interval, by the percentiles of `samples` bootstrap means.

    One query, or one group, gives an interval of no width: it says nothing about others.

    Raises:
        InvalidInputError: no values, one that is not finite, or another number of groups.
    """
    checked = _checked(values)
    sums, sizes = _by_group(checked, groups)
    return Interval(float(checked.mean()), *_percentiles(_bootstrap(sums, sizes, samples, seed)))


def paired_bootstrap(
    a: Sequence[float] | Values,
    b: Sequence[float] | Values,
    groups: Groups = None,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """The difference of two systems' per-query values, `(n,)` each and in the same order, by resampling queries.

    The interval holds the percentiles of the resampled mean differences. With these shifted to a mean of zero,
    p = (1 + how many are as far from zero as the observed one) / (1 + samples), two-sided (Sakai 2006, Smucker et
    al. 2007). One query, one group, or no difference in any, gives p = 1.

    Raises:
        InvalidInputError: unequal lengths, no values, or one that is not finite.
    """
    differences = _differences(a, b)
    mean = float(differences.mean())
    sums, sizes = _by_group(differences, groups)
    means = _bootstrap(sums, sizes, samples, seed)
    p = 1.0 if len(sums) == 1 else _share(np.abs(means - mean) >= abs(mean) - _EQUAL)
    return Difference(mean, *_percentiles(means), p)


def paired_randomization(
    a: Sequence[float] | Values,
    b: Sequence[float] | Values,
    groups: Groups = None,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """The randomization test: two-sided p, over exchanges of two systems' values, `(n,)` each, query by query.

    If the systems are alike, each difference could as well have had the other sign (Fisher; Smucker et al. 2007), those
    of a group all at once. All 2^n signs of n queries or groups are tried where they are no more than `samples`, else
    as many random ones, and then p = (1 + how many means are as far from zero) / (1 + samples). One query, one group,
    or no difference in any, gives p = 1.

    Raises:
        InvalidInputError: unequal lengths, no values, or one that is not finite.
    """
    differences = _differences(a, b)
    sums, _ = _by_group(differences, groups)
    observed, queries, n = abs(differences.mean()) - _EQUAL, len(differences), len(sums)
    if n < 63 and 2**n <= samples:
        flips = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return float(np.mean(np.abs((1 - 2 * flips) @ sums / queries) >= observed))
    draw = np.random.default_rng(seed)
    means = _in_parts(samples, n, lambda rows: (1 - 2 * draw.integers(0, 2, (rows, n), np.int8)) @ sums / queries)
    return _share(np.abs(means) >= observed)


def paired_test(a: Sequence[float] | Values, b: Sequence[float] | Values, groups: Groups = None) -> Difference:
    """The difference with its interval as by `paired_bootstrap`, and p as by `paired_randomization`.

    The latter holds with few queries, too: of three that all rise the bootstrap is sure, as no sample of them falls.
    """
    return replace(paired_bootstrap(a, b, groups), p=paired_randomization(a, b, groups))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many were tried: one below alpha is then below it in the whole family (Holm 1979).

    The i-th smallest of m, counted from 0, is multiplied by m - i; none comes out below a smaller one, or above 1.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for i, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - i) * p_values[place]))
        corrected[place] = largest
    return corrected


def detectable(n: int, std: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference of means that n queries show with probability `power` at level `alpha`.

    (z_(1 - alpha/2) + z_power) * std / sqrt(n), with `std` that of the per-query differences (see spread): the normal
    approximation of a two-sided paired test (Sakai 2016).

    Raises:
        InvalidInputError: no queries, a negative std, or a probability outside (0, 1).
    """
    if n < 1 or not 0 <= std < np.inf or not 0 < alpha < 1 or not 0 < power < 1:
        raise InvalidInputError(
            "no smallest difference can be told",
            found=f"n={n}, std={std}, alpha={alpha}, power={power}",
            expected="n >= 1, std >= 0, alpha and power between 0 and 1",
        )
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * std / math.sqrt(n)


def spread(values: Sequence[float] | Values, groups: Groups = None) -> float:
    """The standard deviation of per-query values `(n,)`; of groups, what makes spread / sqrt(n) the mean's error.

    That is how far independent queries would have to scatter for their mean to be no better known. The error is the
    cluster-robust one, of the groups' residuals, times sqrt(G / (G - 1)) for G groups (Cameron, Gelbach and Miller
    2008).

    Raises:
        InvalidInputError: no values, one that is not finite, another number of groups, or fewer than two of them.
    """
    checked = _checked(values)
    sums, sizes = _by_group(checked, groups)
    n = len(sums)
    if n < 2:
        raise InvalidInputError("one group of queries has no spread", found=f"{len(checked):,} queries", expected="two")
    residuals = sums - sizes * checked.mean()
    return float(np.sqrt(n / (n - 1) * np.square(residuals).sum() / len(checked)))


def _by_group(values: Values, groups: Groups) -> tuple[Values, Values]:
    """The sum of each group's values and how many they are, in the order in which the groups come."""
    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise InvalidInputError(
            "each query needs its group", found=f"{len(groups):,} for {len(values):,} queries", expected="as many"
        )
    numbers = {label: number for number, label in enumerate(dict.fromkeys(groups))}
    of_query = [numbers[label] for label in groups]
    return np.bincount(of_query, values).astype(np.float64), np.bincount(of_query).astype(np.float64)


def _bootstrap(sums: Values, sizes: Values, samples: int, seed: int) -> Values:
    """Means over the queries of resampled groups: more or fewer queries than there are, where groups differ in size."""
    draw, n = np.random.default_rng(seed), len(sums)

    def means(rows: int) -> Values:
        drawn = draw.integers(0, n, (rows, n))
        found: Values = sums[drawn].mean(axis=1) / sizes[drawn].mean(axis=1)
        return found

    return _in_parts(samples, n, means)


def _in_parts(samples: int, n: int, means: Callable[[int], Values]) -> Values:
    """`samples` means over n values each, drawn a part at a time so that memory stays bounded."""
    if samples < 1:
        raise InvalidInputError("no samples to draw", found=samples, expected="1 or more")

    def parts() -> Iterator[Values]:
        rows = max(1, _AT_ONCE // n)
        for start in range(0, samples, rows):
            yield means(min(rows, samples - start))

    return np.concatenate(list(parts()))


def _percentiles(means: Values) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _share(as_far: npt.NDArray[np.bool_]) -> float:
    """The observed arrangement is one of the possible ones: without it p could be 0 (Davison and Hinkley 1997)."""
    return float((1 + as_far.sum()) / (1 + len(as_far)))


def _differences(a: Any, b: Any) -> Values:
    first, second = _checked(a), _checked(b)
    if first.shape != second.shape:
        raise InvalidInputError(
            "the two systems have different queries", found=f"{len(first):,} and {len(second):,}", expected="as many"
        )
    return first - second


def _checked(values: Any) -> Values:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size:
        raise InvalidInputError("no per-query values", found=f"an array {array.shape}", expected="(n,), n >= 1")
    if not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InvalidInputError("a value is not finite", found=f"{array[place]} at {place:,}", expected="numbers")
    return array
