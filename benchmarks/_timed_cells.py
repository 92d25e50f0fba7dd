"""Cells of an experiment that are timed: each in a process of its own, one after another; what was killed goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, say


def finished(folder: Path, cell: str) -> dict[str, Any] | None:
    """What was found, if it is there."""
    file = folder / f"{cell}.json"
    found: dict[str, Any] | None = json.loads(file.read_text("utf-8")) if file.exists() else None
    return found


def keep(folder: Path, cell: str, found: Mapping[str, Any]) -> None:
    """Write what was found, all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{cell}.json"
    file.with_suffix(".partial").write_text(json.dumps(found), "utf-8")
    file.with_suffix(".partial").replace(file)


def run(folder: Path, wanted: Sequence[str], module: str, words: Sequence[str]) -> None:
    """`python -m module *words --cell CELL` for each cell that is not there yet: the wall clock is its alone."""
    left = [cell for cell in wanted if finished(folder, cell) is None]
    say(f"{len(wanted) - len(left)} of {len(wanted)} cells are there, {len(left)} to do")
    for cell in left:
        command = [sys.executable, "-m", module, *words, "--cell", cell]
        if subprocess.run(command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False).returncode:
            raise SystemExit(f"{cell} failed: run it again to try it again")
