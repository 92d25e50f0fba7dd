"""What cannot be used is refused by every loss with an error that names it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mlr_rag.errors import InvalidInputError
from mlr_rag.training import losses

INF, NAN = math.inf, math.nan
S2, S3 = torch.rand(2, 3), torch.rand(2, 3, 2)
POSITIVES = torch.tensor([0, 1])
TRUTH = torch.tensor([[True, False, False], [False, True, False]])
TEACHER = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.8, -INF]])
LABELS = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
WORDS = torch.ones(2, 3, 2, dtype=torch.bool)

# A call that is right, by the name of each of its arguments.
RIGHT: dict[str, dict[str, Any]] = {
    "infonce": {"scores": S2, "positives": POSITIVES},
    "multi_vector": {"scores": S3, "positives": POSITIVES},
    "self_contrastive": {"scores": S3, "positives": POSITIVES},
    "last_reg": {"scores": S3, "positives": POSITIVES},
    "listwise_kl": {"student": S2, "teacher": TEACHER},
    "margin_mse": {"student": S2, "teacher": TEACHER, "positives_in_list": POSITIVES},
    "mann_whitney": {"scores": S2, "positives": TRUTH},
    "wasserstein": {"scores": S2, "labels": LABELS},
    "word_kl": {"student": S3, "teacher": S3, "words": WORDS},
    "normalize_teacher": {"teacher": TEACHER},
    "false_negatives": {"teacher": TEACHER, "positives_in_list": POSITIVES},
}
CONTRASTIVE = ["infonce", "multi_vector", "self_contrastive", "last_reg"]


def call(name: str, **changes: Any) -> Tensor:
    loss: Callable[..., Tensor] = getattr(losses, name)
    return loss(**(RIGHT[name] | changes))


def refuse(name: str, problem: str, **changes: Any) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        call(name, **changes)


def with_value(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed[(1,) * tensor.ndim] = value
    return changed


def test_the_public_names_are_all_tried_here() -> None:
    assert sorted(RIGHT) == sorted(losses.__all__)


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_call_works(name: str) -> None:
    value = call(name)
    assert value.isfinite().all() if name != "normalize_teacher" else torch.equal(value, TEACHER)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", [name for name in RIGHT if {"scores", "student"} & set(RIGHT[name])])
def test_scores_that_are_not_finite(name: str, value: float) -> None:
    argument = "scores" if "scores" in RIGHT[name] else "student"
    place = ", ".join("1" * RIGHT[name][argument].ndim)
    refuse(name, rf"{argument}\[{place}\] is not finite", **{argument: with_value(RIGHT[name][argument], value)})


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("name", [name for name in RIGHT if "teacher" in RIGHT[name]])
def test_teacher_scores_that_are_nan_or_infinite(name: str, value: float) -> None:
    refuse(name, "teacher.* is not finite", teacher=with_value(RIGHT[name]["teacher"], value))


@pytest.mark.parametrize("name", RIGHT)
def test_an_empty_batch(name: str) -> None:
    refuse(name, "no axis empty", **{key: value[:0] for key, value in RIGHT[name].items()})


@pytest.mark.parametrize("name", RIGHT)
def test_scores_with_an_axis_too_many(name: str) -> None:
    first = next(iter(RIGHT[name]))
    refuse(name, "shape|go with", **{first: RIGHT[name][first][None]})


@pytest.mark.parametrize("name", RIGHT)
def test_scores_that_are_no_float_tensor(name: str) -> None:
    first = next(iter(RIGHT[name]))
    refuse(name, "are not scores|go with", **{first: RIGHT[name][first].tolist()})
    refuse(name, "are not scores", **{first: RIGHT[name][first].nan_to_num().long()})


@pytest.mark.parametrize("name", [name for name in RIGHT if len(RIGHT[name]) > 1])
def test_arguments_of_another_batch_size(name: str) -> None:
    for argument in list(RIGHT[name])[1:]:
        refuse(
            name,
            f"({argument}|student) does not go with the scores",
            **{argument: RIGHT[name][argument][:1]},
        )


@pytest.mark.parametrize("value", [0.0, -0.1, NAN, INF, True, "0.1"])
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        *((name, "temperature") for name in [*CONTRASTIVE, "mann_whitney", "wasserstein", "word_kl"]),
        ("self_contrastive", "reg_temperature"),
        ("last_reg", "reg_temperature"),
        ("listwise_kl", "student_temperature"),
        ("listwise_kl", "teacher_temperature"),
        ("false_negatives", "ratio"),
    ],
)
def test_temperatures_that_are_none(name: str, argument: str, value: Any) -> None:
    refuse(name, f"{argument} cannot be used", **{argument: value})


@pytest.mark.parametrize("name", ["self_contrastive", "last_reg"])
def test_a_negative_weight(name: str) -> None:
    refuse(name, "weight cannot be used", weight=-1.0)


@pytest.mark.parametrize("positive", [-1, 3])
@pytest.mark.parametrize("name", [*CONTRASTIVE, "margin_mse", "false_negatives"])
def test_a_positive_that_is_no_candidate(name: str, positive: int) -> None:
    argument = list(RIGHT[name])[-1]
    refuse(name, "positive of query 1 is not among", **{argument: torch.tensor([0, positive])})


@pytest.mark.parametrize("name", ["margin_mse", "false_negatives"])
def test_a_positive_at_padding(name: str) -> None:
    refuse(name, "positive of query 1 is masked", positives_in_list=torch.tensor([0, 2]))


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_positive_that_is_masked(name: str) -> None:
    refuse(name, "positive of query 1 is masked", mask=TRUTH & torch.tensor([[False], [True]]))


@pytest.mark.parametrize("name", [*CONTRASTIVE, "mann_whitney"])
def test_a_mask_that_is_not_boolean_or_of_another_shape(name: str) -> None:
    refuse(name, "mask does not go with the scores", mask=(~TRUTH).float())
    refuse(name, "mask does not go with the scores", mask=~TRUTH[:, :2])


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_positives_that_are_not_column_numbers(name: str) -> None:
    refuse(name, "positives are not column numbers", positives=POSITIVES.float())


@pytest.mark.parametrize("name", ["listwise_kl", "margin_mse"])
@pytest.mark.parametrize("left", [0, 1])
def test_a_list_of_fewer_than_two_candidates(name: str, left: int) -> None:
    teacher = TEACHER.clone()
    teacher[1, left:] = -INF
    refuse(name, re.escape(f"list 1 teaches nothing: found {left} scored candidates"), teacher=teacher)


def test_an_unknown_reduction_or_normalization() -> None:
    refuse("self_contrastive", "unknown reduce", reduce="mean")
    refuse("normalize_teacher", "unknown normalization", method="softmax")


@pytest.mark.parametrize("bounds", [{}, {"low": 0.0}, {"low": 1.0, "high": 1.0}, {"low": 0.0, "high": NAN}])
def test_a_percentile_without_a_range(bounds: dict[str, float]) -> None:
    refuse("normalize_teacher", "low and high are no range", method="percentile", **bounds)


@pytest.mark.parametrize("method", ["none", "z_score", "min_max"])
def test_bounds_that_nothing_would_use(method: str) -> None:
    refuse("normalize_teacher", f"{method} takes no bounds", method=method, low=0.0, high=1.0)


def test_a_share_of_a_negative_teacher_score() -> None:
    refuse("false_negatives", "share of a negative score", teacher=TEACHER - 0.5)


def test_auc_without_positives_without_negatives_or_with_a_masked_positive() -> None:
    refuse("mann_whitney", "found 0 positives, 6 negatives", positives=~TRUTH & TRUTH)
    refuse("mann_whitney", "found 2 positives, 0 negatives", mask=~TRUTH)
    refuse("mann_whitney", r"positive \[0, 0\] is masked", mask=TRUTH)


def test_attention_that_is_none() -> None:
    refuse("word_kl", "teacher is no attention", teacher=with_value(S3, -0.1))
    refuse("word_kl", "teacher is no attention", teacher=torch.zeros(2, 3, 2))
    refuse("word_kl", "no words to compare", words=~WORDS)


def test_a_bad_score_with_a_gradient_is_named_without_a_warning() -> None:
    scores = S2.clone()
    scores[1, 2] = NAN
    with pytest.raises(InvalidInputError, match=r"scores\[1, 2\] is not finite"):
        losses.infonce(scores.requires_grad_(), POSITIVES)
