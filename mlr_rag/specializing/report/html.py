"""The report as a page: one file that needs no network, no script and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

from mlr_rag.errors import MissingExtraError
from mlr_rag.specializing.report.data import Report
from mlr_rag.specializing.report.formats import CHOSEN, LABELS, SPLIT_BY, Numbers, pointer
from mlr_rag.specializing.report.plots import plots

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup


def to_html(report: Report) -> str:
    """The report as one self-contained HTML page: the same report gives the same text.

    Each number names its place in the report's JSON: `data-json` is a JSON pointer (RFC 6901).

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    template = _template()
    from markupsafe import Markup

    numbers = Numbers(report.model_dump(mode="json"))

    def number(kind: str, *parts: Any) -> Markup:
        path = list(_flat(parts))
        return Markup('<span data-json="{}">{}</span>').format(pointer(path), numbers(kind, *path))

    return template.render(
        report=report,
        n=number,
        plots={name: Markup(svg) for name, svg in plots(report).items()},  # noqa: S704 - our own drawing
        css=Markup(_file("page.css")),  # noqa: S704 - our own file
        labels=LABELS,
        chosen=CHOSEN[report.chosen],
        split_by=SPLIT_BY[report.data.split.leaks.by],
    )


def _template() -> Template:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as problem:
        raise MissingExtraError(
            "the HTML report needs an extra", found=str(problem), remedy="Install it: pip install 'mlr-rag[report]'"
        ) from None
    # Autoescaping: queries and passages are anybody's text.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_file("page.html.jinja"))


def _flat(parts: Iterable[Any]) -> Iterator[str | int]:
    """Keys and places, and lists of them that a macro was given."""
    for part in parts:
        if isinstance(part, list):
            yield from _flat(part)
        else:
            yield part


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
