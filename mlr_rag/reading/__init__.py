"""Reading: a file or a folder as documents, cut at the text's own boundaries to what the model reads.

kb = Retriever.open("./kb")
kb.sync(read("./docs", kb.model), within={"root": root_of("./docs")})
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlr_rag.documents import Document, Metadata, check_text
from mlr_rag.errors import InvalidDocumentError
from mlr_rag.reading.files import DAMAGED, Notes, Source, find_sources, printable
from mlr_rag.reading.formats import DamagedFileError, Section, check_extra, sections
from mlr_rag.reading.splitting import Splitter

__all__ = ["Notes", "read", "root_of"]


def root_of(path: str | Path) -> str:
    """The value of `metadata["root"]` in everything that `read(path)` yields."""
    return printable(Path(path).resolve().as_posix())


def read(
    path: str | Path, model: Any, *, exclude: str | Path | None = None, notes: Notes | None = None
) -> Iterator[Document]:
    """The documents in a file or folder, one file at a time, in sorted order; reading again gives the same ids.

    Metadata: `root`; `path`, within the root; `chunk`, its number in the file, line or row; `title` where one is known.
    Ids: the JSON line's own; for other JSON lines and CSV rows the file and a hash of the content; else the file and
    the chunk's number.

    Args:
        path: A file, or a folder, whose hidden files and unknown types are left out.
        model: Whose tokenizer and length decide where texts are cut: a SentenceTransformer.
        exclude: A folder to leave out, such as the collection's own.
        notes: Is told what was read and what was left out.

    Raises:
        InvalidInputError: there is nothing at the path, or a file cannot be opened.
        InvalidDocumentError: names the file and the line that is broken.
        MissingExtraError: a file needs a package that is not installed.
    """
    notes = Notes() if notes is None else notes
    sources = find_sources(Path(path), None if exclude is None else Path(exclude), notes)
    check_extra(sources)
    return _documents(root_of(path), Path(path).is_file(), sources, Splitter(model), notes)


def _documents(root: str, single: bool, sources: list[Source], splitter: Splitter, notes: Notes) -> Iterator[Document]:
    for source in sources:
        file, empty = root if single else f"{root}/{source.name}", True
        try:
            for section in sections(source, notes):
                for document in _split(section, file, {"root": root, "path": source.name}, splitter):
                    empty = False
                    yield document
        except DamagedFileError:
            notes.skip(source.name, DAMAGED)
            continue
        if empty:
            notes.skip(source.name, "without text")
        else:
            notes.files += 1


def _split(section: Section, file: str, place: Metadata, splitter: Splitter) -> Iterator[Document]:
    if not section.text.strip():
        return
    metadata = section.metadata | place
    if section.title:
        metadata["title"] = section.title
    try:
        check_text(section.text, "the text")
        whole = Document(section.text, section.id, metadata)
        first = section.id or (f"{file}#{whole.content_hash}" if section.row else f"{file}#0")
        for number, text in enumerate(splitter.split(section.text, markdown=section.markdown)):
            rest = f"{first}#{number}" if section.row else f"{file}#{number}"
            yield Document(text, rest if number else first, metadata | {"chunk": number})
    except InvalidDocumentError as problem:
        raise problem.at(section.place) from None
