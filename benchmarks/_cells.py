"""Cells of an experiment, worked off by two processes: killed at any instant, it goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._common import quiet, say

Values = dict[str, npt.NDArray[np.float64]]  # metric -> one value a query, in the order of the data's queries
Work = Callable[["Cell"], tuple[dict[str, Any], Values]]


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation."""

    collection: str
    method: str
    seed: int
    rate: float  # the learning rate
    split: str = "test"  # "held-out": the queries on which the learning rate is chosen

    def __str__(self) -> str:
        return f"{self.collection} {self.method} seed {self.seed} lr {self.rate:g} {self.split}"

    @property
    def file(self) -> str:
        """Where its values lie."""
        return f"{'_'.join(str(self).split())}.npz"


def finished(folder: Path) -> dict[Cell, dict[str, Any]]:
    """The cells that are done, and what was found; a line that a kill has torn does not count."""
    found = {}
    file = folder / "results.jsonl"
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        found[Cell(**content.pop("cell"))] = content
    return found


def values(folder: Path, cell: Cell) -> Values:
    """The values a query of a finished cell."""
    with np.load(folder / cell.file) as stored:
        return {name: stored[name] for name in stored.files}


def run(cells: Sequence[Cell], work: Work, folder: Path, workers: int = 2) -> None:
    """Do every cell that is not done yet, in order.

    Raises:
        SystemExit: a cell failed; the others are done all the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = finished(folder)
    left = [cell for cell in cells if cell not in done]
    say(f"{len(cells) - len(left)} of {len(cells)} cells are there, {len(left)} to do")
    if not left:
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    context = multiprocessing.get_context("spawn")
    place, failed = context.Value("i", 0), context.Value("i", 0)
    processes = [context.Process(target=_worker, args=(left, work, folder, place, failed)) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if failed.value or any(process.exitcode for process in processes):
        raise SystemExit(f"{failed.value} cells failed: run it again to try them again")


def _worker(cells: Sequence[Cell], work: Work, folder: Path, place: Any, failed: Any) -> None:
    import torch

    torch.set_num_threads(1)
    quiet()
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():  # an orphan would go on for hours
        with place.get_lock():
            number, place.value = place.value, place.value + 1
        if number >= len(cells):
            return
        cell, started = cells[number], time.perf_counter()
        try:
            facts, per_query = work(cell)
        except Exception:
            traceback.print_exc()
            say(f"[{number + 1}/{len(cells)}] {cell}: failed")
            failed.value += 1
            continue
        seconds = round(time.perf_counter() - started, 1)
        facts = {**facts, **{name: float(each.mean()) for name, each in per_query.items()}, "seconds": seconds}
        _record(folder, cell, facts, per_query)
        shown = {name: round(value, 4) for name, value in facts.items() if isinstance(value, float)}
        say(f"[{number + 1}/{len(cells)}] {cell}: {shown}")


def _record(folder: Path, cell: Cell, facts: dict[str, Any], per_query: Values) -> None:
    """The values first, the line that says they are there last."""
    file = folder / cell.file
    with (folder / f"{cell.file}.{os.getpid()}").open("wb") as stream:
        np.savez(stream, **per_query)  # type: ignore[arg-type]
    Path(stream.name).replace(file)
    line = json.dumps({"cell": asdict(cell), **facts})
    with (folder / "results.jsonl").open("a", encoding="utf-8") as log:
        log.write(f"\n{line}\n")  # begins a line of its own after one that was torn; one write, so they do not mix
        log.flush()
        os.fsync(log.fileno())
