"""InfoNCE and the multi-layer losses: by hand, against slow transcriptions of their equations, and by symmetry."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from mlr_rag.training import losses

POSITIVES = torch.tensor([3, 0, 1])
MASK = torch.zeros(3, 5, dtype=torch.bool).index_put((torch.tensor([0, 2]), torch.tensor([1, 4])), torch.tensor(True))
LAYERED = {
    "multi_vector": losses.multi_vector,
    "self_contrastive": partial(losses.self_contrastive, weight=0.7, reg_temperature=0.4),
    "self_contrastive_soft": partial(losses.self_contrastive, weight=0.7, reg_temperature=0.4, reduce="logsumexp"),
    "last_reg": partial(losses.last_reg, weight=0.7, reg_temperature=0.4),
}
layered = pytest.mark.parametrize("loss", LAYERED.values(), ids=LAYERED.keys())
masked = pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_self_contrastive(
    s: Tensor, positives: Tensor, weight: float, t1: float, t2: float, reduce: str, mask: Tensor | None
) -> float:
    """papers.md 1.2, word for word: the positive by its last layer, the others by their hardest."""
    queries, candidates, layers = s.shape
    total = 0.0
    for q in range(queries):
        own = int(positives[q])
        top = math.exp(float(s[q, own, 0]) / t1)
        bottom = top
        for d in range(candidates):
            if d == own or (mask is not None and bool(mask[q, d])):
                continue
            values = [float(s[q, d, layer]) for layer in range(layers)]
            if reduce == "max":
                hardest = max(values)
            else:
                hardest = t1 * math.log(sum(math.exp(value / t1) for value in values) / layers)
            bottom += math.exp(hardest / t1)
        main = -math.log(top / bottom)
        own_layers = [math.exp(float(s[q, own, layer]) / t2) for layer in range(layers)]
        total += main + weight * -math.log(own_layers[0] / sum(own_layers))
    return total / queries


def test_infonce_by_hand() -> None:
    value = losses.infonce(torch.tensor([[0.2, 0.1, -0.3]]), torch.tensor([1]), temperature=0.5)
    expected = -math.log(math.exp(0.2) / (math.exp(0.4) + math.exp(0.2) + math.exp(-0.6)))
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_infonce_leaves_masked_candidates_out_of_the_denominator() -> None:
    mask = torch.tensor([[True, False, False]])
    value = losses.infonce(torch.tensor([[0.2, 0.1, -0.3]]), torch.tensor([1]), 0.5, mask)
    expected = -math.log(math.exp(0.2) / (math.exp(0.2) + math.exp(-0.6)))
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_infonce_is_the_mean_over_the_queries() -> None:
    s, positives = scores(3, 5), POSITIVES
    each = [losses.infonce(s[q : q + 1], positives[q : q + 1]).item() for q in range(3)]
    assert losses.infonce(s, positives).item() == pytest.approx(sum(each) / 3, rel=1e-12)


def test_multi_vector_by_hand_is_infonce_of_the_best_layer() -> None:
    s = torch.tensor([[[1.0, 2.0], [0.5, -1.0]]])  # best layers 2.0 and 0.5
    value = losses.multi_vector(s, torch.tensor([0]))
    assert value.item() == pytest.approx(-math.log(math.exp(2.0) / (math.exp(2.0) + math.exp(0.5))), abs=1e-6)


def test_self_contrastive_by_hand() -> None:
    # The positive counts by its last layer (1.0, not 3.0), the negative by its hardest (2.0).
    s = torch.tensor([[[1.0, 3.0], [-1.0, 2.0]]])
    main = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(2.0)))
    own = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(3.0)))
    value = losses.self_contrastive(s, torch.tensor([0]), weight=0.5)
    assert value.item() == pytest.approx(main + 0.5 * own, abs=1e-6)


def test_last_reg_by_hand() -> None:
    # The negative counts by its last layer too (-1.0, not 2.0).
    s = torch.tensor([[[1.0, 3.0], [-1.0, 2.0]]])
    main = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(-1.0)))
    own = -math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(3.0)))
    value = losses.last_reg(s, torch.tensor([0]), weight=0.5)
    assert value.item() == pytest.approx(main + 0.5 * own, abs=1e-6)


@masked
@pytest.mark.parametrize("reduce", ["max", "logsumexp"])
@pytest.mark.parametrize("seed", range(5))
def test_self_contrastive_equals_a_literal_transcription(seed: int, reduce: str, mask: Tensor | None) -> None:
    s = 3 * scores(3, 5, 4, seed=seed)
    fast = losses.self_contrastive(s, POSITIVES, 0.3, 0.8, 1.7, reduce, mask).item()  # type: ignore[arg-type]
    assert fast == pytest.approx(slow_self_contrastive(s, POSITIVES, 0.3, 0.8, 1.7, reduce, mask), abs=1e-6)


def test_another_querys_positive_is_a_negative_by_its_hardest_layer() -> None:
    s, positives = scores(2, 2, 3), torch.tensor([0, 1])
    s[0, 1] = torch.tensor([0.0, 9.0, 0.0])  # of query 0, document 1 is only a negative
    assert losses.self_contrastive(s, positives, weight=0.0).item() > 3.0


def test_only_the_hardest_layer_of_a_negative_receives_a_gradient() -> None:
    s = scores(3, 5, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.self_contrastive(s, POSITIVES, weight=0.0), s)
    hardest = torch.nn.functional.one_hot(s.argmax(-1), 4).bool()
    own = torch.nn.functional.one_hot(POSITIVES, 5).bool()[..., None]
    last = torch.zeros(4, dtype=torch.bool).index_put((torch.tensor(0),), torch.tensor(True))
    assert torch.equal(gradient != 0, torch.where(own, last, hardest))


def test_every_layer_of_a_negative_receives_a_gradient_from_the_soft_maximum() -> None:
    s = scores(3, 5, 4).requires_grad_()
    loss = losses.self_contrastive(s, POSITIVES, weight=0.0, reduce="logsumexp")
    (gradient,) = torch.autograd.grad(loss, s)
    negatives = ~torch.nn.functional.one_hot(POSITIVES, 5).bool()
    assert (gradient[negatives] > 0).all()


def test_the_own_layers_term_pushes_lower_layers_of_the_positive_down_and_the_last_up() -> None:
    s = scores(3, 5, 4).requires_grad_()
    with_term, without = (losses.self_contrastive(s, POSITIVES, weight=weight) for weight in (1.0, 0.0))
    (gradient,) = torch.autograd.grad(with_term - without, s)
    own = gradient[torch.arange(3), POSITIVES]
    assert (own[:, 0] < 0).all()
    assert (own[:, 1:] > 0).all()
    assert gradient.count_nonzero() == own.numel()


def test_equal_layers_give_the_same_by_maximum_and_soft_maximum() -> None:
    s = scores(3, 5, 1).expand(3, 5, 4)
    hard, soft = (losses.self_contrastive(s, POSITIVES, reduce=reduce) for reduce in ("max", "logsumexp"))  # type: ignore[arg-type]
    assert soft.item() == pytest.approx(hard.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["self_contrastive", "self_contrastive_soft", "last_reg", "multi_vector"])
def test_with_one_layer_all_are_infonce(name: str) -> None:
    s = scores(3, 5)
    assert LAYERED[name](s[..., None], POSITIVES).item() == pytest.approx(
        losses.infonce(s, POSITIVES, temperature=1.0).item(), rel=1e-12
    )


@masked
@layered
def test_gradients_are_right(loss: partial[Tensor], mask: Tensor | None) -> None:
    assert gradcheck(lambda s: loss(s, POSITIVES, temperature=0.5, mask=mask), scores(3, 5, 3).requires_grad_())


@masked
def test_gradients_of_infonce_are_right(mask: Tensor | None) -> None:
    assert gradcheck(lambda s: losses.infonce(s, POSITIVES, 0.5, mask), scores(3, 5).requires_grad_())


@layered
def test_the_order_of_the_candidates_does_not_matter(loss: partial[Tensor]) -> None:
    s, order = scores(3, 5, 3), torch.tensor([4, 2, 0, 1, 3])
    moved = loss(s[:, order], order.argsort()[POSITIVES], mask=MASK[:, order])
    assert moved.item() == pytest.approx(loss(s, POSITIVES, mask=MASK).item(), rel=1e-12)


@layered
def test_the_order_of_the_lower_layers_does_not_matter(loss: partial[Tensor]) -> None:
    s = scores(3, 5, 4)
    assert loss(s[..., [0, 3, 1, 2]], POSITIVES).item() == pytest.approx(loss(s, POSITIVES).item(), rel=1e-12)


@layered
def test_a_shift_of_a_querys_scores_does_not_matter(loss: partial[Tensor]) -> None:
    s = scores(3, 5, 3)
    shift = torch.tensor([5.0, -2.0, 100.0])[:, None, None]
    assert loss(s + shift, POSITIVES).item() == pytest.approx(loss(s, POSITIVES).item(), rel=1e-9)


@layered
def test_a_masked_column_is_as_if_it_were_not_there(loss: partial[Tensor]) -> None:
    s, extra = scores(3, 5, 3), scores(3, 2, 3, seed=1)
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[:, 5:] = True
    padded = loss(torch.cat([s, 1e4 * extra], 1), POSITIVES, mask=mask)
    assert padded.item() == pytest.approx(loss(s, POSITIVES).item(), rel=1e-12)


def test_masked_candidates_receive_no_gradient() -> None:
    s = scores(3, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.infonce(s, POSITIVES, mask=MASK), s)
    assert torch.equal(gradient == 0, MASK)


def test_a_query_with_nothing_but_its_positive_counts_zero() -> None:
    s = scores(1, 3).requires_grad_()
    value = losses.infonce(s, torch.tensor([1]), mask=torch.tensor([[True, False, True]]))
    assert (value.item(), torch.autograd.grad(value, s)[0].count_nonzero()) == (0.0, 0)


@layered
def test_extreme_scores_stay_finite(loss: partial[Tensor]) -> None:
    s = (1e4 * scores(3, 5, 3)).float().requires_grad_()
    value = loss(s, POSITIVES, temperature=0.01)
    assert value.isfinite()
    assert torch.autograd.grad(value, s)[0].isfinite().all()


@pytest.mark.parametrize(
    ("given", "kept"), [("float64", "float64"), ("float32", "float32"), ("bfloat16", "float32"), ("float16", "float32")]
)
def test_precision_is_kept_and_half_precision_is_raised(given: str, kept: str) -> None:
    s = scores(3, 5, 2).to(getattr(torch, given))
    assert losses.self_contrastive(s, POSITIVES).dtype == getattr(torch, kept)
