"""From finished cells to figures: means over seeds, and paired tests over queries."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._cells import Cell, values
from mlr_rag.evaluation.significance import Difference, paired_bootstrap

Done = Mapping[Cell, Mapping[str, Any]]


def tested(done: Done, collection: str, method: str) -> list[Cell]:
    """The cells of a method on the test queries, one a seed, in order."""
    found = [cell for cell in done if (cell.collection, cell.method, cell.split) == (collection, method, "test")]
    return sorted(found, key=lambda cell: cell.seed)


def over_seeds(done: Done, cells: Sequence[Cell], metric: str, scale: float = 1.0, digits: int = 3) -> str:
    """Mean ± standard error over seeds; the mean alone of a single one."""
    found = [scale * done[cell][metric] for cell in cells]
    if not found:
        return "missing"
    mean = f"{statistics.mean(found):.{digits}f}"
    return f"{mean} ± {statistics.stdev(found) / len(found) ** 0.5:.{digits}f}" if len(found) > 1 else mean


def compare(folder: Path, ours: Sequence[Cell], theirs: Sequence[Cell], metric: str) -> Difference | None:
    """The difference over queries, each query's value being its mean over the seeds that both have."""
    pairs = [(a, b) for a in ours for b in theirs if a.seed == b.seed]
    if not pairs:
        return None
    first, second = (
        np.mean([values(folder, cell)[metric] for cell in side], axis=0) for side in zip(*pairs, strict=True)
    )
    return paired_bootstrap(first, second)


def wins_of_lower_layers(done: Done, cells: Sequence[Cell]) -> str:
    """How often another layer than the last was a document's best in training, by layer; a mean over seeds."""
    shares = [done[cell]["wins"] for cell in cells if done[cell].get("wins")]
    if not shares:
        return ""
    layers = list(shares[0])[1:]
    return ", ".join(f"{layer}: {statistics.mean(each.get(layer, 0.0) for each in shares):.1%}" for layer in layers)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
