"""What benchmarks/listwise.py calls the same quality, and what it refuses to time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("datasets")

from benchmarks import listwise


def met(stock: list[float], ours: list[float]) -> bool | None:
    gains = {variant: ours if variant in listwise.OURS else stock for variant in listwise.VARIANTS}
    after = {variant: [0.5 + gain for gain in each] for variant, each in gains.items()}
    (verdict,) = {row.met for row in listwise.quality_rows("tiny", 0.5, after)[-len(listwise.OURS) :]}
    return verdict


def test_what_is_within_the_spread_of_stock_is_the_same_quality() -> None:
    assert met([0.02, 0.03], [0.016, 0.016])
    assert met([-0.02, -0.03], [-0.016, -0.016])
    assert not met([0.02, 0.03], [0.014, 0.014])
    assert not met([0.02, 0.03], [0.037, 0.037])


@pytest.mark.parametrize("stock", [[0.02, 0.03], [0.0, 0.03], [0.0, 0.0], [-0.02, -0.03]])
def test_a_variant_that_trains_nothing_never_has_the_same_quality(stock: list[float]) -> None:
    assert not met(stock, [0.0, 0.0])


def test_one_step_is_refused_as_the_first_is_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["listwise", str(tmp_path / "any.zip"), "--steps", "1"])
    with pytest.raises(SystemExit):
        listwise.main()
