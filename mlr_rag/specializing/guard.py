"""The guard: a specialized model is handed back only where a held-out test says that it is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlr_rag.evaluation.significance import detectable, paired_randomization

LEVEL = 0.05


@dataclass(frozen=True)
class Decision:
    """Whether a model is accepted.

    Attributes:
        accepted: It is better on held-out queries, and forgets no more than is allowed.
        p: Of the paired randomization test, two-sided.
        detectable: The smallest true difference that so many queries show in four of five trials.
        reasons: Why, a sentence each.
        advice: What would help, a sentence each.
    """

    accepted: bool
    p: float
    detectable: float
    reasons: tuple[str, ...]
    advice: tuple[str, ...]


def decide(
    base: Sequence[float], candidate: Sequence[float], fall: float, tolerance: float, level: float = LEVEL
) -> Decision:
    """Accept a candidate that is surely better on the test queries and still does what the base does elsewhere.

    Args:
        base: nDCG@10 of each test query with the base model.
        candidate: The same queries with the candidate.
        fall: How much nDCG@10 of the general probe falls; negative where it rises.
        tolerance: How far it may fall.
        level: p below which a difference counts.

    Raises:
        InvalidInputError: unequal lengths, no values, or one that is not finite.
    """
    p = paired_randomization(candidate, base)
    differences = np.asarray(candidate, np.float64) - np.asarray(base, np.float64)
    mean, n = float(differences.mean()), len(differences)
    smallest = detectable(n, float(differences.std(ddof=1)) if n > 1 else 1.0)
    better, kept = mean > 0 and p < level, fall <= tolerance
    gain = f"nDCG@10 of {n:,} held-out queries {'rises' if mean > 0 else 'falls'} by {abs(mean):.3f} (p = {p:.2g})"
    reasons = [f"{gain}, which is {'' if better else 'not '}surely better."]
    reasons.append(
        f"On general queries it {'falls' if fall > 0 else 'rises'} by {abs(fall):.3f}, "
        f"{'within' if kept else 'beyond'} the tolerance of {tolerance:.3f}."
    )
    advice = []
    if not better:
        advice.append(f"More held-out queries: with {n:,} only differences over {smallest:.2f} can be seen.")
    if not kept:
        advice.append(
            "A lower learning rate or fewer steps; or objective='queries', which leaves every document alone."
        )
    return Decision(better and kept, p, smallest, tuple(reasons), tuple(advice))
