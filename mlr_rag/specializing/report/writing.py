"""The report's three files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mlr_rag.errors import MissingExtraError
from mlr_rag.specializing.report.data import Report
from mlr_rag.specializing.report.html import to_html
from mlr_rag.specializing.report.markdown import to_markdown


def check_extra() -> None:
    """Make sure that reports can be made, before what they are about is.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            "the report needs an extra",
            found=f"no {' and no '.join(missing)}",
            remedy="Install it: pip install 'mlr-rag[report]'",
        )


def write_report(report: Report, folder: str | Path) -> Path:
    """Write report.json, report.md and report.html into a folder, over what is there; the path of the page.

    The numbers go first: they are kept even where a page cannot be made.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed; report.json and report.md are written.
        OSError: the folder cannot be written to.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / "report.json").write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    (place / "report.md").write_text(to_markdown(report), "utf-8")
    page = place / "report.html"
    page.write_text(to_html(report), "utf-8")
    return page
