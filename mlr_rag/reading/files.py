"""Which files there are to read, and the text in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlr_rag.errors import InvalidInputError

TEXT = {".txt", ".text", ".rst", ".adoc", ".org", ".log"}
MARKDOWN = {".md", ".markdown"}
LINES = {".jsonl", ".ndjson"}
TABLES = {".csv", ".tsv"}
CONVERTED = {".html", ".htm", ".pdf", ".docx", ".pptx", ".xlsx"}  # by markitdown, the `ingest` extra
KNOWN = TEXT | MARKDOWN | LINES | TABLES | CONVERTED

DAMAGED = "damaged or encrypted"

_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class Source:
    """A file to read: its path, its name within the root, and its kind, the lower-case suffix."""

    path: Path
    name: str

    @property
    def kind(self) -> str:
        """The suffix; a file of an unknown kind is only here because it was named, and is plain text."""
        suffix = self.path.suffix.lower()
        return suffix if suffix in KNOWN else ".txt"

    @property
    def place(self) -> str:
        """The path, to name in an error."""
        return printable(str(self.path))


@dataclass
class Notes:
    """What was read, and what was left out and why.

    Attributes:
        files: How many files were read.
        skipped: The names of files that were left out, by reason.
        repaired: The names of files that held bytes that are no text; they were replaced.
    """

    files: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)

    def is_damaged(self, path: object) -> bool:
        """Whether the file of that name could not be made sense of: what was indexed of it should be kept."""
        return path in self.skipped.get(DAMAGED, [])

    def skip(self, name: str, reason: str) -> None:
        """A file is left out."""
        self.skipped.setdefault(reason, []).append(name)

    def repair(self, name: str) -> None:
        """Bytes of a file were replaced."""
        if name not in self.repaired:
            self.repaired.append(name)


def find_sources(root: Path, exclude: Path | None, notes: Notes) -> list[Source]:
    """The files to read in a folder, hidden ones left out, or the file itself; sorted.

    Raises:
        InvalidInputError: there is nothing there, or it cannot be read.
    """
    if root.is_file():
        if root.suffix.lower() not in KNOWN and b"\0" in _head(root):
            raise InvalidInputError(
                f"{root} is not a text", found="binary data", expected=f"a text file or one of {_kinds()}"
            )
        return [Source(root, printable(root.name))]
    if not root.is_dir():
        raise InvalidInputError(f"nothing to read at {root}", expected="a file or a folder", remedy="Check the path.")
    sources = []
    for path in _walk(root, exclude.resolve() if exclude else None):
        source = Source(path, printable(path.relative_to(root).as_posix()))
        suffix = path.suffix.lower()
        if suffix in KNOWN and path.is_file():
            sources.append(source)
        elif path.is_symlink() and not path.exists():
            notes.skip(source.name, "broken link")
        else:
            notes.skip(source.name, f"unknown type {suffix}" if suffix else "no file type")
    return sources


def printable(path: str) -> str:
    """A path as text that can be stored: bytes of a file name that are no UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_bytes(source: Source) -> bytes:
    """The content of a file.

    Raises:
        InvalidInputError: it cannot be read. It is not skipped, as `sync` would then delete what it held before.
    """
    try:
        return source.path.read_bytes()
    except OSError as problem:
        raise unreadable(source.path, problem) from problem


def decode(content: bytes, source: Source, notes: Notes) -> str:
    """Bytes as text without NULs: UTF-8, or UTF-16 with its mark; what is neither is replaced, and noted."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        notes.repair(source.name)
        text = content.decode(encoding, "replace")
    return text.replace("\0", "")


def unreadable(path: str | Path, problem: OSError) -> InvalidInputError:
    """The error for a file or folder that the system will not let us read."""
    return InvalidInputError(
        f"{path} cannot be read",
        found=problem.strerror or str(problem),
        expected="a file that this user may read",
        remedy="Allow it, or move it out of the folder; nothing was deleted from the collection.",
    )


def _walk(root: Path, exclude: Path | None) -> Iterator[Path]:
    def fail(problem: OSError) -> None:
        raise unreadable(problem.filename or root, problem) from problem

    for place, folders, files in os.walk(root, onerror=fail):
        folder = Path(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and (folder / name).resolve() != exclude)
        yield from (folder / name for name in sorted(files) if name[0] != ".")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8192)
    except OSError as problem:
        raise unreadable(path, problem) from problem


def _kinds() -> str:
    return " ".join(sorted(KNOWN))
