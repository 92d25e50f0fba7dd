"""What a page of HTML holds, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from html.parser import HTMLParser

from mlr_rag.specializing.report.data import Report
from mlr_rag.specializing.report.html import to_html

_VOID = {"meta", "link", "br", "circle", "path", "use", "rect", "polyline"}


@dataclass
class Element:
    """A tag, its attributes, and all the text in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list[str] = field(default_factory=list)  # the tags around it, outermost first


class Page(HTMLParser):
    """Every element of a page, in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, inside=[each.tag for each in self._open])
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        for place in range(len(self._open) - 1, -1, -1):
            if self._open[place].tag == tag:
                del self._open[place:]
                return

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        """The elements of these tags, in order."""
        return [element for element in self.elements if element.tag in tags]


@lru_cache(maxsize=8)
def _source(json: str) -> str:
    return to_html(Report.model_validate_json(json))


def source_of(report: Report) -> str:
    """The page of a report; drawn once."""
    return _source(report.model_dump_json())


def of(report: Report) -> Page:
    """The page of a report, parsed."""
    return Page(source_of(report))


def shown_numbers(page: Page) -> list[tuple[str, str]]:
    """(JSON pointer, text) of every number."""
    return [(each.attributes["data-json"], each.text) for each in page.elements if "data-json" in each.attributes]
