"""Losses over pairs of a positive and a negative: MarginMSE and Mann-Whitney (AUC)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.losses._checks import (
    check_lists,
    check_positive_number,
    check_positives,
    check_scores,
    check_shape,
)

_PAIRS_AT_ONCE = 2**22  # 16 MiB of float32


def margin_mse(student: Tensor, teacher: Tensor, positives_in_list: Tensor) -> Tensor:
    """The student's margin follows the teacher's: mean over the pairs of ((s+ - s_j) - (t+ - t_j))^2.

    Hofstätter et al. (arXiv 2010.02666), as in GPL (arXiv 2112.07577). Both margins are in their own units: with unit
    vectors, normalize the teacher's scores (see `normalize_teacher`). Every pair of the batch counts the same. The
    teacher gets no gradient.

    Args:
        student: `(B, n)`; what stands at padding does not matter.
        teacher: `(B, n)`, -inf = padding.
        positives_in_list: `(B,)`, columns of n.

    Raises:
        InvalidInputError: shapes that differ, a NaN or +inf, a list of fewer than two scored candidates, or a positive
            that is no candidate of its list.
    """
    student, teacher, there = check_lists(student, teacher)
    check_positives(positives_in_list, teacher.shape, ~there, "positives_in_list")
    column = positives_in_list.long()[:, None]
    error = (student - teacher).masked_fill(~there, 0.0)  # (s+ - s_j) - (t+ - t_j) = (s+ - t+) - (s_j - t_j)
    pairs = there.scatter(1, column, False)
    squares = (error.gather(1, column) - error).square()
    return squares.masked_fill(~pairs, 0.0).sum() / pairs.sum()


def mann_whitney(scores: Tensor, positives: Tensor, mask: Tensor | None = None, temperature: float = 0.05) -> Tensor:
    """Every positive above every negative of the whole batch, also of other queries: mean softplus(-(s+ - s-)/T).

    Sheikholeslami et al., "Optimizing What Matters" (arXiv 2510.00137): a bound on the area over the ROC curve. As the
    abstract has it (binary cross-entropy of score differences); the paper's temperature is not known to us. It costs
    (number of positives) * (number of negatives), in bounded memory.

    Args:
        scores: `(B, N)`.
        positives: `(B, N)` bool, at least one; the rest are negatives.
        mask: `(B, N)` bool, True = left out.
        temperature: T.

    Raises:
        InvalidInputError: shapes that do not fit, a score that is not finite, a masked positive, or no positive or no
            negative at all.
    """
    scores = check_scores(scores, "(B, N)")
    check_shape(positives, scores.shape, "(B, N)", "positives", boolean=True)
    check_positive_number("temperature", temperature)
    negatives = ~positives
    if mask is not None:
        check_shape(mask, scores.shape, "(B, N)", "mask", boolean=True)
        if (mask & positives).any():
            place = (mask & positives).nonzero()[0].tolist()
            raise InvalidInputError(f"the positive {place} is masked", expected="a mask that leaves positives in")
        negatives = negatives & ~mask
    high, low = scores[positives], scores[negatives]
    if not len(high) or not len(low):
        found = f"{len(high)} positives, {len(low)} negatives"
        raise InvalidInputError("no pair to rank", found=found, expected="one of each, or more")
    total = scores.new_zeros(())
    for some in torch.split(high, max(1, _PAIRS_AT_ONCE // len(low))):
        total = total + checkpoint(_misranked, some, low, temperature, use_reentrant=False)
    return total / (len(high) * len(low))


def _misranked(high: Tensor, low: Tensor, temperature: float) -> Tensor:
    return functional.softplus((low - high[:, None]) / temperature).sum()
