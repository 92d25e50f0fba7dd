"""Listwise distillation, its teacher's scales and its false negatives: by hand, by symmetry, on degenerate lists."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from mlr_rag.training import losses

INF = math.inf
TEACHER = torch.tensor([[0.9, 0.1, 0.4, 0.3], [0.2, -INF, 0.7, -INF], [0.5, 0.5, 0.5, -INF]], dtype=torch.float64)


def student(seed: int = 0, n: int = 4) -> Tensor:
    return torch.randn(3, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(values: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def slow_kl(s: list[float], t: list[float], student_temperature: float, teacher_temperature: float) -> float:
    p, q = softmax(t, teacher_temperature), softmax(s, student_temperature)
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def test_listwise_kl_by_hand() -> None:
    value = losses.listwise_kl(torch.tensor([[0.5, 0.3]]), torch.tensor([[0.8, 0.2]]))
    p = 1 / (1 + math.exp(-0.6 / 0.3))  # softmax of two is the logistic function of their difference
    q = 1 / (1 + math.exp(-0.2 / 0.05))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_listwise_kl_of_ragged_lists_is_the_mean_over_the_lists_of_their_own_candidates() -> None:
    s = student()
    rows = [(row[there].tolist(), t[there].tolist()) for row, t in zip(s, TEACHER, strict=True) for there in [t > -INF]]
    expected = sum(slow_kl(a, b, 0.7, 0.4) for a, b in rows) / 3
    assert losses.listwise_kl(s, TEACHER, 0.7, 0.4).item() == pytest.approx(expected, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_listwise_kl_equals_its_equation_on_any_list(pairs: list[tuple[float, float]]) -> None:
    s, t = ([pair[side] for pair in pairs] for side in (0, 1))
    value = losses.listwise_kl(torch.tensor([s], dtype=torch.float64), torch.tensor([t], dtype=torch.float64))
    assert value.item() == pytest.approx(slow_kl(s, t, 0.05, 0.3), abs=1e-9)
    assert value.item() >= -1e-12


def test_listwise_kl_is_zero_where_the_student_agrees() -> None:
    assert losses.listwise_kl(TEACHER[:1], TEACHER[:1], 0.3, 0.3).item() == pytest.approx(0.0, abs=1e-15)


def test_equal_teacher_scores_are_a_uniform_target() -> None:
    s = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.listwise_kl(s, torch.full((1, 3), 0.5)), s)
    q = softmax([0.3, -0.2, 0.1], 0.05)
    assert gradient[0].tolist() == pytest.approx([(value - 1 / 3) / 0.05 for value in q])


@pytest.mark.parametrize("garbage", [0.0, 1e30, -INF, INF, math.nan])
def test_what_the_student_has_at_padding_does_not_matter_and_gets_no_gradient(garbage: float) -> None:
    padding = TEACHER == -INF
    clean = student()
    dirty = clean.masked_fill(padding, garbage).requires_grad_()
    value = losses.listwise_kl(dirty, TEACHER)
    (gradient,) = torch.autograd.grad(value, dirty)
    assert value.item() == losses.listwise_kl(clean, TEACHER).item()
    assert gradient.isfinite().all()
    assert torch.equal(gradient == 0, padding)


def test_more_padding_changes_nothing() -> None:
    wide = torch.cat([TEACHER, torch.full((3, 3), -INF)], 1)
    value = losses.listwise_kl(torch.cat([student(), student(1, 3)], 1), wide).item()
    assert value == pytest.approx(losses.listwise_kl(student(), TEACHER).item(), rel=1e-12)


def test_the_order_of_a_list_does_not_matter() -> None:
    order = torch.tensor([2, 0, 3, 1])
    value = losses.listwise_kl(student()[:, order], TEACHER[:, order]).item()
    assert value == pytest.approx(losses.listwise_kl(student(), TEACHER).item(), rel=1e-12)


def test_a_shift_of_a_lists_scores_does_not_matter_on_either_side() -> None:
    shift = torch.tensor([[3.0], [-7.0], [0.5]])
    value = losses.listwise_kl(student() + shift, TEACHER - 2 * shift).item()
    assert value == pytest.approx(losses.listwise_kl(student(), TEACHER).item(), rel=1e-9)


def test_gradients_of_listwise_kl_are_right() -> None:
    assert gradcheck(lambda s: losses.listwise_kl(s, TEACHER, 0.3), student().requires_grad_())


def test_the_teacher_gets_no_gradient() -> None:
    teacher = TEACHER.clone().requires_grad_()
    s = student().requires_grad_()
    losses.listwise_kl(s, teacher).backward()
    assert teacher.grad is None
    assert s.grad is not None


def test_a_teacher_far_from_the_student_stays_finite() -> None:
    s = torch.tensor([[1.0, -1.0, 0.0]]).requires_grad_()
    value = losses.listwise_kl(s, torch.tensor([[-300.0, 300.0, 0.0]]), 0.01, 0.3)
    assert value.item() == pytest.approx(2 / 0.01, rel=1e-6)
    assert torch.autograd.grad(value, s)[0].isfinite().all()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_the_result_has_the_students_precision_whatever_the_teachers(precision: torch.dtype) -> None:
    assert losses.listwise_kl(student().to(precision), TEACHER).dtype == precision


def test_min_max_by_hand_keeps_padding() -> None:
    value = losses.normalize_teacher(torch.tensor([[2.0, -INF, 6.0, 3.0]]), "min_max")
    assert value.tolist() == [[0.0, -INF, 1.0, 0.25]]


def test_z_score_by_hand_divides_by_the_length_of_the_list() -> None:
    value = losses.normalize_teacher(torch.tensor([[2.0, 4.0, -INF, 9.0]], dtype=torch.float64), "z_score")
    deviation = math.sqrt((9 + 1 + 16) / 3)
    assert value[0].tolist() == pytest.approx([-3 / deviation, -1 / deviation, -INF, 4 / deviation])


def test_percentile_by_hand_clips() -> None:
    value = losses.normalize_teacher(torch.tensor([[-3.0, 0.0, 1.0, 5.0, -INF]]), "percentile", low=-1.0, high=3.0)
    assert value.tolist() == [[0.0, 0.25, 0.5, 1.0, -INF]]


def test_none_leaves_scores_as_they_are() -> None:
    assert torch.equal(losses.normalize_teacher(TEACHER), TEACHER)


@pytest.mark.parametrize("method", ["z_score", "min_max"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e7])
def test_a_list_of_equal_scores_becomes_zeros(method: str, value: float) -> None:
    teacher = torch.tensor([[value] * 7 + [-INF]])
    assert losses.normalize_teacher(teacher, method).tolist() == [[0.0] * 7 + [-INF]]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["none", "z_score", "min_max", "percentile"])
def test_a_list_without_scores_stays_so_beside_others(method: str) -> None:
    bounds = {"low": 0.0, "high": 1.0} if method == "percentile" else {}
    teacher = torch.tensor([[-INF, -INF], [0.2, 0.8]])
    value = losses.normalize_teacher(teacher, method, **bounds)  # type: ignore[arg-type]
    assert value[0].tolist() == [-INF, -INF]
    assert value[1].isfinite().all()


@pytest.mark.parametrize("method", ["z_score", "min_max"])
def test_scale_and_shift_of_a_list_are_normalized_away(method: str) -> None:
    moved = losses.normalize_teacher(5 * TEACHER - 3, method)  # type: ignore[arg-type]
    torch.testing.assert_close(moved, losses.normalize_teacher(TEACHER, method))  # type: ignore[arg-type]


def test_false_negatives_by_hand() -> None:
    # 0.6 of the positive's 0.5 is 0.3: more than that is masked, 0.3 itself is not, and the positive never.
    teacher = torch.tensor([[0.5, 0.3, 0.31, 0.9, -INF]], dtype=torch.float64)
    assert losses.false_negatives(teacher, torch.tensor([0])).tolist() == [[False, False, True, True, False]]


def test_false_negatives_of_a_list_without_scores_are_none() -> None:
    teacher = torch.tensor([[-INF, -INF], [0.9, 0.8]])
    value = losses.false_negatives(teacher, torch.tensor([1, 0]))
    assert value.tolist() == [[False, False], [False, True]]


def test_a_positive_that_scores_zero_makes_every_better_candidate_a_false_negative() -> None:
    teacher = torch.tensor([[0.0, 0.0, 0.1]])
    assert losses.false_negatives(teacher, torch.tensor([0])).tolist() == [[False, False, True]]
