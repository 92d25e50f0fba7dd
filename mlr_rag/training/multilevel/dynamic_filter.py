"""A filter of false negatives whose threshold follows the data, and InfoNCE with it.

Our own reading of the abstract of MD2PR (Li, Hai and Tang, "A Multi-level Distillation based Dense Passage Retrieval
Model", arXiv 2312.16821), which has "a simple dynamic filtering method" but no public formula.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlr_rag.errors import InvalidInputError
from mlr_rag.training import losses
from mlr_rag.training.lists import ListBatch
from mlr_rag.training.losses._checks import check_positive_number, check_positives, check_teacher
from mlr_rag.training.objectives import Objective, left_out


class DynamicFalseNegativeFilter(nn.Module):
    """Drops a candidate n whose p_T(n) > theta * p_T(positive), and moves theta after each iteration of training.

    Our own reading of MD2PR's abstract. p_T is the softmax of the teacher's scores over a list, so that the ratio is
    e^{(t_n - t_positive) / T}. After iteration k

        theta_{k+1} = (1 - momentum) theta_k + momentum * quantile_k

    with the quantile of the iteration's ratios, none counted above 1, so that in the long run 1 - quantile of the
    candidates are dropped, and those that the teacher prefers to the positive always.

    Args:
        start: theta_0; 0.6 is the fixed ratio of arXiv 2502.19712.
        momentum: How fast theta moves; 0 keeps it.
        quantile: Of the ratios.
        temperature: T.

    Attributes:
        theta: The threshold, a buffer, and so part of a checkpoint.

    Raises:
        InvalidInputError: an option is out of range.
    """

    theta: Tensor

    def __init__(
        self, start: float = 0.6, momentum: float = 0.1, quantile: float = 0.9, temperature: float = 0.3
    ) -> None:
        super().__init__()
        for name, value in (("start", start), ("momentum", momentum), ("quantile", quantile)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise InvalidInputError(f"{name} is out of range", found=value, expected="0 to 1")
        check_positive_number("temperature", temperature)
        self.momentum, self.quantile, self.temperature = momentum, quantile, temperature
        self.register_buffer("theta", torch.tensor(float(start)))

    def forward(self, teacher: Tensor, positives_in_list: Tensor) -> Tensor:
        """Which candidates to leave out, `(B, n)` bool; theta moves in training mode and with gradients enabled only.

        Args:
            teacher: `(B, n)`, -inf = padding; a list without scores keeps all.
            positives_in_list: `(B,)`, columns of n.

        Raises:
            InvalidInputError: a NaN or +inf, or a positive that is no candidate of its list.
        """
        there = check_teacher(teacher)
        known = there.any(1, keepdim=True)
        check_positives(positives_in_list, teacher.shape, ~there & known, "positives_in_list")
        column = positives_in_list.long()[:, None]
        scores = teacher.detach().masked_fill(~there, 0.0)
        ratios = ((scores - scores.gather(1, column)) / self.temperature).exp()
        candidates = there.scatter(1, column, False)
        dropped: Tensor = candidates & (ratios > self.theta.to(ratios))
        if self.training and torch.is_grad_enabled() and candidates.any():
            self.update(ratios[candidates])
        return dropped

    @torch.no_grad()
    def update(self, ratios: Tensor) -> None:
        """Move theta towards the quantile of these p_T(n) / p_T(positive)."""
        observed = ratios.float().clamp(max=1.0).quantile(self.quantile)
        self.theta.lerp_(observed.to(self.theta), self.momentum)


class DynamicInfoNCE(Objective):
    """InfoNCE over all passages of the batch without what the dynamic filter drops of each query's own list.

    Our own reading of MD2PR's abstract. The filter sees the teacher's scores in [0, 1], list by list (min_max).

    Args:
        temperature: Of the softmax.
        filter: A DynamicFalseNegativeFilter; by default one with its defaults.
    """

    name = "infonce"
    needs_positives = True

    def __init__(self, temperature: float = 0.05, filter: DynamicFalseNegativeFilter | None = None) -> None:
        super().__init__()
        self.temperature = temperature
        self.filter = filter or DynamicFalseNegativeFilter()

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        documents = batch.of_documents(scores)
        mask = left_out(batch, documents)
        dropped = self.filter(losses.normalize_teacher(batch.teacher, "min_max"), batch.positives_in_list)
        mask = mask | batch.over_columns(dropped, documents.shape[1])
        return losses.infonce(documents, batch.positives, self.temperature, mask)
