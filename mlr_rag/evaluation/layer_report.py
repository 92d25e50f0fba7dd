"""The layer report: what each layer of a model, and each pair, is worth, and what follows from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mlr_rag.evaluation.layer_scores import Similarity, System
from mlr_rag.evaluation.significance import Difference, Interval

LEVEL = 0.05
DEAD = 0.01
_COUNTED = ("retrieved", "relevant")  # of other documents a softmax leaves next to no gradient
_RESEARCH = (
    "Dot products are for research: models normalize what they pool and stores hold unit vectors, so nothing is "
    "recommended. Measure with cosine to choose layers."
)


@dataclass(frozen=True)
class Measured:
    """What one system is worth.

    Attributes:
        system: What stands for a document, and for a query.
        ndcg: nDCG@10 and its 95% interval.
        difference: To the last layer's, paired by query; p is the randomization test's. None for the last layer.
        corrected: p, corrected for all the systems that were tried (Holm).
    """

    system: System
    ndcg: Interval
    difference: Difference | None = None
    corrected: float | None = None

    @property
    def is_better(self) -> bool:
        """Whether it surely beats the last layer."""
        return self.difference is not None and self.difference.mean > 0 and (self.corrected or 0.0) < LEVEL


@dataclass(frozen=True)
class Population:
    """How the layers' scores compare in some pairs of a query and a document (see LayerPass).

    Attributes:
        pairs: How many pairs.
        highest: Of them, the share where each layer's score is the highest of all, `L`.
        above: The share where layer k's score is above layer l's, `L x L`, k first.
        mean: The mean of each layer's scores, `L`.
        std: Their standard deviation, `L`.
    """

    pairs: int
    highest: list[float]
    above: list[list[float]]
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class LayerReport:
    """What the layers of a model are worth on a judged collection.

    Attributes:
        documents: How many there are; all were encoded.
        cut: How many of them are longer than the model reads.
        queries: How many were asked, `of_queries` that the split has.
        systems: Every layer and every pair, the last layer alone first.
        populations: How often each layer's score is the highest: "all", "retrieved", "relevant" (see LayerPass).
        detectable: The smallest gain of a pooling over the last layer that these queries show in four of five trials,
            corrected for the systems tried; None where they can show none.
    """

    model: str
    num_layers: int
    similarity: Similarity
    collection: str
    split: str
    documents: int
    cut: int
    queries: int
    of_queries: int
    systems: tuple[Measured, ...]
    populations: dict[str, Population]
    detectable: float | None
    seconds: float

    @property
    def last(self) -> Measured:
        """The last layer alone: what the base model does."""
        return self.systems[0]

    @property
    def best(self) -> Measured | None:
        """The best pooling that surely beats the last layer (corrected p < 5%), or None.

        Of the similarity "dot" it is of vectors as they come, which no MLRModel gives: it normalizes what it pools.
        """
        better = [each for each in self.systems if each.is_better and is_pooling(each.system, self.num_layers)]
        return max(better, key=lambda each: each.ndcg.mean, default=None)

    @property
    def dead(self) -> list[tuple[int, int]]:
        """(layer, the other of the pair), one of them the last: pairs in whose maximum the first plays no part.

        A layer is dead if its score is the higher one for less than 1 in 100 of the retrieved and of the relevant
        documents: training on the maximum then sends it next to no gradient.
        """
        last = self.num_layers
        pairs = [(layer, last) for layer in range(1, last)] + [(last, layer) for layer in range(1, last)]
        return [pair for pair in pairs if all(self.share(*pair, name) < DEAD for name in _COUNTED)]

    def share(self, layer: int, other: int, population: str) -> float:
        """How often the score of one layer is above that of another."""
        return self.populations[population].above[layer - 1][other - 1]

    @property
    def recommendation(self) -> str:
        """What to do, and how sure that is; of the similarity "dot", which no store has, only what was found."""
        asked, is_dot = f"{self.queries:,} queries", self.similarity == "dot"
        if self.best is None:
            shown = (
                "too few to show one" if self.detectable is None else f"enough to show {self.detectable:.3f} nDCG@10"
            )
            keep = "No pooling of the last layer" if is_dot else "Keep the last layer: no pooling of it"
            sentences = [f"{keep} with another layer is a sure gain.", f"These {asked} are {shown}."]
        else:
            gain, pooling = self.best.difference, "multi_vector" if self.best.system.kind == "max" else "mean"
            sentences = [
                f"Layers {_listed(self.best.system.layers)}, {self.best.system.kind}: {_told(gain)}, "
                f"p = {self.best.corrected:.2g} over {asked}, corrected for {len(self.systems) - 1} systems.",
            ]
            if not is_dot:
                sentences.append(
                    f'Train with layers={self.best.system.layers}, pooling="{pooling}", start="paper" to make use of '
                    "it, and judge it on other queries: the best of many looks better than it is."
                )
        if is_dot:
            return " ".join([*sentences, _RESEARCH])
        other = max((each for each in self.systems if each.is_better), key=lambda each: each.ndcg.mean, default=None)
        if other is not None and other is not self.best:
            sentences.append(
                f"Better still, but no pooling of a model: {describe(other.system)}, {_told(other.difference)}."
            )
        return " ".join(sentences)

    def as_dict(self) -> dict[str, Any]:
        """One object of plain values."""
        return asdict(self) | {"dead": self.dead, "recommendation": self.recommendation}


def is_pooling(system: System, num_layers: int) -> bool:
    """Whether MLRModel can pool so: the last layer is in every layer set."""
    return system.kind in ("max", "mean") and num_layers in system.layers


def describe(system: System) -> str:
    """A system in words."""
    if system.kind == "one":
        return f"layer {system.layers[0]}"
    if system.kind == "both":
        return f"layer {system.layers[0]} on both sides"
    return f"{system.kind} of layers {_listed(system.layers)}"


def _listed(layers: tuple[int, ...]) -> str:
    return " and ".join(map(str, layers))


def _told(difference: Any) -> str:
    return f"{difference.mean:+.3f} nDCG@10 [{difference.low:.3f}, {difference.high:.3f}]"
