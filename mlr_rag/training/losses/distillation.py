"""Listwise distillation: the student's distribution over a query's own candidates follows the teacher's.

Tamber, Kazi, Sourabh and Lin, "Conventional Contrastive Learning Often Falls Short" (arXiv 2505.19274), and its first
version (arXiv 2502.19712): KL + 0.1 InfoNCE, the latter without its false negatives.

Everywhere: B lists of up to n candidates; -inf in `teacher` `(B, n)` is padding, wherever it stands.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.losses._checks import check_lists, check_positive_number, check_positives, check_teacher

Normalization = Literal["none", "z_score", "min_max", "percentile"]


def listwise_kl(
    student: Tensor, teacher: Tensor, student_temperature: float = 0.05, teacher_temperature: float = 0.3
) -> Tensor:
    """KL( softmax(t/T_t) || softmax(s/T_s) ) = sum_j P_j (log P_j - log Q_j), the mean over the lists.

    Equal teacher scores are a uniform target. Unlike `DistillKLDivLoss`, it is not multiplied by T_s^2, which at 0.05
    would make it vanish beside any other term. The teacher gets no gradient.

    Args:
        student: `(B, n)`; what stands at padding does not matter.
        teacher: `(B, n)`.
        student_temperature: T_s, the one that the student is used with.
        teacher_temperature: T_t; 0.3 goes with scores in [0, 1] (see `normalize_teacher`).

    Raises:
        InvalidInputError: shapes that differ, a NaN or +inf, or a list of fewer than two scored candidates: it has
            nothing to teach, and is dropped, with a count, where lists are made.
    """
    student, teacher, there = check_lists(student, teacher)
    check_positive_number("student_temperature", student_temperature)
    check_positive_number("teacher_temperature", teacher_temperature)
    log_p = (teacher / teacher_temperature).log_softmax(1)
    log_q = (student / student_temperature).masked_fill(~there, -math.inf).log_softmax(1)
    # At padding both are -inf, and their difference would be NaN.
    gap = log_p.masked_fill(~there, 0.0) - log_q.masked_fill(~there, 0.0)
    return (log_p.exp() * gap).sum(1).mean()


def normalize_teacher(
    teacher: Tensor, method: Normalization = "none", low: float | None = None, high: float | None = None
) -> Tensor:
    """Teacher scores on a common scale, list by list; padding stays -inf.

        none         x
        z_score      (x - mean) / standard deviation (of the list, dividing by its length)
        min_max      (x - min) / (max - min)
        percentile   (x - low) / (high - low), clipped to [0, 1]; the paper's, with P1 and P99 of all scores

    A list of equal scores becomes zeros under z_score and min_max. A list without scores stays so.

    Args:
        teacher: `(B, n)`.
        method: One of the four.
        low: P1 of the teacher's scores over the whole data set; for percentile only.
        high: P99 of them.

    Raises:
        InvalidInputError: a NaN or +inf, an unknown method, or bounds that are missing, not wanted or out of order.
    """
    there = check_teacher(teacher)
    if method not in get_args(Normalization):
        raise InvalidInputError(
            "an unknown normalization", found=method, expected="none | z_score | min_max | percentile"
        )
    bounds = (low, high) if method == "percentile" else (None, None)
    if (low, high) != bounds:
        raise InvalidInputError(f"{method} takes no bounds", found=(low, high), expected="low and high left out")
    if method == "none":
        return teacher
    scores = teacher.masked_fill(~there, 0.0)
    if method == "percentile":
        if low is None or high is None or not -math.inf < low < high < math.inf:
            raise InvalidInputError("low and high are no range", found=(low, high), expected="finite, low < high")
        scaled = ((scores - low) / (high - low)).clamp(0.0, 1.0)
    else:
        least, most = teacher.masked_fill(~there, math.inf).amin(1, keepdim=True), teacher.amax(1, keepdim=True)
        varied = most > least  # the mean of equal scores may be off by a rounding error, not to be blown up to 1
        if method == "min_max":
            shift, scale = least, most - least
        else:
            count = there.sum(1, keepdim=True).clamp(min=1)
            shift = scores.sum(1, keepdim=True) / count
            scale = ((scores - shift).square().masked_fill(~there, 0.0).sum(1, keepdim=True) / count).sqrt()
        scaled = torch.where(varied, (scores - shift) / scale.where(varied, 1.0), 0.0)
    return scaled.masked_fill(~there, -math.inf)


def false_negatives(teacher: Tensor, positives_in_list: Tensor, ratio: float = 0.6) -> Tensor:
    """Which candidates are too good to be negatives: t_j > ratio * t_positive, `(B, n)` bool.

    The positive itself and padding are False, and so is a list without scores.

    Args:
        teacher: `(B, n)`, 0 or more: a share of a negative score has no meaning.
        positives_in_list: `(B,)`, columns of n.
        ratio: 0.6 in the paper, for scores normalized by percentile.

    Raises:
        InvalidInputError: a negative, NaN or +inf score, or a positive that is no candidate of its list.
    """
    there = check_teacher(teacher)
    check_positive_number("ratio", ratio)
    check_positives(positives_in_list, teacher.shape, ~there & there.any(1, keepdim=True), "positives_in_list")
    if (there & (teacher < 0)).any():
        raise InvalidInputError(
            "a share of a negative score has no meaning",
            found=float(teacher[there].min()),
            expected="scores of 0 or more",
            remedy='Use normalize_teacher first, with "percentile" or "min_max".',
        )
    column = positives_in_list.long()[:, None]
    best = teacher.gather(1, column)
    above: Tensor = teacher > ratio * best
    return above.scatter(1, column, False)
