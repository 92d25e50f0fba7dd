"""Collections in the BEIR layout: corpus.jsonl, queries.jsonl, qrels/<split>.tsv, in a folder or a zip archive."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidInputError, MlrRagError

_DAMAGE = (OSError, EOFError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError)
Open = Callable[[str], IO[bytes]]


@dataclass(frozen=True)
class Collection:
    """Documents, queries, and the judgments of one split.

    Attributes:
        name: The folder's or archive's name.
        split: Which judgments these are: "test", "dev", "train".
        queries: The text of each query that has a positive judgment.
        qrels: The judgments of these queries: query id → document id → grade.
    """

    name: str
    split: str
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    _open: Open

    @classmethod
    def load(cls, path: str | Path, split: str = "test") -> Collection:
        """Read queries and judgments; the corpus is read when it is asked for. An archive is not unpacked.

        Raises:
            InvalidInputError: names the file, and the line, that is missing or broken.
        """
        open = _opener(Path(path))
        qrels = {
            query: grades
            for query, grades in _judgments(open, f"qrels/{split}.tsv").items()
            if any(grade > 0 for grade in grades.values())
        }
        if not qrels:
            raise InvalidInputError(f"{path}: no query has a positive judgment", found=f"qrels/{split}.tsv")
        queries = {id: value["text"] for id, value in _objects(open, "queries.jsonl") if id in qrels}
        missing = sorted(qrels.keys() - queries.keys())
        if missing:
            raise InvalidInputError(
                f"{path}: judged queries are missing from queries.jsonl",
                found=f"{len(missing):,} missing, such as {missing[0]}",
                expected=f"all queries of qrels/{split}.tsv",
            )
        return cls(Path(path).resolve().stem, split, queries, qrels, open)

    @classmethod
    def unjudged(cls, path: str | Path) -> Collection:
        """The documents alone, of the split "" without queries.

        Raises:
            InvalidInputError: there is no collection.
        """
        return cls(Path(path).resolve().stem, "", {}, {}, _opener(Path(path)))

    @staticmethod
    def splits(path: str | Path) -> list[str]:
        """The splits that have judgments, sorted: the names of the files in qrels/.

        Raises:
            InvalidInputError: there is no collection.
        """
        folder = Path(path)
        _opener(folder)
        if folder.is_dir():
            return sorted(file.stem for file in folder.glob("qrels/*.tsv"))
        with zipfile.ZipFile(folder) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
        home = next(name.parent for name in names if name.name == "corpus.jsonl")
        return sorted(name.stem for name in names if name.parent == home / "qrels" and name.suffix == ".tsv")

    @property
    def judgments(self) -> int:
        """How many judgments there are."""
        return sum(map(len, self.qrels.values()))

    def texts(self) -> Iterator[tuple[str, str]]:
        """The id and text of each document, in order: title and text with a space between, as BEIR does it.

        Raises:
            InvalidInputError: names the line that is broken.
        """
        for id, value in _objects(self._open, "corpus.jsonl"):
            yield id, f"{value.get('title') or ''} {value['text']}".replace("\0", "").strip()

    def documents(self) -> Iterator[Document]:
        """The documents to index; the blank ones that some collections hold are left out, as no model can find them."""
        for id, text in self.texts():
            if text:
                yield Document(text, id, {"collection": self.name})


def _objects(open: Open, member: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The id and object of each line."""
    expected = '{"_id": "...", "text": "..."}'
    for number, line in _lines(open, member):
        try:
            value = json.loads(line)
            id, text, title = value["_id"], value["text"], value.get("title")
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise InvalidInputError(
                f"{member} line {number:,} is broken", found=f"{type(problem).__name__} {problem}", expected=expected
            ) from None
        if not isinstance(id, (str, int)) or not isinstance(text, str) or not isinstance(title, (str, type(None))):
            raise InvalidInputError(f"{member} line {number:,} is broken", found=line.strip(), expected=expected)
        yield str(id), value


def _judgments(open: Open, member: str) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(open, member):
        cells = line.rstrip("\r\n").split("\t")
        if number == 1 and cells[-1].strip().lower() == "score":
            continue
        try:
            query, document, grade = cells
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise InvalidInputError(
                f"{member} line {number:,} is broken",
                found=line.strip(),
                expected="query-id, corpus-id, score, with tabs",
            ) from None
    return qrels


def _lines(open: Open, member: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, and their numbers."""
    try:
        with closing(open(member)) as file:
            for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), 1):
                if line.strip():
                    yield number, line
    except MlrRagError:
        raise
    except _DAMAGE as problem:
        raise InvalidInputError(
            f"{member} cannot be read", found=f"{type(problem).__name__} {problem}", expected="UTF-8 text, undamaged"
        ) from problem


def _opener(path: Path) -> Open:
    """How to open a member of a folder or an archive."""
    if path.is_dir():

        def from_folder(member: str) -> IO[bytes]:
            if not (path / member).is_file():
                raise _missing(path, member, sorted(item.name for item in path.rglob("*.*sv*")))
            return (path / member).open("rb")

        return from_folder
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except FileNotFoundError:
        raise InvalidInputError(f"no collection at {path}", expected="a folder or a zip archive") from None
    except _DAMAGE as problem:
        raise InvalidInputError(
            f"{path} is not a collection", found=str(problem), expected="a folder or a zip archive"
        ) from problem
    homes = {PurePosixPath(name).parent for name in names if PurePosixPath(name).name == "corpus.jsonl"}
    if len(homes) != 1:
        raise InvalidInputError(f"{path} is not one collection", found=f"{len(homes)} corpus.jsonl", expected="one")
    home = homes.pop()

    def from_archive(member: str) -> IO[bytes]:
        name = str(home / member)
        if name not in names:
            raise _missing(path, member, names)
        with zipfile.ZipFile(path) as archive:
            return archive.open(name)  # the archive's file stays open until the member is closed

    return from_archive


def _missing(path: Path, member: str, names: list[str]) -> InvalidInputError:
    splits = sorted(PurePosixPath(name).stem for name in names if name.endswith(".tsv"))
    remedy = f"There are the splits {', '.join(splits)}." if member.startswith("qrels") and splits else ""
    return InvalidInputError(
        f"{path} has no {member}", expected="corpus.jsonl, queries.jsonl, qrels/<split>.tsv", remedy=remedy
    )
