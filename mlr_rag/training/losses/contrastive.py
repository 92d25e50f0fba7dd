"""Contrastive losses over the candidates of a query: InfoNCE and those of multi-layer representations.

Xie and Lukasiewicz, "Investigating Multi-layer Representations for Dense Passage Retrieval" (arXiv 2509.23861).

Everywhere: B queries, N candidates, m layers, the last layer first; s_l(q, d) is `scores[q, d, l]`, and L, at 0, the
last layer; `positives` `(B,)` are columns of N; `mask` `(B, N)` is True where a candidate is left out of a query's
denominator (a false negative). The result is the mean over the queries. A query with no candidate left beside its
positive counts 0. The paper's temperatures (1.0) are made for raw dot products; unit vectors want 0.01 to 0.05.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.losses._checks import check_positive_number, check_positives, check_scores, check_weight


def infonce(scores: Tensor, positives: Tensor, temperature: float = 0.05, mask: Tensor | None = None) -> Tensor:
    """The positive's share of the softmax over all candidates, -log e^{s(q,d+)/T} / sum_d e^{s(q,d)/T}.

    Negatives of other queries, or gathered from other devices, are more columns: N is larger, and nothing else.

    Args:
        scores: `(B, N)`.
        positives: `(B,)`.
        temperature: T.
        mask: `(B, N)`.

    Raises:
        InvalidInputError: shapes that do not fit, a score that is not finite, or a positive that is masked or no
            candidate.
    """
    scores = check_scores(scores, "(B, N)")
    check_positives(positives, scores.shape, mask)
    check_positive_number("temperature", temperature)
    logits = scores / temperature
    if mask is not None:
        logits.masked_fill_(mask, -math.inf)  # in place: the scores are what is large in a large batch
    return functional.cross_entropy(logits, positives.long())


def multi_vector(scores: Tensor, positives: Tensor, temperature: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """InfoNCE of documents with a vector a layer: sim(q, d) = max_l s_l(q, d).

    Args:
        scores: `(B, N, m)`.
        positives: `(B,)`.
        temperature: The softmax's.
        mask: `(B, N)`.

    Raises:
        InvalidInputError: as `infonce`.
    """
    return infonce(check_scores(scores, "(B, N, m)").amax(-1), positives, temperature, mask)


def self_contrastive(
    scores: Tensor,
    positives: Tensor,
    weight: float = 1.0,
    temperature: float = 1.0,
    reg_temperature: float = 1.0,
    reduce: Literal["max", "logsumexp"] = "max",
    mask: Tensor | None = None,
) -> Tensor:
    """Self-contrastive pooling: the positive by its last layer, every other document by its hardest layer.

        L_main = -log e^{s_L(q,d+)/T} / ( e^{s_L(q,d+)/T} + sum_{d-} e^{max_l s_l(q,d-)/T} )
        L_self = -log e^{s_L(q,d+)/T'} / sum_l e^{s_l(q,d+)/T'}
        L      = L_main + weight * L_self

    The positive's own lower layers are negatives in L_self, so that the last layer alone is enough at inference. Of a
    negative's layers only the hardest gets a gradient from L_main. With one layer it is InfoNCE.

    Args:
        scores: `(B, N, m)`, the last layer first.
        positives: `(B,)`.
        weight: Of L_self; the paper has 1.0 (BERT) and 0.1 (RetroMAE).
        temperature: T.
        reg_temperature: T'.
        reduce: "max", or "logsumexp" for the soft maximum T log mean_l e^{s_l/T}, through which every layer gets a
            gradient; equal layers give the same in both.
        mask: `(B, N)`.

    Raises:
        InvalidInputError: as `infonce`; a negative weight, or another `reduce`.
    """
    scores = check_scores(scores, "(B, N, m)")
    check_positives(positives, scores.shape, mask)
    check_positive_number("temperature", temperature)
    if reduce == "max":
        hardest = scores.amax(-1)
    elif reduce == "logsumexp":
        hardest = temperature * ((scores / temperature).logsumexp(-1) - math.log(scores.shape[-1]))
    else:
        raise InvalidInputError("an unknown reduce", found=reduce, expected="max | logsumexp")
    layers = _of_positives(scores, positives)
    main = infonce(hardest.scatter(1, positives.long()[:, None], layers[:, :1]), positives, temperature, mask)
    return main + _self_term(layers, weight, reg_temperature)


def last_reg(
    scores: Tensor,
    positives: Tensor,
    weight: float = 1.0,
    temperature: float = 1.0,
    reg_temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """The ablation of self-contrastive pooling: the last layer for every document in L_main, and L_self as there.

    It tells what the harder negatives of the other layers bring from what the regularizer brings.

    Args:
        scores: `(B, N, m)`, the last layer first.
        positives: `(B,)`.
        weight: Of L_self.
        temperature: Of L_main.
        reg_temperature: Of L_self.
        mask: `(B, N)`.

    Raises:
        InvalidInputError: as `self_contrastive`.
    """
    scores = check_scores(scores, "(B, N, m)")
    main = infonce(scores[..., 0], positives, temperature, mask)
    return main + _self_term(_of_positives(scores, positives), weight, reg_temperature)


def _of_positives(scores: Tensor, positives: Tensor) -> Tensor:
    """`(B, m)`: the scores of the positives' layers."""
    return scores[torch.arange(len(positives), device=scores.device), positives.long()]


def _self_term(layers: Tensor, weight: float, temperature: float) -> Tensor:
    """Weight * L_self: cross-entropy over the positive's layers `(B, m)`, of which the last is right."""
    check_weight("weight", weight)
    check_positive_number("reg_temperature", temperature)
    last = torch.zeros(len(layers), dtype=torch.long, device=layers.device)
    return weight * functional.cross_entropy(layers / temperature, last)
