"""The layer report as text, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from mlr_rag.evaluation.layer_report import LayerReport, Measured, describe

_WIDTH = 120
_OTHERS = 3  # pairs without the last layer that are shown: no model pools so


def table(report: LayerReport) -> str:
    """The report in lines of at most 120 characters; pairs without the last layer are cut to the best few."""
    of = f" of {report.of_queries:,}" if report.of_queries > report.queries else ""
    heading = (
        f"{report.model}, {report.num_layers} layers, {report.similarity}\n"
        f"{report.collection} {report.split}: {report.queries:,}{of} queries, {report.documents:,} documents, "
        f"{report.cut:,} of them cut; {report.seconds:.0f} s"
    )
    parts = [heading, _systems(report), _shares(report)]
    if report.dead:
        named = ", ".join(f"layer {layer} beside layer {other}" for layer, other in report.dead)
        parts.append(_wrapped(f"dead: {named}; training on the maximum would send next to no gradient there"))
    return "\n\n".join([*parts, _wrapped(report.recommendation)])


def _systems(report: LayerReport) -> str:
    last = report.num_layers
    others = [each for each in report.systems if len(each.system.layers) == 2 and last not in each.system.layers]
    hidden = sorted(others, key=lambda each: -each.ndcg.mean)[_OTHERS:]
    head = ("document", "nDCG@10", "95%", "to the last layer", "95%", "p")
    rows = [_row(each) for each in report.systems if each not in hidden]
    more = f"{len(hidden)} pairs without the last layer rank below these; " if hidden else ""
    note = (
        f"{more}p: randomization test, corrected for {len(report.systems) - 1} systems; a query is its last layer, "
        "but for both sides"
    )
    return f"{_aligned([head, *rows])}\n{_wrapped(note)}"


def _row(each: Measured) -> tuple[str, ...]:
    alone = (describe(each.system), f"{each.ndcg.mean:.4f}", f"{each.ndcg.low:.3f} to {each.ndcg.high:.3f}")
    if each.difference is None:
        return (*alone, "", "", "")
    difference = each.difference
    across = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return (*alone, f"{difference.mean:+.4f}", across, f"{each.corrected:.4f}")


def _shares(report: LayerReport) -> str:
    last, names = report.num_layers, list(report.populations)
    rows = [("above the last", *names, "highest: all", *names[1:], "score")]
    for layer in range(last, 0, -1):
        pair = ["" if layer == last else _percent(report.share(layer, last, name)) for name in names]
        whole = [_percent(report.populations[name].highest[layer - 1]) for name in names]
        every = report.populations["all"]
        rows.append((f"layer {layer}", *pair, *whole, f"{every.mean[layer - 1]:.2f} ± {every.std[layer - 1]:.2f}"))
    note = (
        f"how often a layer's score is above layer {last}'s, and how often the highest of all: for all documents, "
        "those that the last layer retrieves, and the relevant ones; score: mean ± standard deviation, all documents"
    )
    return f"{_aligned(rows)}\n{_wrapped(note)}"


def _percent(share: float) -> str:
    return "0" if share == 0 else "<0.01%" if share < 1e-4 else f"{share:.2%}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *line[1:]]).rstrip() for row, line in zip(rows, lines, strict=True)
    )
