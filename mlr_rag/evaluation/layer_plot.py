"""The layer report as a picture, by matplotlib (extra `report`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError, MissingExtraError
from mlr_rag.evaluation.layer_report import LayerReport, Measured
from mlr_rag.evaluation.layer_scores import Kind

_FORMATS = (".png", ".svg")
_KINDS: dict[Kind, tuple[str, str, str]] = {  # a label, a color that the color-blind tell apart, a mark
    "one": ("layer l", "#0072B2", "o"),
    "both": ("layer l on both sides", "#56B4E9", "s"),
    "max": ("max of l and the last", "#D55E00", "^"),
    "mean": ("mean of l and the last", "#009E73", "D"),
}
_POPULATIONS = {
    "all": ("all documents", "#999999"),
    "retrieved": ("retrieved", "#D55E00"),
    "relevant": ("relevant", "#0072B2"),
}


def check_plot(path: str | Path) -> Path:
    """A path to draw to, refused before any work is done for it.

    Raises:
        InvalidInputError: another format than PNG or SVG, or no such folder.
        MissingExtraError: matplotlib is not installed.
    """
    place = Path(path)
    if place.suffix.lower() not in _FORMATS:
        raise InvalidInputError("no such format of a plot", found=place.name, expected=" or ".join(_FORMATS))
    if not place.parent.is_dir():
        raise InvalidInputError("no folder to draw to", found=str(place.parent))
    _figure_class()
    return place


def plot(report: LayerReport, path: str | Path) -> None:
    """Draw what each layer gains or loses to the last one, with 95% intervals, and how often it scores higher.

    Raises:
        InvalidInputError, MissingExtraError: see check_plot.
    """
    place = check_plot(path)
    # Neither pyplot nor its settings: another figure of the caller's stays as it is. Opaque white shows everywhere.
    figure = _figure_class()(figsize=(11, 4.5), layout="constrained", facecolor="white")
    gains, shares = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_gains(gains, report)
    _draw_shares(shares, report)
    figure.suptitle(f"{report.model} on {report.collection} {report.split}, {report.similarity}", fontsize=11)
    figure.savefig(place, dpi=150)


def _draw_gains(axes: Any, report: LayerReport) -> None:
    last = report.num_layers
    for shift, (kind, (label, color, mark)) in enumerate(_KINDS.items()):
        found = [each for each in report.systems if each.system.kind == kind and _is_shown(each, last)]
        differences = [(each.system.layers[0], each.difference) for each in found if each.difference is not None]
        axes.errorbar(
            [layer + 0.12 * (shift - 1.5) for layer, _ in differences],
            [difference.mean for _, difference in differences],
            yerr=[
                [difference.mean - difference.low for _, difference in differences],
                [difference.high - difference.mean for _, difference in differences],
            ],
            fmt=mark, color=color, label=label, capsize=2, markersize=5, linewidth=1,
        )  # fmt: skip
    base = report.last.ndcg
    axes.axhline(0, color="black", linewidth=1)
    axes.set_title(f"gain over the last layer ({base.mean:.3f}), paired, {report.queries:,} queries", fontsize=10)
    axes.set_xlabel("layer l")
    axes.set_ylabel("nDCG@10, difference with 95% interval")
    axes.set_xticks(range(1, last))
    axes.set_xlim(0.5, last - 0.5)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)


def _draw_shares(axes: Any, report: LayerReport) -> None:
    layers = list(range(1, report.num_layers))
    for shift, (name, (label, color)) in enumerate(_POPULATIONS.items()):
        shares = [100 * report.share(layer, report.num_layers, name) for layer in layers]
        places = [layer + 0.27 * (shift - 1) for layer in layers]
        bars = axes.bar(places, shares, width=0.25, color=color, label=label)
        axes.bar_label(bars, [_percent(share) for share in shares], fontsize=6, rotation=90, padding=2)
    axes.set_title("how often its score is above the last layer's", fontsize=10)
    axes.set_xlabel("layer l")
    axes.set_ylabel("% of query-document pairs")
    axes.set_ylim(0, max(5.0, axes.get_ylim()[1] * 1.15))
    axes.set_xticks(layers)
    axes.legend(fontsize=8)


def _is_shown(each: Measured, last: int) -> bool:
    return len(each.system.layers) == 1 or last in each.system.layers


def _percent(share: float) -> str:
    return "0" if share == 0 else "<0.1" if share < 0.1 else f"{share:.1f}"


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as problem:
        raise MissingExtraError(
            "a plot needs an extra", found=str(problem), remedy="Install it: pip install 'mlr-rag[report]'"
        ) from None
    return Figure
