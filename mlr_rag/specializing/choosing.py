"""What may be handed back, and which of it the dev queries choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from mlr_rag.specializing.interpolation import interpolate
from mlr_rag.specializing.learning import Learning
from mlr_rag.specializing.precision import HalfPrecision
from mlr_rag.specializing.probe import TOLERANCE
from mlr_rag.training.query_side import train_query_adapter

_RANK = 64  # of the query adapter
_SHARES = (1.0, 0.75, 0.5, 0.25, 0.125)  # of the tuned weights
_BY_RULES = 0.5  # the most of them that queries by rules are asked about: they applaud more, and people's do not
_ADAPTED = (1.0, 0.5, 0.25, 0.125)  # of what the query adapter adds


@dataclass(frozen=True)
class Candidate:
    """A model that may be handed back.

    Attributes:
        name: How it was made; what "tuned" and "interpolated" are called with a query adapter, too.
        model: The model.
        share: Of the tuned weights.
        dev: nDCG@10 of the dev queries.
        probe: nDCG@10 of the general probe.
        adapter: Share of the query adapter; 0 without.
    """

    name: Literal["tuned", "interpolated", "query_adapter", "base"]
    model: Any
    share: float
    dev: float
    probe: float
    adapter: float = 0.0


@dataclass(frozen=True)
class Measured:
    """nDCG@10 of the dev queries and of the general probe."""

    dev: float
    probe: float


@dataclass(frozen=True)
class Adapted:
    """A query adapter's weights, by name, and how each share of it does."""

    weights: dict[str, list[list[float]]]
    measured: list[Measured]


class Choosing:
    """The stages from the tuned model to the candidate that is the best on dev.

    Args:
        learning: What trains.
    """

    def __init__(self, learning: Learning) -> None:
        self.learning, self.gathered, self.work = learning, learning.gathered, learning.work
        self.probe = self.gathered.teaching.probe
        self._needs = [*self.gathered.basis, self.probe.fingerprint]

    @cached_property
    def base(self) -> Candidate:
        """Candidate zero."""
        base = self.gathered.ground.base
        found = self.work.stage("base", self._needs, Measured, lambda: self._measure(base)).value
        return Candidate("base", base, 0.0, found.dev, found.probe)

    @cached_property
    def tuned(self) -> list[Candidate]:
        """The tuned weights, then less and less of them, until one keeps general knowledge and less is worse on dev."""
        if not self.gathered.recipes:
            return []
        done, model = self.learning.trained
        most = _BY_RULES if self.gathered.ground.origin == "rules" else 1.0
        shares = [share for share in _SHARES if share <= most]

        def mixed(share: float) -> Any:
            return model if share == 1 else interpolate(self.gathered.ground.base, model, share)

        def work() -> list[Measured]:
            found: list[Measured] = []
            for share in shares:
                found.append(self._measure(mixed(share)))
                if len(found) > 1 and self._keeps(found[-2]) and found[-1].dev < found[-2].dev:
                    break
            return found

        values = self.work.stage("mix", [*self._needs, done.key, shares], list[Measured], work).value
        return [
            Candidate("tuned" if share == 1 else "interpolated", mixed(share), share, measured.dev, measured.probe)
            for share, measured in zip(shares, values, strict=False)
        ]

    @cached_property
    def adapted(self) -> list[Candidate]:
        """The base, and the best that keeps general knowledge, each with all and with less of a query adapter."""
        gathered = self.gathered
        if not gathered.plan.adapter_epochs:
            return []
        kept = sorted(filter(self._keeps, self.tuned), key=lambda each: -each.dev)
        starts = [(self.base, gathered.searching.sought), *((each, gathered.searched) for each in kept[:1])]
        return [each for start, documents in starts for each in self._adapted(start, documents)]

    @cached_property
    def chosen(self) -> Candidate:
        """The best on dev of those that keep general knowledge; the base where none is better."""
        return max((self.base, *filter(self._keeps, (*self.tuned, *self.adapted))), key=lambda each: each.dev)

    @property
    def forgetful(self) -> Candidate | None:
        """The best of those that do not keep it, if it is better on dev than what was chosen."""
        others = [each for each in (*self.tuned, *self.adapted) if not self._keeps(each)]
        best = max(others, key=lambda each: each.dev, default=None)
        return best if best is not None and best.dev > self.chosen.dev else None

    def _adapted(self, candidate: Candidate, documents: Mapping[str, str]) -> list[Candidate]:
        """The candidate with an adapter for queries, trained against each of the documents that is not held out."""
        gathered, start = self.gathered, candidate.model
        lists = gathered.whole_lists(documents)
        if not lists:
            return []
        rank, seed = min(_RANK, start.dimension), gathered.options.seed
        models = {share: start.add_query_adapter(rank, seed=seed) for share in _ADAPTED}

        def work() -> Adapted:
            split, first = gathered.ground.split, models[1.0]
            train_query_adapter(
                first, lists, documents, dev=(split.dev.queries, split.dev.qrels),
                held=split.held_documents, cache=self.work.vectors, epochs=gathered.plan.adapter_epochs, seed=seed,
            )  # fmt: skip
            weights = {name: value.tolist() for name, value in first[-2].state_dict().items()}
            return Adapted(weights, [self._measure(_set(model, weights, share)) for share, model in models.items()])

        done = self.work.stage("adapter", [*self._needs, start.fingerprint, rank, _ADAPTED], Adapted, work).value
        return [
            Candidate(
                "query_adapter" if candidate.name == "base" else candidate.name,
                _set(model, done.weights, share),
                candidate.share,
                measured.dev,
                measured.probe,
                share,
            )
            for (share, model), measured in zip(models.items(), done.measured, strict=True)
        ]

    def _keeps(self, measured: Candidate | Measured) -> bool:
        return bool(self.base.probe - measured.probe <= TOLERANCE)

    def _measure(self, model: Any) -> Measured:
        return Measured(self.learning.evaluator.measure(model), self.probe.measure(HalfPrecision(model)))


def _set(model: Any, weights: Mapping[str, list[list[float]]], share: float) -> Any:
    """The model, its query adapter with these weights, of which this share is added."""
    values = {name: torch.tensor(value) for name, value in weights.items()}
    model[-2].load_state_dict({**values, "write": share * values["write"]})
    return model
