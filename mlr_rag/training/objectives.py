"""Objectives: the losses of mlr_rag.training.losses on a batch of lists.

An objective sees `scores (B, P, m)` of B queries with the P distinct passages of the whole batch, by layer, the last
layer first, and the `ListBatch` that says whose passages these are. Contrastive ones take every passage of the batch
for a candidate of every query, except those known to be relevant to it beside its positive; listwise ones look at each
query's own list. Temperatures are made for unit vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from mlr_rag.errors import InvalidInputError
from mlr_rag.training import losses
from mlr_rag.training.lists import ListBatch, beginning
from mlr_rag.training.losses.distillation import Normalization

Scope = Literal["own", "batch"]


class Objective(nn.Module):
    """A loss made of named parts, each of which is logged.

    Attributes:
        name: What its value is called in logs.
        poolings: The poolings whose layers it can tell apart; None where it needs no layers, and any pooling will do.
        needs_teacher: Whether it cannot use a list without teacher scores.
        needs_positives: Whether it cannot use a list without a relevant passage.
        by_row: Whether its value is the mean of what it is for each list, given the passages of all.
        remedy: What to do about a layer that never is the best, where such a layer learns nothing; "" where it does.
    """

    name = "objective"
    poolings: tuple[str, ...] | None = None
    needs_teacher = False
    needs_positives = False
    by_row = False
    remedy = ""
    _wins: Tensor | None = None

    @property
    def wins(self) -> Tensor | None:
        """`(m,)` how often each layer, the last first, was the best of a candidate in training.

        None where the objective takes no best layer, or has not trained yet.
        """
        return self._wins

    def forward(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """The loss, a scalar, of scores `(B, P, m)`.

        Raises:
            InvalidInputError: a list lacks what the objective needs; names its query.
        """
        return torch.stack(list(self.parts(scores, batch).values())).sum()

    def parts(self, scores: Tensor, batch: ListBatch) -> dict[str, Tensor]:
        """The terms that the loss is the sum of, by name."""
        return {self.name: self.loss(scores, batch)}

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """The loss of an objective with one part."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The settings, so that `repr` tells two objectives apart."""
        return ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if _is_setting(name))

    def _count(self, scores: Tensor, candidates: Tensor) -> None:
        """Add the best layers of scores `(B, P, m)` where they are candidates `(B, P)`, in training."""
        if scores.requires_grad and scores.shape[-1] > 1:
            wins = scores.detach().argmax(-1)[candidates].bincount(minlength=scores.shape[-1])
            self._wins = wins if self._wins is None else self._wins + wins


class InfoNCE(Objective):
    """The positive against the other passages, by document scores: `losses.infonce`.

    Args:
        temperature: Of the softmax.
        false_negative_ratio: Leave out of each query's own list what the teacher scores above this share of the
            positive's score; 0.6 in arXiv 2502.19712. Needs teacher scores; a list without them keeps all.
        scope: "own" for the query's own list, "batch" for all passages.
        normalize: How teacher scores are put on a scale that begins at 0 before the ratio is taken.
        low: For "percentile".
        high: For "percentile".
    """

    name = "infonce"
    by_row = True
    needs_positives = True

    def __init__(
        self,
        temperature: float = 0.05,
        false_negative_ratio: float | None = None,
        scope: Scope = "batch",
        normalize: Normalization = "min_max",
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__()
        self.temperature, self.false_negative_ratio, self.scope = temperature, false_negative_ratio, _checked(scope)
        self.normalize, self.low, self.high = normalize, low, high

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        documents = batch.of_documents(scores)
        mask = left_out(batch, documents, self.scope)
        if self.false_negative_ratio is not None:
            teacher = losses.normalize_teacher(batch.teacher, self.normalize, self.low, self.high)
            false = losses.false_negatives(teacher, batch.positives_in_list, self.false_negative_ratio)
            mask = mask | batch.over_columns(false, documents.shape[1])
        return losses.infonce(documents, batch.positives, self.temperature, mask)


class MultiVector(Objective):
    """InfoNCE of the best layer: `losses.multi_vector`."""

    name = "multi_vector"
    by_row = True
    poolings = ("multi_vector",)
    needs_positives = True
    remedy = "Leave it out of the model's layers."

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        mask = left_out(batch, scores)
        self._count(scores, ~mask)
        return losses.multi_vector(scores, batch.positives, self.temperature, mask)


class SelfContrastive(Objective):
    """Self-contrastive pooling: `losses.self_contrastive`; the paper has temperatures of 1 and dot products.

    Args:
        weight: Of the term that sets the positive's last layer against its others.
        temperature: Of the main term.
        reg_temperature: Of the other; the main term's by default.
        reduce: "max", or "logsumexp", through which every layer gets a gradient.
        layer_scales: Factors of the other layers' scores, the one below the last first: where learning starts, as they
            are learned with the model. Only for layers that never win (see ListLoss.layer_wins): the loss itself
            gets smaller as they do.

    Raises:
        InvalidInputError: an unknown `reduce`, or scales that are no numbers; with scores, another number of them.
    """

    name = "self_contrastive"
    by_row = True
    poolings = ("self_contrastive",)
    needs_positives = True

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.05,
        reg_temperature: float | None = None,
        reduce: Literal["max", "logsumexp"] = "max",
        layer_scales: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.weight, self.temperature, self.reduce = weight, temperature, reduce
        self.reg_temperature = temperature if reg_temperature is None else reg_temperature
        self.layer_scales = None if layer_scales is None else nn.Parameter(torch.tensor(_scales(layer_scales)))

    @property
    def remedy(self) -> str:  # type: ignore[override]
        """See Objective."""
        if self.reduce == "logsumexp":
            return ""
        scales = "layer_scales" if self.layer_scales is None else "larger layer_scales"
        return f"Use reduce='logsumexp' or {scales}."

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        mask = left_out(batch, scores)
        if self.layer_scales is not None and scores.shape[-1] > 1:
            if len(self.layer_scales) != scores.shape[-1] - 1:
                raise InvalidInputError(
                    "layer_scales do not fit the layers",
                    found=f"{len(self.layer_scales)} for {scores.shape[-1]} layers",
                    expected="one a layer, the last left out",
                )
            scores = torch.cat([scores[..., :1], scores[..., 1:] * self.layer_scales], dim=-1)
        positives = batch.positives
        self._count(scores, (~mask).scatter(1, positives[:, None], False))
        return losses.self_contrastive(
            scores, positives, self.weight, self.temperature, self.reg_temperature, self.reduce, mask
        )


class LastReg(Objective):
    """The ablation of self-contrastive pooling without its harder negatives: `losses.last_reg`."""

    name = "last_reg"
    by_row = True
    poolings = ("self_contrastive",)
    needs_positives = True

    def __init__(self, weight: float = 1.0, temperature: float = 0.05, reg_temperature: float | None = None) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature
        self.reg_temperature = temperature if reg_temperature is None else reg_temperature

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        mask = left_out(batch, scores)
        return losses.last_reg(scores, batch.positives, self.weight, self.temperature, self.reg_temperature, mask)


class ListwiseKL(Objective):
    """The teacher's distribution over each list: `losses.listwise_kl`.

    Args:
        student_temperature: Of document scores.
        teacher_temperature: Of normalized teacher scores.
        normalize: "min_max" puts any teacher on the scale that 0.3 is made for; the paper has "percentile".
        low: P1 of the teacher's scores, for "percentile".
        high: P99 of them.
    """

    name = "listwise_kl"
    by_row = True
    needs_teacher = True

    def __init__(
        self,
        student_temperature: float = 0.05,
        teacher_temperature: float = 0.3,
        normalize: Normalization = "min_max",
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__()
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.normalize, self.low, self.high = normalize, low, high

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        _need_teacher(batch)
        teacher = losses.normalize_teacher(batch.teacher, self.normalize, self.low, self.high)
        student = batch.of_lists(batch.of_documents(scores))
        return losses.listwise_kl(student, teacher, self.student_temperature, self.teacher_temperature)


class MarginMSE(Objective):
    """The teacher's margins between the positive and the others of its list: `losses.margin_mse`.

    Args:
        scale: What document scores are multiplied with, to be on the teacher's scale.
        normalize: As for ListwiseKL.
        low: For "percentile".
        high: For "percentile".
    """

    name = "margin_mse"
    needs_teacher = True
    needs_positives = True

    def __init__(
        self,
        scale: float = 1.0,
        normalize: Normalization = "min_max",
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.normalize, self.low, self.high = scale, normalize, low, high

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        _need_teacher(batch)
        _need_positives(batch)
        teacher = losses.normalize_teacher(batch.teacher, self.normalize, self.low, self.high)
        student = batch.of_lists(batch.of_documents(scores)) * self.scale
        return losses.margin_mse(student, teacher, batch.positives_in_list)


class Wasserstein(Objective):
    """The grades' distribution over the whole batch: `losses.wasserstein`."""

    name = "wasserstein"
    needs_positives = True

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        _need_positives(batch)
        return losses.wasserstein(batch.of_documents(scores), _grades(batch, scores.shape[1]), self.temperature)


class MannWhitney(Objective):
    """Every relevant passage above every other, across queries: `losses.mann_whitney`.

    Args:
        temperature: Of the differences.
        scope: Which passages are the others: "own" for those of each query's own list, "batch" for all.
    """

    name = "mann_whitney"
    needs_positives = True

    def __init__(self, temperature: float = 0.05, scope: Scope = "batch") -> None:
        super().__init__()
        self.temperature, self.scope = temperature, _checked(scope)

    def loss(self, scores: Tensor, batch: ListBatch) -> Tensor:
        """See Objective."""
        _need_positives(batch)
        documents = batch.of_documents(scores)
        positives = batch.over_columns(batch.labels > 0, documents.shape[1])
        mask = (_grades(batch, documents.shape[1]) > 0) & ~positives
        if self.scope == "own":
            mask = mask | ~batch.over_columns(~batch.padding, documents.shape[1])
        return losses.mann_whitney(documents, positives, mask, self.temperature)


class WeightedSum(Objective):
    """Several objectives on the same scores: `WeightedSum((1.0, ListwiseKL()), (0.1, InfoNCE(0.01)))`.

    Args:
        *terms: Weights and objectives.

    Raises:
        InvalidInputError: there are none, a weight is not a number above 0, or no pooling fits them all.
    """

    name = "weighted_sum"

    def __init__(self, *terms: tuple[float, Objective]) -> None:
        super().__init__()
        weights = tuple(weight for weight, _ in terms)
        if not weights or not all(0 < weight < float("inf") for weight in weights):
            raise InvalidInputError("the weights cannot be used", found=weights, expected="one or more, each above 0")
        self.weights = weights
        self.terms = nn.ModuleList(objective for _, objective in terms)
        if self.poolings == ():
            raise InvalidInputError(
                "the terms need different poolings",
                found={term.name: term.poolings for term in self._objectives if term.poolings is not None},
                expected="one that is right for all",
            )

    @property
    def poolings(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """Those that are right for all terms."""
        wanted = [term.poolings for term in self._objectives if term.poolings is not None]
        return tuple(name for name in wanted[0] if all(name in names for names in wanted)) if wanted else None

    @property
    def needs_teacher(self) -> bool:  # type: ignore[override]
        """Whether any term does."""
        return any(term.needs_teacher for term in self._objectives)

    @property
    def needs_positives(self) -> bool:  # type: ignore[override]
        """Whether any term does."""
        return any(term.needs_positives for term in self._objectives)

    @property
    def by_row(self) -> bool:  # type: ignore[override]
        """Whether all terms are."""
        return all(term.by_row for term in self._objectives)

    def parts(self, scores: Tensor, batch: ListBatch) -> dict[str, Tensor]:
        """The weighted parts of all terms; a second one of the same name is called `name_2`."""
        parts: dict[str, Tensor] = {}
        for weight, objective in zip(self.weights, self._objectives, strict=True):
            for name, value in objective.parts(scores, batch).items():
                same = sum(other.partition("_#")[0] == name for other in parts)
                parts[f"{name}_#{same + 1}" if same else name] = weight * value
        return {name.replace("#", ""): value for name, value in parts.items()}

    @property
    def wins(self) -> Tensor | None:
        """Those of the first term that counts any."""
        return next((term.wins for term in self._objectives if term.wins is not None), None)

    @property
    def remedy(self) -> str:  # type: ignore[override]
        """That of the term whose wins are shown; none where another term teaches every layer."""
        remedies = [term.remedy for term in self._objectives if term.wins is not None]
        return remedies[0] if all(remedies) and remedies else ""

    @property
    def _objectives(self) -> Iterator[Objective]:
        return (cast(Objective, term) for term in self.terms)


def default_objective() -> Objective:
    """Listwise distillation and a tenth of InfoNCE without its false negatives (arXiv 2502.19712, 2505.19274)."""
    return WeightedSum((1.0, ListwiseKL()), (0.1, InfoNCE(0.01, false_negative_ratio=0.6)))


def left_out(batch: ListBatch, scores: Tensor, scope: Scope = "batch") -> Tensor:
    """`(B, P)` bool: what is no candidate of a query, or relevant to it beside its positive."""
    _need_positives(batch)
    columns = scores.shape[1]
    mask = _grades(batch, columns) > 0
    if scope == "own":
        mask = mask | ~batch.over_columns(~batch.padding, columns)
    return mask.scatter(1, batch.positives[:, None], False)


def _grades(batch: ListBatch, columns: int) -> Tensor:
    """`(B, P)`: the grades of each query's passages; of a query with several lists, those of all its lists."""
    if batch.whole is not None:  # whose other rows may be of the same queries
        asked, whole = set(batch.queries), batch.whole
        chosen = [row for row, query in enumerate(whole.queries) if query in asked]
        place = {whole.queries[row]: place for place, row in enumerate(chosen)}
        return _grades(replace(whole.rows(chosen), whole=None), columns)[[place[query] for query in batch.queries]]
    grades = batch.over_columns(batch.labels, columns)
    if len(set(batch.queries)) == len(batch.queries):
        return grades
    first = {query: row for row, query in reversed(list(enumerate(batch.queries)))}
    rows = torch.tensor([first[query] for query in batch.queries], device=grades.device)
    return grades.scatter_reduce(0, rows[:, None].expand_as(grades), grades, "amax")[rows]


def _need_positives(batch: ListBatch) -> None:
    _need(batch.positives_in_list >= 0, batch, "no passage is relevant", "a label above 0, or scores without labels")


def _need_teacher(batch: ListBatch) -> None:
    _need(batch.teacher.isfinite().any(1), batch, "the teacher gave no scores", "one a passage")


def _need(there: Tensor, batch: ListBatch, problem: str, expected: str) -> None:
    if not there.all():
        row = int((~there).nonzero()[0])
        of = beginning(batch.queries[row]) if batch.queries else f"query {row}"
        raise InvalidInputError(
            f"the list of {of}: {problem}", expected=expected, remedy="mlr_rag.training.check_lists drops such lists."
        )


def _scales(values: Any) -> list[float]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        raise InvalidInputError("layer_scales are no numbers", found=values, expected="one a lower layer") from None


def _checked(scope: Any) -> Scope:
    if scope not in ("own", "batch"):
        raise InvalidInputError("an unknown scope", found=scope, expected="own | batch")
    return scope  # type: ignore[no-any-return]


def _is_setting(name: str) -> bool:
    return not name.startswith("_") and name != "training"
