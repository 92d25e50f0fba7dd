"""The verdict of the benchmark of the score cache."""

from __future__ import annotations

import pytest

pytest.importorskip("bm25s")
from benchmarks.score_cache import survived


@pytest.mark.parametrize(
    ("found", "measured", "met"),
    [
        ([[]] * 20, "0 of 20", True),
        ([[]] * 19 + [["1 wrong scores"]], "1 of 20", False),
        ([[]] * 10, "0 of 10; only 10 of 20 kills came in time", True),
        ([[]] * 9, "0 of 9; only 9 of 20 kills came in time", False),
    ],
)
def test_only_kills_that_came_in_time_count_and_half_of_them_must(
    found: list[list[str]], measured: str, met: bool
) -> None:
    row = survived(found, 20)
    assert (row.measured, row.met) == (measured, met)
