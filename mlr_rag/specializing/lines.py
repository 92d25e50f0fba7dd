"""Files of one value a line, and where in them a value is broken."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError


def json_lines(path: Path, expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of each line that is not blank, and the line's place to name in an error.

    Raises:
        InvalidInputError: the file cannot be read, or a line is no object.
    """
    for number, line in enumerate(_texts(path), 1):
        if not line.strip():
            continue
        place = f"{path} line {number:,}"
        try:
            value = json.loads(line)
        except ValueError as problem:
            raise broken(place, str(problem), expected) from None
        if not isinstance(value, dict):
            raise broken(place, line.strip(), expected)
        yield place, value


def rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The cells of each row that is not blank, and its place; a TSV has no quotes.

    Raises:
        InvalidInputError: the file cannot be read, or is no table.
    """
    plain = path.suffix.lower() == ".tsv"
    quotes = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if plain else {"delimiter": ",", "quotechar": '"'}
    reader = csv.reader(_texts(path), **quotes)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield f"{path} line {reader.line_num:,}", row
    except csv.Error as problem:
        raise broken(f"{path} line {reader.line_num:,}", str(problem), "a table") from None


def broken(place: str, found: Any, expected: str) -> InvalidInputError:
    """The error for a line."""
    return InvalidInputError(f"{place} is broken", found=found, expected=expected)


def _texts(path: Path) -> Iterator[str]:
    """The lines, each decoded by itself, so that the one that is broken is known."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as problem:
                    raise broken(f"{path} line {number:,}", str(problem), "UTF-8 text") from problem
    except OSError as problem:
        raise InvalidInputError(
            f"{path} cannot be read", found=problem.strerror, expected="a file that this user may read"
        ) from problem
