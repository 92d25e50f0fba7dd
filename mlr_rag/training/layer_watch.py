"""LayerWatch: which layers are never the best of a passage, and so learn nothing through the maximum."""

from __future__ import annotations

import logging

from torch import Tensor

_WATCHED_STEPS = 100

logger = logging.getLogger(__name__)


class LayerWatch:
    """Warns once of each layer that won nothing in 100 steps on end.

    Args:
        layers: The layers, in the order of the wins.
    """

    def __init__(self, layers: tuple[int, ...]) -> None:
        self._layers = layers
        self._steps, self._before = 0, [0] * len(layers)
        self._told: set[int] = set()

    def step(self, wins: Tensor, remedy: str) -> None:
        """Take note of the wins so far `(m,)`, once a step; the remedy ends the warning."""
        self._steps += 1
        if self._steps % _WATCHED_STEPS:
            return
        now = wins.tolist()
        for layer, before, after in zip(self._layers, self._before, now, strict=True):
            if before == after and layer not in self._told:
                self._told.add(layer)
                logger.warning(
                    "Layer %s never wins: in %s steps it was no passage's best layer, so no gradient reaches it "
                    "through the maximum. %s",
                    layer, _WATCHED_STEPS, remedy,
                )  # fmt: skip
        self._before = now
