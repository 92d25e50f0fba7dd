"""Progress of long work: one hook for the whole library."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol


class Progress(Protocol):
    """What a progress display must do."""

    def update(self, n: int) -> Any:
        """`n` more are done."""

    def close(self) -> Any:
        """The work ended."""


def _tqdm(description: str, total: int | None, show: bool | None) -> Progress:
    from tqdm import tqdm

    wanted = sys.stderr.isatty() if show is None else show
    bar: Progress = tqdm(desc=description, total=total, unit="text", disable=not wanted)
    return bar


# Replace it to show progress elsewhere: it gets a description, the total or None, and whether the caller asked for
# it (True), against it (False), or left it to you (None).
start: Callable[[str, int | None, bool | None], Progress] = _tqdm
