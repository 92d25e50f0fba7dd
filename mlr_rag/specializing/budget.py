"""Wall-clock budgets: how they are written, and how much of one is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from mlr_rag.errors import InvalidInputError

_NAMES = {3600: "h hr hrs hour hours", 60: "m min mins minute minutes", 1: "s sec secs second seconds"}
_UNITS = {name: seconds for seconds, names in _NAMES.items() for name in names.split()}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
LEAST = 60.0  # seconds; less does not even tell how fast the machine is


def parse_budget(budget: str | float | None) -> float | None:
    """Seconds of "20min", "1 hour 30 minutes", "1h30", "900s", 900 or "900"; None stays None: no limit.

    Raises:
        InvalidInputError: it is none of these, or less than a minute.
    """
    if budget is None:
        return None
    seconds: float | None = None
    if isinstance(budget, str):
        seconds = _seconds(budget.strip().lower())
    elif isinstance(budget, (int, float)) and not isinstance(budget, bool):
        seconds = float(budget)
    if seconds is None or not LEAST <= seconds < float("inf"):
        raise InvalidInputError(
            "budget is no time to work in",
            found=budget,
            expected="a minute or more",
            remedy="Write '20min', '1h 30min' or 900, which is in seconds.",
        )
    return seconds


def _seconds(text: str) -> float | None:
    """None where it is no time; a last number without a unit is in the next smaller one, or in seconds."""
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        return None
    seconds, before = 0.0, 60
    for place, (number, name) in enumerate(parts, 1):
        unit = _UNITS.get(name, before // 60 if not name and place == len(parts) else 0)
        if not unit:
            return None
        seconds, before = seconds + float(number) * unit, unit
    return seconds


class Clock:
    """How much of a budget is spent.

    Args:
        budget: Seconds; None for no limit.
        now: For tests.
    """

    def __init__(self, budget: float | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.budget, self._now = budget, now
        self._started = now()

    @property
    def spent(self) -> float:
        """Seconds."""
        return self._now() - self._started

    @property
    def left(self) -> float:
        """Seconds; infinite without a budget, and never negative."""
        return float("inf") if self.budget is None else max(0.0, self.budget - self.spent)
