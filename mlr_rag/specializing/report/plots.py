"""The report's plots, as SVG to stand inside a page, by matplotlib (extra `report`).

Colors are the page's CSS variables, so that a plot follows it into the dark; letters stay letters. The same report
gives the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from mlr_rag.errors import MissingExtraError
from mlr_rag.specializing.report.data import Comparison, Curve, LayerWeight, Report
from mlr_rag.specializing.report.formats import LABELS

# Colors that stand for the page's variables until the SVG is written: matplotlib knows no variables.
_VARIABLES = {
    "ink": "#010101",
    "soft": "#020202",
    "line": "#030303",
    "improved": "#040404",
    "hurt": "#050505",
    "series-1": "#060606",
    "series-2": "#070707",
    "series-3": "#080808",
    "series-4": "#090909",
}
_INK, _SOFT, _LINE, _IMPROVED, _HURT, *_SERIES = _VARIABLES.values()
_MARKS = ("o", "s", "^", "D")  # beside the colors, for who cannot tell those apart
_SIZE = (4.6, 2.9)  # inches: on a phone its letters keep their size
_SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}

Draw = Callable[[Any], None]


def plots(report: Report) -> dict[str, str]:
    """Name → SVG of every plot that the report has the values for.

    "differences", "per_query", "interpolation", "dev_curves", "loss_curves", "layers".

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawn: dict[str, str] = {}
    if report.test is not None:
        drawn["differences"] = _differences(report.test, "specialized" if report.accepted else "candidate")
        drawn["per_query"] = _per_query(report.test)
    if report.interpolation:
        drawn["interpolation"] = _interpolation(report)
    drawn |= _curves(report.curves)
    if report.layers:
        drawn["layers"] = _layers(report.layers)
    return drawn


def _differences(test: Comparison, other: str) -> str:
    metrics = test.metrics

    def draw(axes: Any) -> None:
        axes.axvline(0, color=_INK, linewidth=1)
        for place, each in enumerate(metrics.values()):
            found, color = each.difference, _SOFT
            if found.low > 0 or found.high < 0:
                color = _IMPROVED if found.mean > 0 else _HURT
            axes.plot([found.low, found.high], [place, place], color=color, linewidth=4, solid_capstyle="round")
            axes.plot(found.mean, place, "o", color=color, markersize=9)
        axes.set_yticks(range(len(metrics)), [LABELS.get(name, name) for name in metrics])
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.set_ylim(len(metrics) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{other} − base, with 95% intervals")

    return _svg("differences", "The difference of each metric with its 95% interval; right of zero is better", draw)


def _per_query(test: Comparison) -> str:
    changes = sorted((query.difference for query in test.per_query), reverse=True)

    def draw(axes: Any) -> None:
        edges = [place + 0.5 for place in range(len(changes) + 1)]
        # One path of each color, however many queries there are.
        for sign, color in ((1, _IMPROVED), (-1, _HURT)):
            bars = [change if change * sign > 0 else 0.0 for change in changes]
            axes.stairs(bars, edges, fill=True, color=color)
        axes.axhline(0, color=_INK, linewidth=1)
        axes.set_xlim(0.5, len(changes) + 0.5)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("test queries, sorted")
        axes.set_ylabel("change of nDCG@10")

    return _svg("per_query", "The change of nDCG@10 of every test query, sorted: bars above zero improved", draw)


def _interpolation(report: Report) -> str:
    alphas = [each.alpha for each in report.interpolation]

    def draw(axes: Any) -> None:
        axes.plot(alphas, [each.dev for each in report.interpolation], "o-", color=_SERIES[0], label="dev queries")
        axes.plot(alphas, [each.probe for each in report.interpolation], "s--", color=_SERIES[1], label="general probe")
        if report.accepted and report.alpha is not None:
            axes.axvline(report.alpha, color=_INK, linewidth=1, linestyle=":", label="handed back")
        axes.set_xlabel("share of the tuned weights")
        axes.set_ylabel("nDCG@10")
        _legend(axes)

    return _svg("interpolation", "nDCG@10 on dev queries and on the general probe by share of the tuned weights", draw)


def _curves(curves: Sequence[Curve]) -> dict[str, str]:
    shown = {}
    for value, label in (("dev", "nDCG@10 on dev queries"), ("loss", "training loss")):
        lines = [
            (curve.name, [(point.step, at) for point in curve.points if (at := getattr(point, value)) is not None])
            for curve in curves
        ]
        if any(points for _, points in lines):
            shown[f"{value}_curves"] = _svg(f"{value}_curves", f"{label} by training step", _lines(lines, label))
    return shown


def _lines(lines: Sequence[tuple[str, list[tuple[int, float]]]], label: str) -> Draw:
    def draw(axes: Any) -> None:
        for place, (name, points) in enumerate(line for line in lines if line[1]):
            steps, values = [step for step, _ in points], [value for _, value in points]
            look, style = place % len(_SERIES), "-" if place < len(_SERIES) else "--"
            axes.plot(
                steps, values, style, marker=_MARKS[look], markersize=4, color=_SERIES[look], label=_shortened(name)
            )
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        _legend(axes)

    return draw


def _layers(layers: Sequence[LayerWeight]) -> str:
    places = list(range(len(layers)))

    def draw(axes: Any) -> None:
        for shift, color, label, values in (
            (-0.2, _SOFT, "before", [each.before for each in layers]),
            (0.2, _SERIES[0], "after", [each.after for each in layers]),
        ):
            axes.bar([place + shift for place in places], values, width=0.38, color=color, label=label)
        axes.set_xticks(places, [str(each.layer) for each in layers])
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("layer")
        axes.set_ylabel("weight")
        _legend(axes)

    return _svg("layers", "The weight of each layer in a document's vector, before and after", draw)


def _shortened(name: str) -> str:
    """No longer than two of them have room for above a plot."""
    return name if len(name) <= 28 else f"{name[:27]}…"


def _legend(axes: Any) -> None:
    """Above the plot, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2, handlelength=1.6, columnspacing=1.2
    )


def _svg(name: str, label: str, draw: Draw) -> str:
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as problem:
        raise MissingExtraError(
            "the report's plots need an extra", found=str(problem), remedy="Install it: pip install 'mlr-rag[report]'"
        ) from None
    # Neither pyplot nor the caller's settings, which are back when the style's context ends.
    with style.context(["default", {**_SETTINGS, "svg.hashsalt": name}]):
        figure = Figure(figsize=_SIZE, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        draw(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return _inline(written.getvalue(), label)


def _inline(svg: str, label: str) -> str:
    """The drawing alone, to stand in a page beside others: in the page's font, its size the page's matter."""
    start = svg.index("<svg")
    box = re.findall(r'viewBox="[^"]*"', svg)[0]
    body = svg[svg.index(">", start) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>| font-family: [^;]*;", "", body, flags=re.DOTALL)
    body = re.sub(
        r'<g id="[^"]*"', "<g", body
    )  # every drawing numbers its groups from one; those referred to are hashes
    body = body.replace("xlink:href", "href")
    for variable, color in _VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    return f'<svg class="plot" role="img" aria-label="{html.escape(label)}" {box}>{body.strip()}'
