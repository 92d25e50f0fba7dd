"""Cells of an experiment that are timed: each in a process of its own, one after another; what was killed goes on."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """For one cell, and for the table alone."""
    parser.add_argument("--cell", help="only this one, in this process")
    parser.add_argument("--summarize", action="store_true", help="write the section from the cells that are there")


def run(
    args: argparse.Namespace,
    folder: Path,
    module: str,
    words: Sequence[str],
    cells: Mapping[str, Callable[[], dict[str, Any]]],
) -> bool:
    """The cell that is asked for, in this process, or all that are not there yet; whether to summarize them then.

    Each is `python -m module *words --cell CELL`: the wall clock is its alone.
    """
    if args.cell:
        found = cells[args.cell]()
        keep(folder, args.cell, found)
        say(args.cell, {name: value for name, value in found.items() if not isinstance(value, list)})
        return False
    left = [cell for cell in cells if finished(folder, cell) is None and not args.summarize]
    say(f"{len(left)} of {len(cells)} cells to do")
    for cell in left:
        command = [sys.executable, "-m", module, *words, "--cell", cell]
        if subprocess.run(command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False).returncode:
            raise SystemExit(f"{cell} failed: run it again to try it again")
    return True
