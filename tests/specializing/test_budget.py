from __future__ import annotations

import pytest

from mlr_rag import InvalidInputError
from mlr_rag.specializing.budget import Clock, parse_budget


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("20min", 1200),
        ("1h 30min", 5400),
        ("1h30m", 5400),
        ("900s", 900),
        ("1.5 h", 5400),
        ("900", 900),
        ("20 minutes", 1200),
        ("20 Mins", 1200),
        ("1 hr", 3600),
        ("90 seconds", 90),
        ("1h30", 5400),
        ("1 hour 5 minutes 10", 3910),
        (600, 600),
        (None, None),
    ],
)
def test_budgets_are_read_as_people_write_them(written, seconds):
    assert parse_budget(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        *("20", "soon", "20min or so", "10 lightyears", "", "30s", "90s 20", "60 60", "60 2h", "-900", "1,5h", "min"),
        *(5, -900, True, float("nan"), float("inf"), []),
    ],
)
def test_what_is_no_time_to_work_in_is_refused(written):
    with pytest.raises(InvalidInputError, match="20min"):
        parse_budget(written)


def test_a_clock_never_goes_below_nothing():
    now = [10.0]
    clock = Clock(100, now=lambda: now[0])
    assert (clock.spent, clock.left) == (0, 100)
    now[0] = 200.0
    assert (clock.spent, clock.left) == (190, 0)
    assert Clock(None).left == float("inf")
