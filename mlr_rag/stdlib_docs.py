"""The documentation inside Python's standard library: docstrings, found by reading the source, not by importing it."""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlr_rag.documents import Document

ROOT = "python standard library"
WORDS = 80  # a longer docstring is cut after the paragraph or sentence that reaches it
_LEAST_WORDS = 4  # less says no more than the name
# What is cut to hundreds of tokens and answers no question: examples (to the next blank line), and lines of signs.
_EXAMPLES = re.compile(r"^[ \t]*>>>.*?(?:\n[ \t]*(?=\n)|\Z)", re.MULTILINE | re.DOTALL)
_RULES = re.compile(r"^[^\w\n]+\n", re.MULTILINE)
# Tests, programs and other people's code; and distutils, which Python 3.12 no longer has.
_LEFT_OUT = {
    "__phello__", "distutils", "dist-packages", "encodings", "ensurepip", "idlelib", "lib-dynload", "lib2to3",
    "pydoc_data", "site-packages", "test", "tests", "turtledemo",
}  # fmt: skip


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: str
    doc: str


def collect(root: Path | None = None) -> list[Document]:
    """A document for every public module, class and function with a docstring, sorted by name.

    Args:
        root: The library's folder; by default this Python's own.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    entries = {entry.name: entry for path in _modules(root) for entry in _entries(path, _dotted(path, root))}
    version = ".".join(map(str, sys.version_info[:2]))
    return [
        Document(
            f"{entry.name}: {shorten(entry.doc)}",
            f"python:{entry.name}",
            {"root": ROOT, "path": entry.name, "kind": entry.kind, "python": version},
        )
        for entry in sorted(entries.values(), key=lambda entry: entry.name)
    ]


def shorten(doc: str, words: int = WORDS) -> str:
    """The paragraphs, or sentences of the first one, that fit into so many words; at least one sentence."""
    if len(doc.split()) <= words:
        return doc
    kept = ""
    for paragraph in doc.split("\n\n"):
        if len((kept + paragraph).split()) > words:
            break
        kept += paragraph + "\n\n"
    if kept:
        return kept.strip()
    first = doc.split("\n\n")[0].split()[:words]
    ends = [place for place, word in enumerate(first, 1) if word.endswith((".", "!", "?", ":"))]
    return " ".join(first[: ends[-1]] if ends else first)


def _modules(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        private = any(part.startswith("_") and part != "__init__.py" for part in parts)
        if not private and not _LEFT_OUT & {*parts[:-1], path.stem}:
            yield path


def _dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _entries(path: Path, module: str) -> Iterator[_Entry]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # some Pythons ship templates that are not code
        return
    yield from _documented(tree, module, "module")
    yield from _members(tree, module, "function")


def _members(node: ast.Module | ast.ClassDef, prefix: str, kind: str) -> Iterator[_Entry]:
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and child.name[0] != "_":
            name = f"{prefix}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from _documented(child, name, "class")
                yield from _members(child, name, "method")
            else:
                yield from _documented(child, name, kind)


def _documented(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str, kind: str
) -> Iterator[_Entry]:
    doc = ast.get_docstring(node) or ""
    doc = _RULES.sub("", _EXAMPLES.sub("", doc)).strip()
    if len(doc.split()) >= _LEAST_WORDS:
        yield _Entry(name, kind, doc.replace("\0", ""))
