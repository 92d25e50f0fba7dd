"""The guard: a specialized model is handed back only where a held-out test says that it is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlr_rag.evaluation.significance import detectable, paired_randomization, spread

LEVEL = 0.05
_SEEN = 0.005  # what "differences over 0.01" is said of


@dataclass(frozen=True)
class Decision:
    """Whether a model is accepted.

    Attributes:
        accepted: It is better on held-out queries, and forgets no more than is allowed.
        p: Of the paired randomization test, two-sided.
        detectable: The smallest true difference that so many queries show in four of five trials; None where they are
            one group.
        reasons: Why, a sentence each.
        advice: What would help, a sentence each.
    """

    accepted: bool
    p: float
    detectable: float | None
    reasons: tuple[str, ...]
    advice: tuple[str, ...]


def decide(
    base: Sequence[float],
    candidate: Sequence[float],
    fall: float,
    tolerance: float,
    groups: Sequence[int] | None = None,
    looks: int = 1,
    level: float = LEVEL,
) -> Decision:
    """Accept a candidate that is surely better on the test queries and still does what the base does elsewhere.

    Args:
        base: nDCG@10 of each test query with the base model.
        candidate: The same queries with the candidate.
        fall: How much nDCG@10 of the general probe falls; negative where it rises.
        tolerance: How far it may fall.
        groups: The group of each test query: those of one group are not independent of each other, and count together.
            None where all are.
        looks: How many candidates these queries have been asked with, this one included: the best of several looks
            better than it is, so that p has to be so many times smaller (Bonferroni's correction).
        level: p below which the difference of a first candidate counts.

    Raises:
        InvalidInputError: unequal lengths, no values, or one that is not finite.
    """
    p = paired_randomization(candidate, base, groups)
    differences = np.asarray(candidate, np.float64) - np.asarray(base, np.float64)
    mean, n = float(differences.mean()), len(differences)
    independent = n if groups is None else len(set(groups))
    smallest = detectable(n, spread(differences, groups)) if independent > 1 else None
    better, kept = mean > 0 and p * looks < level, fall <= tolerance
    within = f" in {independent:,} independent groups" if independent < n else ""
    gain = (
        f"nDCG@10 of {n:,} held-out queries{within} {'rises' if mean > 0 else 'falls'} by {abs(mean):.3f} (p = {p:.2g})"
    )
    reasons = [f"{gain}, which is {'' if better else 'not '}surely better."]
    if looks > 1:
        reasons.append(
            f"These queries were asked before, with {looks - 1:,} other candidate{'s' if looks > 2 else ''}: p counts "
            f"{looks:,} times."
        )
    reasons.append(
        f"On general queries it {'falls' if fall > 0 else 'rises'} by {abs(fall):.3f}, "
        f"{'within' if kept else 'beyond'} the tolerance of {tolerance:.3f}."
    )
    advice = []
    if mean > 0 and looks > 1 and 2.0 ** (1 - independent) * looks >= level:
        advice.append(
            f"Judge queries about other passages: {independent}{' groups' if within else ''} can prove one candidate, "
            "and these have been asked with another one before."
        )
    elif not better:
        more = "More held-out queries, of passages that none of these asks for" if within else "More held-out queries"
        seen = smallest is not None and smallest >= _SEEN
        advice.append(
            f"{more}: with {n:,}{within} only differences over {smallest:.2f} can be seen." if seen else f"{more}."
        )
    if not kept:
        advice.append("objective='queries' leaves every document alone, and forgets nothing of them.")
    return Decision(better and kept, p, smallest, tuple(reasons), tuple(advice))
