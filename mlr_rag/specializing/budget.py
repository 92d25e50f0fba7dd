"""Wall-clock budgets: how they are written, and how much of one is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from mlr_rag.errors import InvalidInputError

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "hours": 3600}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
LEAST = 60.0  # seconds; less does not even tell how fast the machine is


def parse_budget(budget: str | float | None) -> float | None:
    """Seconds of "20min", "1h 30min", "900s" or a number of seconds; None stays None: no limit.

    Raises:
        InvalidInputError: it is none of these, or less than a minute.
    """
    if budget is None:
        return None
    seconds: float | None = None
    if isinstance(budget, str):
        text = budget.strip().lower()
        parts = _PART.findall(text)
        if parts and not _PART.sub("", text).strip() and all(unit in _UNITS for _, unit in parts):
            seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    elif isinstance(budget, (int, float)) and not isinstance(budget, bool):
        seconds = float(budget)
    if seconds is None or not LEAST <= seconds < float("inf"):
        raise InvalidInputError(
            "budget is no time to work in",
            found=budget,
            expected="a minute or more, such as '20min', '1h 30min' or 900",
        )
    return seconds


class Clock:
    """How much of a budget is spent.

    Args:
        budget: Seconds; None for no limit.
        spent: What an earlier process, which was killed, had spent of it.
        now: For tests.
    """

    def __init__(
        self, budget: float | None = None, spent: float = 0.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget, self._before, self._now = budget, spent, now
        self._started = now()

    @property
    def spent(self) -> float:
        """Seconds, an earlier process's included."""
        return self._before + self._now() - self._started

    @property
    def left(self) -> float:
        """Seconds; infinite without a budget, and never negative."""
        return float("inf") if self.budget is None else max(0.0, self.budget - self.spent)
