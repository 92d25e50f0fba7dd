"""Word-level distillation (our own reading of MD2PR's abstract): by hand, by symmetry, and at padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from mlr_rag.training import losses

WORDS = torch.zeros(3, 2, 4, dtype=torch.bool)
WORDS[0, :2, :3] = True  # two query words, three document words
WORDS[1, :1, 1:4] = True  # one query word; the third pair is of an empty text


def maps(seed: int = 0) -> Tensor:
    return torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_word_kl_by_hand() -> None:
    words = torch.ones(1, 1, 2, dtype=torch.bool)
    value = losses.word_kl(torch.tensor([[[2.0, 1.0]]]), torch.tensor([[[0.3, 0.1]]]), words, temperature=2.0)
    q = 1 / (1 + math.exp(-0.5))
    expected = 0.75 * math.log(0.75 / q) + 0.25 * math.log(0.25 / (1 - q))
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_word_kl_is_the_mean_over_query_words_and_then_over_pairs_with_words() -> None:
    s, t = maps(), maps(1).exp()
    one = [losses.word_kl(s[:1, i : i + 1], t[:1, i : i + 1], WORDS[:1, i : i + 1]).item() for i in range(2)]
    other = losses.word_kl(s[1:2, :1], t[1:2, :1], WORDS[1:2, :1]).item()
    assert losses.word_kl(s, t, WORDS).item() == pytest.approx((sum(one) / 2 + other) / 2, rel=1e-12)


def test_word_kl_is_zero_where_the_maps_agree() -> None:
    assert losses.word_kl(maps(), (maps() + 3.0).exp(), WORDS).item() == pytest.approx(0.0, abs=1e-15)


def test_a_document_word_that_the_teacher_never_looks_at_adds_nothing() -> None:
    words = torch.ones(1, 1, 2, dtype=torch.bool)
    value = losses.word_kl(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.5, 0.0]]]), words)
    assert value.item() == pytest.approx(math.log(1 + math.exp(-1.0)), abs=1e-6)


@pytest.mark.parametrize("garbage", [1e30, -math.inf, math.nan])
def test_what_stands_at_padding_does_not_matter_and_gets_no_gradient(garbage: float) -> None:
    clean = losses.word_kl(maps(), maps(1).exp(), WORDS).item()
    s = maps().masked_fill(~WORDS, garbage).requires_grad_()
    value = losses.word_kl(s, maps(1).exp().masked_fill(~WORDS, garbage), WORDS)
    (gradient,) = torch.autograd.grad(value, s)
    assert value.item() == clean
    assert torch.equal(gradient != 0, WORDS)


def test_gradients_of_word_kl_are_right() -> None:
    assert gradcheck(lambda s: losses.word_kl(s, maps(1).exp(), WORDS, 0.7), maps().requires_grad_())


def test_the_order_of_document_words_and_the_scale_of_attention_do_not_matter() -> None:
    s, t, order = maps(), maps(1).exp(), torch.tensor([2, 3, 1, 0])
    value = losses.word_kl(s[..., order], 5 * t[..., order], WORDS[..., order]).item()
    assert value == pytest.approx(losses.word_kl(s, t, WORDS).item(), rel=1e-12)
