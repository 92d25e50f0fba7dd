"""MarginMSE, Mann-Whitney and Wasserstein: by hand, against slow or other computations, and by symmetry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.autograd import gradcheck

from mlr_rag.training import losses
from mlr_rag.training.losses import pairwise

INF = math.inf
TEACHER = torch.tensor([[4.0, 1.0, 2.0], [0.5, -INF, 3.0]], dtype=torch.float64)
BEST = torch.tensor([0, 2])
LABELS = torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 3.0]], dtype=torch.float64)


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_mann_whitney(s: Tensor, positives: Tensor, mask: Tensor, temperature: float) -> float:
    high = [float(value) for value in s[positives]]
    low = [float(value) for value in s[~positives & ~mask]]
    return sum(math.log1p(math.exp(-(a - b) / temperature)) for a in high for b in low) / len(high) / len(low)


def slow_wasserstein(s: Tensor, labels: Tensor, temperature: float) -> float:
    """Bures' formula with the (N, N) covariances and scipy's root of a matrix."""
    p, t = ((x - x.logsumexp(1, keepdim=True)).exp().numpy() for x in (s / temperature, labels))
    c_p, c_t = np.cov(p.T), np.cov(t.T)
    # The root of C_P C_T has the trace of the root of the symmetric C_P^{1/2} C_T C_P^{1/2}, which is better behaved.
    half = sqrtm(c_p + 1e-14 * np.eye(len(c_p)))
    root = sqrtm(half @ c_t @ half + 1e-16 * np.eye(len(c_p)))
    return float(np.square(p.mean(0) - t.mean(0)).sum() + np.trace(c_p + c_t - 2 * root).real)


def test_margin_mse_by_hand() -> None:
    s = torch.tensor([[0.5, 0.2, 0.4], [0.1, 9.9, 0.3]], dtype=torch.float64)
    expected = ((0.3 - 3.0) ** 2 + (0.1 - 2.0) ** 2 + (0.2 - 2.5) ** 2) / 3
    assert losses.margin_mse(s, TEACHER, BEST).item() == pytest.approx(expected, rel=1e-12)


def test_margin_mse_is_zero_where_margins_agree_and_levels_differ() -> None:
    s = TEACHER.masked_fill(TEACHER == -INF, 0.0) + torch.tensor([[10.0], [-3.0]])
    assert losses.margin_mse(s, TEACHER, BEST).item() == pytest.approx(0.0, abs=1e-24)


def test_margin_mse_does_not_mind_order_or_padding() -> None:
    s, order = scores(2, 3), torch.tensor([2, 0, 1])
    teacher = torch.cat([TEACHER[:, order], torch.full((2, 2), -INF)], 1)
    moved = losses.margin_mse(torch.cat([s[:, order], scores(2, 2)], 1), teacher, order.argsort()[BEST])
    assert moved.item() == pytest.approx(losses.margin_mse(s, TEACHER, BEST).item(), rel=1e-12)


def test_gradients_of_margin_mse_are_right_and_zero_at_padding() -> None:
    s = scores(2, 3).requires_grad_()
    assert gradcheck(lambda s: losses.margin_mse(s, TEACHER, BEST), s)
    (gradient,) = torch.autograd.grad(losses.margin_mse(s, TEACHER, BEST), s)
    assert torch.equal(gradient == 0, TEACHER == -INF)


def test_mann_whitney_by_hand_compares_across_queries() -> None:
    s = torch.tensor([[0.5, 0.2], [0.1, 0.9]], dtype=torch.float64)
    positives = torch.tensor([[True, False], [False, True]])
    pairs = [(0.5, 0.2), (0.5, 0.1), (0.9, 0.2), (0.9, 0.1)]
    expected = sum(math.log1p(math.exp(-(a - b) / 0.5)) for a, b in pairs) / 4
    assert losses.mann_whitney(s, positives, temperature=0.5).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("pairs_at_once", [2**22, 1, 30])
def test_mann_whitney_is_the_same_in_pieces(pairs_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "_PAIRS_AT_ONCE", pairs_at_once)
    s, random = scores(4, 6), scores(4, 6, seed=1)
    positives, mask = random > 0.8, random < -1.0
    assert positives.any(1).sum() >= 2
    assert mask.any()
    expected = slow_mann_whitney(s, positives, mask, 0.3)
    value = losses.mann_whitney(s.requires_grad_(), positives, mask, 0.3)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(lambda s: losses.mann_whitney(s, positives, mask, 0.3), s)
    (gradient,) = torch.autograd.grad(value, s)
    assert torch.equal(gradient == 0, mask)


def test_mann_whitney_of_equal_scores_is_log_two() -> None:
    positives = torch.tensor([[True, False, False]])
    assert losses.mann_whitney(torch.zeros(1, 3), positives).item() == pytest.approx(math.log(2))


def test_mann_whitney_in_bits_bounds_the_area_over_the_curve() -> None:
    s, positives = scores(5, 8), scores(5, 8, seed=2) > 0.5
    area_over = (s[positives][:, None] <= s[~positives]).double().mean().item()
    assert losses.mann_whitney(s, positives, temperature=1.0).item() / math.log(2) >= area_over > 0


def test_mann_whitney_sees_a_shift_of_one_query_but_not_of_all() -> None:
    s, positives = scores(2, 3), torch.tensor([[True, False, False], [False, True, False]])
    value = losses.mann_whitney(s, positives).item()
    assert losses.mann_whitney(s + 7.0, positives).item() == pytest.approx(value, rel=1e-9)
    assert losses.mann_whitney(s + torch.tensor([[7.0], [0.0]]), positives).item() != pytest.approx(value, rel=1e-3)


def test_wasserstein_by_hand_of_one_query_is_the_distance_of_the_means() -> None:
    e = math.e
    p, t = (0.5, 0.5), (e / (e + 1), 1 / (e + 1))
    value = losses.wasserstein(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.0, 0.0]]))
    assert value.item() == pytest.approx((p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2, rel=1e-12)


def test_wasserstein_by_hand_of_two_queries() -> None:
    # Two candidates: rows (a, 1-a) vary along (1, -1) only, so that a covariance is one number: (a1 - a2)^2 in all.
    a, b, c, d = (1 / (1 + math.exp(-x)) for x in (0.4, -1.0, 2.0, 0.5))
    value = losses.wasserstein(
        torch.tensor([[0.4, 0.0], [-1.0, 0.0]], dtype=torch.float64), torch.tensor([[2.0, 0.0], [0.5, 0.0]]), 1.0
    )
    mean = 2 * ((a + b) / 2 - (c + d) / 2) ** 2
    spread = (abs(a - b) - abs(c - d)) ** 2  # of two Gaussians on a line: the square of what their deviations differ by
    assert value.item() == pytest.approx(mean + spread, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_wasserstein_equals_its_formula_with_scipys_root(seed: int) -> None:
    s = scores(3, 4, seed=seed)
    assert losses.wasserstein(s, LABELS, 0.7).item() == pytest.approx(slow_wasserstein(s, LABELS, 0.7), abs=2e-6)


def test_wasserstein_is_zero_at_the_labels_and_positive_elsewhere() -> None:
    assert losses.wasserstein(LABELS, LABELS, 1.0).item() == pytest.approx(0.0, abs=1e-12)
    assert losses.wasserstein(LABELS.flip(1), LABELS, 1.0).item() > 0.01


def test_wasserstein_does_not_mind_the_order_of_candidates_or_queries_or_a_shift() -> None:
    s, value = scores(3, 4), losses.wasserstein(scores(3, 4), LABELS).item()
    columns, rows = torch.tensor([3, 1, 0, 2]), torch.tensor([2, 0, 1])
    for moved, labels in ((s[:, columns], LABELS[:, columns]), (s[rows], LABELS[rows]), (s + 5.0, LABELS)):
        assert losses.wasserstein(moved, labels).item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("labels", [LABELS, torch.zeros(3, 4), LABELS[[0, 0, 2]]], ids=["graded", "none", "repeated"])
def test_gradients_of_wasserstein_are_right_and_finite(labels: Tensor) -> None:
    assert gradcheck(lambda s: losses.wasserstein(s, labels, 0.7), scores(3, 4).requires_grad_())


def test_gradients_of_wasserstein_are_finite_where_rows_are_equal() -> None:
    s = torch.zeros(3, 4).requires_grad_()
    assert torch.autograd.grad(losses.wasserstein(s, LABELS), s)[0].isfinite().all()


def test_wasserstein_does_not_see_which_query_has_which_row() -> None:
    s, value = scores(3, 4), losses.wasserstein(scores(3, 4), LABELS).item()
    assert losses.wasserstein(s[[1, 2, 0]], LABELS).item() == pytest.approx(value, rel=1e-9)


def test_descending_wasserstein_from_a_start_that_is_right_in_the_main_ranks_as_the_labels_do() -> None:
    s = (0.3 * LABELS + 0.1 * scores(3, 4)).requires_grad_()
    optimizer = torch.optim.Adam([s], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        losses.wasserstein(s, LABELS, 1.0).backward()
        optimizer.step()
    torch.testing.assert_close(s.softmax(1), LABELS.softmax(1), atol=0.01, rtol=0.0)
