"""What the layer report measures: systems of layers, their rankings so far, and how their scores compare."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["one", "both", "max", "mean"]
Similarity = Literal["cosine", "dot"]

DEPTH = 20  # of the rankings: twice what nDCG@10 reads, so that equal scores at the tenth place are all there


@dataclass(frozen=True)
class System:
    """What stands for a document, and for a query.

    Attributes:
        kind: "one", a layer of the document, and the query's last layer; "both", a layer of both; and of two layers of
            the document, for the query's last layer, the "max" of the scores (multi_vector, and what self-contrastive
            training sees) or the "mean" of the vectors (pooling="mean", start="paper").
        layers: 1-based and ascending.
    """

    kind: Kind
    layers: tuple[int, ...]


def systems_of(num_layers: int) -> list[System]:
    """The systems that are measured, the last layer alone first."""
    layers = range(num_layers, 0, -1)
    alone = [System("one", (layer,)) for layer in layers]
    both = [System("both", (layer,)) for layer in layers[1:]]
    pairs = [(k, layer) for layer, k in combinations(layers, 2)]
    return [*alone, *both, *(System(kind, pair) for pair in pairs for kind in ("max", "mean"))]


class Scores:
    """What layers score in a population of (query, document) pairs, and which scores highest.

    Attributes:
        n: How many pairs.
        highest: How often each layer's score is the highest of all, `(L,)`; the last layer's, where scores are equal.
        above: How often layer k's is above layer l's, `(L, L)`.
    """

    def __init__(self, num_layers: int) -> None:
        self.n = 0
        self.highest = torch.zeros(num_layers, dtype=torch.long)
        self.above = torch.zeros(num_layers, num_layers, dtype=torch.long)
        self._sum = torch.zeros(num_layers, dtype=torch.double)
        self._squares = torch.zeros(num_layers, dtype=torch.double)

    def add(self, scores: Tensor) -> None:
        """Count `(L, n)` more."""
        last_first = scores.flip(0).argmax(0)
        self.n += scores.shape[1]
        self.highest += last_first.bincount(minlength=len(scores)).flip(0).cpu()
        self.above += torch.stack([(row > scores).sum(1) for row in scores]).cpu()
        self._sum += scores.sum(1, dtype=torch.double).cpu()
        self._squares += scores.square().sum(1, dtype=torch.double).cpu()

    def mean(self) -> Tensor:
        """Of each layer's scores, `(L,)`."""
        return self._sum / max(1, self.n)

    def std(self) -> Tensor:
        """Of each layer's scores, `(L,)`."""
        return (self._squares / max(1, self.n) - self.mean().square()).clamp(min=0).sqrt()


class Best:
    """Each query's best documents so far: scores and places in the corpus, `(Q, DEPTH)`, -inf where there is none."""

    def __init__(self, queries: int, device: torch.device) -> None:
        self.scores = torch.full((queries, DEPTH), -torch.inf, device=device)
        self.places = torch.full((queries, DEPTH), -1, device=device)

    def add(self, scores: Tensor, start: int) -> Tensor:
        """Merge `(Q, b)` scores of the documents from place `start` on; which columns, old then new, have stayed."""
        places = torch.arange(start, start + scores.shape[1], device=scores.device).expand(scores.shape)
        self.scores, kept = torch.cat([self.scores, scores], 1).topk(DEPTH)
        self.places = torch.cat([self.places, places], 1).gather(1, kept)
        return kept
