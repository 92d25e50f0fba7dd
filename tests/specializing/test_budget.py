from __future__ import annotations

import pytest

from mlr_rag import InvalidInputError
from mlr_rag.specializing.budget import Clock, parse_budget


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("20min", 1200), ("1h 30min", 5400), ("1h30m", 5400), ("900s", 900), ("1.5 h", 5400), (600, 600), (None, None)],
)
def test_budgets_are_read_as_people_write_them(written, seconds):
    assert parse_budget(written) == seconds


@pytest.mark.parametrize(
    "written",
    ["20", "soon", "20min or so", "10 lightyears", "", "30s", 5, -900, True, float("nan"), float("inf"), []],
)
def test_what_is_no_time_to_work_in_is_refused(written):
    with pytest.raises(InvalidInputError, match="20min"):
        parse_budget(written)


def test_a_clock_counts_what_an_earlier_process_spent_and_never_goes_below_nothing():
    now = [10.0]
    clock = Clock(100, spent=30, now=lambda: now[0])
    assert (clock.spent, clock.left) == (30, 70)
    now[0] = 200.0
    assert (clock.spent, clock.left) == (220, 0)
    assert Clock(None).left == float("inf")
