"""How the length of training is planned on a machine that is busy at times."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlr_rag.specializing.learning import Learning


@pytest.mark.parametrize(
    ("measured", "seconds", "times"),
    [
        ([5.0], 5.0, 1),
        ([20.0, 5.0], 5.0, 2),
        ([20.0, 15.0, 18.0], 15.0, 3),  # it is slower than planned, and no mood
    ],
)
def test_a_step_that_takes_far_longer_than_planned_is_measured_again(
    measured: list[float], seconds: float, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(measured)
    monkeypatch.setattr("mlr_rag.specializing.learning.measure_step", lambda *_: next(left))
    gathered: Any = SimpleNamespace(
        teaching=None,
        work=None,
        plan=SimpleNamespace(length=2),
        searching=SimpleNamespace(speed=SimpleNamespace(train=16.0)),  # 4 seconds for 32 lists of 2
        ground=SimpleNamespace(base=None),
    )
    assert Learning(gathered)._a_step([]) == seconds
    assert len(measured) - len(list(left)) == times
