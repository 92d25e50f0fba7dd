"""Which shares of the tuned weights are candidates."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlr_rag import MLRModel
from mlr_rag.specializing.choosing import Choosing
from mlr_rag.specializing.stages import Workspace


@pytest.mark.parametrize(
    ("origin", "shares"),
    [
        ("people", [1, 0.75, 0.5, 0.25, 0.125]),
        ("model", [1, 0.75, 0.5, 0.25, 0.125]),
        ("rules", [0.5, 0.25, 0.125]),
    ],
)
def test_of_what_rules_taught_half_is_the_most(
    tiny_model: MLRModel, tmp_path: Path, origin: str, shares: list[float]
) -> None:
    probe = SimpleNamespace(fingerprint="probe", measure=lambda _: 0.5)
    gathered = SimpleNamespace(
        basis=[],
        recipes=("distillation",),
        teaching=SimpleNamespace(probe=probe),
        ground=SimpleNamespace(base=tiny_model, origin=origin),
    )
    with closing(Workspace(tmp_path)) as work:
        learning: Any = SimpleNamespace(
            gathered=gathered,
            work=work,
            evaluator=SimpleNamespace(measure=lambda _: 0.5),
            trained=(SimpleNamespace(key="trained"), tiny_model),
        )
        assert [each.share for each in Choosing(learning).tuned] == shares
