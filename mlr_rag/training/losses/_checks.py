"""What the losses ask of their tensors, said in one way."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mlr_rag.errors import InvalidInputError


def check_scores(scores: Any, axes: str, name: str = "scores") -> Tensor:
    """The scores in float32 at least (float64 stays), made sure to have these axes, none empty, and to be finite.

    Args:
        scores: Floating point.
        axes: As in "(B, N)".
        name: What the error calls them.

    Raises:
        InvalidInputError: they are not.
    """
    check_axes(scores, axes, name)
    return check_finite(scores, name)


def check_axes(scores: Any, axes: str, name: str = "scores") -> None:
    """Make sure that scores are a float tensor with these axes, none empty.

    Raises:
        InvalidInputError: they are not.
    """
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        found = str(scores.dtype) if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidInputError(f"{name} are not scores", found=found, expected=f"a float tensor {axes}")
    if scores.ndim != axes.count(",") + 1 or scores.numel() == 0:
        found = str(tuple(scores.shape))
        raise InvalidInputError(f"{name} have another shape", found=found, expected=f"{axes}, no axis empty")


def check_finite(scores: Tensor, name: str, where: Tensor | None = None) -> Tensor:
    """The scores in float32 at least, made sure to be finite, or to be so `where` they count.

    Raises:
        InvalidInputError: one is not, and which.
    """
    bad = ~scores.detach().isfinite()
    if where is not None:
        bad &= where
    if bad.any():
        place = bad.nonzero()[0].tolist()
        found = scores.detach()[tuple(place)].item()
        raise InvalidInputError(f"{name}{place} is not finite", found=found, expected="a finite number")
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def check_shape(tensor: Any, like: tuple[int, ...], axes: str, name: str, boolean: bool = False) -> None:
    """Make sure that a tensor goes with the others.

    Raises:
        InvalidInputError: it has another shape, or is not boolean where it must be.
    """
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != tuple(like) or (boolean and tensor.dtype != torch.bool):
        found = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        kind = "bool " if boolean else ""
        raise InvalidInputError(
            f"{name} does not go with the scores", found=found, expected=f"{kind}{tuple(like)} = {axes}"
        )


def check_positives(
    positives: Any, shape: tuple[int, ...], mask: Tensor | None = None, name: str = "positives"
) -> None:
    """Make sure that there is one positive a query, among its candidates and not left out.

    Raises:
        InvalidInputError: it is not so.
    """
    check_shape(positives, shape[:1], "(B,)", name)
    if positives.is_floating_point() or positives.dtype == torch.bool:
        raise InvalidInputError(f"{name} are not column numbers", found=str(positives.dtype), expected="integers")
    outside = (positives < 0) | (positives >= shape[1])
    if outside.any():
        query = int(outside.nonzero()[0])
        raise InvalidInputError(
            f"the positive of query {query} is not among its candidates",
            found=int(positives[query]),
            expected=f"a column from 0 to {shape[1] - 1}",
        )
    if mask is not None:
        check_shape(mask, shape[:2], "(B, N)", "mask", boolean=True)
        lost = mask.gather(1, positives[:, None].long())[:, 0]
        if lost.any():
            query = int(lost.nonzero()[0])
            raise InvalidInputError(
                f"the positive of query {query} is masked",
                found=f"column {int(positives[query])}",
                expected="a mask that leaves the positive in",
            )


def check_lists(student: Any, teacher: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher scores of lists, and which candidates are there: `(B, n)` each; -inf in teacher = padding.

    The teacher's scores come back without gradient, as what the student's are.

    Raises:
        InvalidInputError: the shapes differ, a score is not finite, or a list has fewer than two candidates.
    """
    there = check_teacher(teacher)
    check_axes(student, "(B, n)", "student")
    check_shape(student, teacher.shape, "(B, n)", "student")
    student = check_finite(student, "student", where=there)
    short = there.sum(1) < 2
    if short.any():
        query = int(short.nonzero()[0])
        raise InvalidInputError(
            f"list {query} teaches nothing",
            found=f"{int(there[query].sum())} scored candidates",
            expected="two or more",
            remedy="Drop it before.",
        )
    return student, teacher.detach().to(student), there


def check_teacher(teacher: Any) -> Tensor:
    """Which candidates of the lists are there, `(B, n)`: those that are not -inf.

    Raises:
        InvalidInputError: a score is NaN or +inf.
    """
    check_axes(teacher, "(B, n)", "teacher")
    there: Tensor = teacher != -math.inf
    check_finite(teacher, "teacher", where=there)
    return there


def check_positive_number(name: str, value: float) -> None:
    """Make sure that a temperature is one.

    Raises:
        InvalidInputError: it is zero, negative or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InvalidInputError(f"{name} cannot be used", found=value, expected="a number above 0")


def check_weight(name: str, value: float) -> None:
    """Make sure that the weight of a term is one.

    Raises:
        InvalidInputError: it is negative or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidInputError(f"{name} cannot be used", found=value, expected="0 or more")
