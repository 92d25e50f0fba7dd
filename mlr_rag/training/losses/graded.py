"""A loss for graded labels: the squared 2-Wasserstein distance of SyCL."""

from __future__ import annotations

import torch
from torch import Tensor

from mlr_rag.training.losses._checks import check_positive_number, check_scores, check_shape


def wasserstein(scores: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """The squared 2-Wasserstein distance of softmax(scores/T) from softmax(labels), over the whole batch.

    "Beyond Contrastive Learning: Synthetic Data Enables List-wise Training with Multiple Levels of Relevance" (arXiv
    2503.23239). The B rows of each are taken for samples of a Gaussian over the N candidates:

        ||mu_P - mu_T||^2 + Tr( C_P + C_T - 2 (C_P C_T)^{1/2} )

    With centered rows X / sqrt(B - 1), so that C = X^T X, the trace of the root is the sum of the singular values of
    X_P X_T^T, which is only `(B, B)`. One query alone has no covariance: the means are compared.

    It compares distributions, not query with query: rows that change places cost nothing, so it needs a model whose
    scores are right in the main, or a contrastive term beside it.

    Args:
        scores: `(B, N)`.
        labels: `(B, N)` grades, 0 for what is not relevant and for other queries' passages; higher is better.
        temperature: T; the labels have none.

    Raises:
        InvalidInputError: shapes that differ, or a score or grade that is not finite.
    """
    check_positive_number("temperature", temperature)
    scores = check_scores(scores, "(B, N)")
    check_shape(labels, scores.shape, "(B, N)", "labels")
    labels = check_scores(labels.detach().to(scores), "(B, N)", "labels")
    predicted, target = (scores / temperature).softmax(1), labels.softmax(1)
    (mean_p, rows_p), (mean_t, rows_t) = _moments(predicted), _moments(target)
    root = torch.linalg.svdvals(rows_p @ rows_t.T).sum()
    spread = rows_p.square().sum() + rows_t.square().sum() - 2 * root
    distance: Tensor = (mean_p - mean_t).square().sum() + spread
    return distance


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and the rows X of which X^T X is the covariance."""
    mean = samples.mean(0)
    return mean, (samples - mean) / max(len(samples) - 1, 1) ** 0.5
