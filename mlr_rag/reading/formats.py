"""From a file to its texts: the whole of it, or one for each JSON line and CSV row."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mlr_rag.errors import InvalidDocumentError, InvalidInputError, MissingExtraError
from mlr_rag.reading.files import CONVERTED, LINES, MARKDOWN, TABLES, Notes, Source, decode, read_bytes, unreadable

logger = logging.getLogger(__name__)

RESERVED = ("root", "path", "chunk")  # metadata that `read` writes itself
INSTALL = 'pip install "mlr-rag[ingest]"'
_HEADING = re.compile(r"^#[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)


class DamagedFileError(Exception):
    """A parser could not make sense of a file."""


@dataclass(frozen=True)
class Section:
    """A text to be split.

    Attributes:
        place: Where it is, to name in an error.
        markdown: Whether it is Markdown.
        row: Whether it is one of many in its file, to be told from them by its content.
        id: The document's id where the file gives one.
    """

    text: str
    place: str
    title: str = ""
    markdown: bool = False
    row: bool = False
    id: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def check_extra(sources: Sequence[Source]) -> None:
    """Refuse, before anything is read, files that need markitdown where it is not installed."""
    if importlib.util.find_spec("markitdown") is None:
        for source in sources:
            if source.kind in CONVERTED:
                raise _missing(source, "no markitdown")


def sections(source: Source, notes: Notes) -> Iterator[Section]:
    """The texts in a file.

    Raises:
        DamagedFileError: it is not what its name says.
        InvalidInputError, InvalidDocumentError: it cannot be read, or a line in it is broken.
    """
    if source.kind in LINES:
        yield from _lines(source, notes)
    elif source.kind in TABLES:
        yield from _rows(source, decode(read_bytes(source), source, notes))
    elif source.kind in CONVERTED:
        yield _converted(source)
    else:
        text = decode(read_bytes(source), source, notes)
        markdown = source.kind in MARKDOWN
        yield Section(text, source.place, _title(text) if markdown else "", markdown)


def _lines(source: Source, notes: Notes) -> Iterator[Section]:
    try:
        with source.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = decode(line, source, notes)
                if text.strip():
                    yield _line(text, f"{source.place} line {number:,}")
    except OSError as problem:
        raise unreadable(source.path, problem) from problem


def _line(line: str, place: str) -> Section:
    expected = '{"text": "...", "id": "...", "title": "...", "metadata": {...}}, of which only the text is needed'
    try:
        value = json.loads(line)
    except ValueError as problem:
        raise InvalidDocumentError(f"{place} is not JSON", found=f"{problem}", expected=expected) from None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise InvalidDocumentError(f"{place} has no text", found=line.strip(), expected=expected)
    text, id, title = value.pop("text"), value.pop("id", None), value.pop("title", None) or ""
    id = value.pop("_id", None) if id is None else id
    metadata = value.pop("metadata", None) or {}
    if not isinstance(metadata, dict) or not isinstance(title, str):
        raise InvalidDocumentError(f"{place}: title or metadata of another type", found=line.strip(), expected=expected)
    if id is not None and (isinstance(id, bool) or not isinstance(id, (str, int)) or id == ""):
        raise InvalidDocumentError(f"{place}: not an id", found=id, expected="a string or an integer")
    metadata = value | metadata  # other keys of the line are metadata too
    taken = [key for key in RESERVED if key in metadata]
    if taken:
        raise InvalidDocumentError(
            f"{place}: metadata has names that the reader uses itself", found=taken, remedy="Rename them."
        )
    id = "" if id is None else str(id)
    return Section(text.replace("\0", ""), place, title.replace("\0", ""), row=True, id=id, metadata=metadata)


def _rows(source: Source, text: str) -> Iterator[Section]:
    """Each row as `column: value` lines, so that it can be found and read without the others."""
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [name.strip() or f"column {number}" for number, name in enumerate(next(reader, []), 1)]
        for row in reader:
            names = header + [f"column {number}" for number in range(len(header) + 1, len(row) + 1)]
            cells = [f"{name}: {cell.strip()}" for name, cell in zip(names, row, strict=False) if cell.strip()]
            yield Section("\n".join(cells), f"{source.place} line {reader.line_num:,}", row=True)
    except csv.Error as problem:
        raise InvalidInputError(f"{source.place} line {reader.line_num:,} is not CSV", found=str(problem)) from None


def _converted(source: Source) -> Section:
    content = read_bytes(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about fonts, styles and codecs that do not matter for the text
        from markitdown import MissingDependencyException, StreamInfo

        try:
            info = StreamInfo(extension=source.kind, filename=source.path.name)
            result = _converter().convert_stream(io.BytesIO(content), stream_info=info)
        except MissingDependencyException as problem:
            raise _missing(source, "markitdown without what it needs for it") from problem
        except Exception as problem:  # whatever a third party's parser meets in a damaged file
            logger.debug("%s: %r", source.path, problem)
            raise DamagedFileError(source.place) from problem
    text = result.markdown.replace("\0", "").encode("utf-8", "replace").decode()
    return Section(text, source.place, (result.title or _title(text)).strip(), markdown=True)


@lru_cache(maxsize=1)
def _converter() -> Any:
    from markitdown import MarkItDown, converters

    converter = MarkItDown(enable_builtins=False, enable_plugins=False)
    for name in ("Html", "Pdf", "Docx", "Pptx", "Xlsx"):  # all of them would take a damaged file for plain text
        converter.register_converter(getattr(converters, f"{name}Converter")())
    return converter


def _title(markdown: str) -> str:
    heading = _HEADING.search(markdown[:4000])
    return heading[1] if heading else ""


def _missing(source: Source, found: str) -> MissingExtraError:
    return MissingExtraError(
        f"{source.place}: {source.kind} files need an extra", found=found, remedy=f"Install it: {INSTALL}"
    )
