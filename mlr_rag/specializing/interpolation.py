"""Models between two: the weights α · tuned + (1 - α) · base, which often forget less and find as much.

Wortsman et al., "Robust fine-tuning of zero-shot models" (arXiv 2109.01903).
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from mlr_rag.errors import InvalidInputError


def interpolate(base: Any, tuned: Any, share: float) -> Any:
    """A model whose every weight is `share` of the way from the base's to the tuned one's; 0 and 1 are these two.

    Args:
        base: A model.
        tuned: One of the same architecture and recipe; neither is changed.
        share: α, from 0 to 1.

    Raises:
        InvalidInputError: the models have other weights than each other, or it is no share.
    """
    first, second = base.state_dict(), tuned.state_dict()
    shapes = [{name: value.shape for name, value in state.items()} for state in (first, second)]
    if shapes[0] != shapes[1]:
        names = shapes[0].keys() | shapes[1].keys()
        differ = sorted(name for name in names if shapes[0].get(name) != shapes[1].get(name))
        raise InvalidInputError(
            "there is nothing between models of different shapes", found=differ[:3], expected="the same weights"
        )
    if not 0 <= share <= 1:
        raise InvalidInputError("not a share of the tuned weights", found=share, expected="0 to 1")
    made = copy.deepcopy(tuned)
    with torch.no_grad():
        mixed = {
            name: torch.lerp(first[name].to(value), value, share) if value.is_floating_point() else value
            for name, value in second.items()
        }
    made.load_state_dict(mixed)
    return made
