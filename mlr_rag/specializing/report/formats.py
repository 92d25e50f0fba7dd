"""How the report's numbers are written: one way for each kind, on every page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

MINUS = "−"  # as wide as the plus sign, so that columns align


def metric(value: float) -> str:
    """Such as 0.662."""
    return f"{value:.3f}".replace("-", MINUS)


def change(value: float) -> str:
    """Such as +0.089 or −0.012; no sign where it rounds to zero."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", MINUS)


def p_value(value: float) -> str:
    """Such as p = 0.012, or p < 0.001."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def count(value: int) -> str:
    """Such as 41,260."""
    return f"{value:,}"


def share(value: float) -> str:
    """Such as 70%."""
    return f"{value:.0%}"


def short(value: float) -> str:
    """A setting: as few digits as it has, three at most."""
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Such as 0.4 s, 38 s, 5 min 13 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02} min"


FORMATS: dict[str, Callable[[Any], str]] = {
    "metric": metric,
    "change": change,
    "p": p_value,
    "count": count,
    "share": share,
    "short": short,
    "plain": str,
    "duration": duration,
}
LABELS = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10", "recall@100": "Recall@100"}
CHOSEN = {
    "tuned": "the tuned model",
    "interpolated": "tuned and base weights, mixed",
    "query_adapter": "the base with a query adapter",
    "base": "the base model",
}
SPLIT_BY = {
    "parent": "training shares no file or page with the others",
    "passage": "training shares no passage with the others, and no near-duplicate of one",
    "query": "training shares no query with the others, but passages",
    "given": "as you gave it",
    "test": "dev shares passages with training, as your own test does",
}


class Numbers:
    """The numbers of a report's JSON, each found by its path and written in the format of its kind."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __call__(self, kind: str, *path: str | int) -> str:
        """The number at a path of keys and places, as text."""
        value: Any = self._values
        for part in path:
            value = value[part]
        return FORMATS[kind](value)


def pointer(path: Iterable[str | int]) -> str:
    """A path as a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
