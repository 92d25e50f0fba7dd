"""Every form of a corpus, as passages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mlr_rag.documents import Document, check_id, check_text
from mlr_rag.errors import DuplicateIdError, InvalidInputError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.reading import Notes, read
from mlr_rag.reading.files import LINES, TABLES
from mlr_rag.specializing.lines import broken, json_lines
from mlr_rag.specializing.paths import Paths, folders_of
from mlr_rag.training.mining.building import normalized

Passage: TypeAlias = tuple[str, str, str, str]  # id, text, parent, path of the file that the parent is, within its root

_FORMS = "a folder, a BEIR folder or zip, a .jsonl file, texts or Documents, or an open Retriever"
_LINE = '{"_id": "...", "title": "...", "text": "..."}, of which only the text is needed'


def read_corpus(corpus: Any, model: Any, notes: Counter[str]) -> tuple[dict[str, str], dict[str, str], Paths]:
    """The text and the parent of each document, by id, less the blank ones; and what paths mean there.

    Raises:
        InvalidInputError: see read_material.
        DuplicateIdError: two documents that differ have one id.
    """
    texts: dict[str, str] = {}
    parents: dict[str, str] = {}
    files: dict[str, dict[str, list[str]]] = {}
    for id, text, parent, path in _passages(corpus, model, notes):
        if isinstance(text, str) and not text.strip():
            notes["blank documents"] += 1
            continue
        check_id(id)
        check_text(text, f"the text of document {id!r:.60}")
        if texts.setdefault(id, text) != text:
            raise DuplicateIdError(
                "two different documents have one id", found=id, expected="an id of its own for each"
            )
        if id in parents:
            notes["documents that came twice"] += 1
        elif path:
            files.setdefault(path, {}).setdefault(parent, []).append(id)
        parents[id] = parent
    _check(texts, notes)
    return texts, parents, Paths(files, Path(corpus) if isinstance(corpus, (str, Path)) else None)


def is_collection(path: Path) -> bool:
    """Whether it is a collection in the BEIR layout, by its name or by what lies in it."""
    return path.suffix.lower() == ".zip" or (path / "corpus.jsonl").is_file()


def _check(texts: Mapping[str, str], notes: Counter[str]) -> None:
    expected = "2 different documents or more"
    if not texts:
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in sorted(notes.items()) if count)
        raise InvalidInputError(
            "the corpus is empty", found=left_out or None, expected=expected, remedy="Check what you passed as corpus."
        )
    if len(texts) == 1:
        raise InvalidInputError(
            "the corpus is one document",
            found=next(iter(texts)),
            expected=expected,
            remedy="Nothing can be mined in it.",
        )
    if len({normalized(text) for text in texts.values()}) == 1:
        raise InvalidInputError("all documents say the same", found=f"{len(texts):,} duplicates", expected=expected)


def _passages(corpus: Any, model: Any, notes: Counter[str]) -> Iterator[Passage]:
    if isinstance(corpus, (str, Path)):
        return _of_path(Path(corpus), model, notes)
    if hasattr(corpus, "store") and hasattr(corpus, "search_many"):
        return (_of_document(record.document) for batch in corpus.store.scan() for record in batch)
    if isinstance(corpus, Mapping):
        return ((id, text, id, "") for id, text in corpus.items())
    if isinstance(corpus, Iterable) and not isinstance(corpus, bytes):
        return _of_items(corpus, notes)
    raise InvalidInputError("no corpus", found=type(corpus).__name__, expected=_FORMS)


def _of_items(items: Iterable[Any], notes: Counter[str]) -> Iterator[Passage]:
    for place, item in enumerate(items):
        if isinstance(item, Document):
            yield _of_document(item)
        elif not isinstance(item, str):
            raise InvalidInputError(f"item {place:,} of the corpus is not a text", found=item, expected=_FORMS)
        elif item.strip():
            yield _of_document(Document(item))
        else:
            notes["blank documents"] += 1


def _of_document(document: Document) -> Passage:
    """Its parent is the file that it was read from; of a file of lines or rows, the line or row; else itself."""
    id, text = document.id, document.text
    root, path, chunk = (document.metadata.get(name) for name in ("root", "path", "chunk"))
    if not isinstance(path, str):
        return id, text, id, ""
    if Path(path).suffix.lower() in LINES | TABLES:
        return id, text, id.removesuffix(f"#{chunk}") if chunk else id, ""
    alone = id == f"{root}#{chunk}"  # the root is the file
    return id, text, str(root) if alone else f"{root or ''}/{path}", path


def _of_path(path: Path, model: Any, notes: Counter[str]) -> Iterator[Passage]:
    if not path.exists():
        raise InvalidInputError(f"nothing to read at {path}", expected=_FORMS, remedy="Check the path.")
    if is_collection(path):
        return ((id, text, id, "") for id, text in Collection.unjudged(path).texts())
    if path.suffix.lower() in LINES:
        return _of_lines(path)
    if model is None:
        raise InvalidInputError(
            f"{path} cannot be cut into passages", found="no model", expected="the model whose tokenizer says where"
        )
    return _of_files(path, model, notes)


def _of_lines(path: Path) -> Iterator[Passage]:
    for place, value in json_lines(path, _LINE):
        text, title, id = value.get("text"), value.get("title") or "", value.get("_id", value.get("id"))
        if not isinstance(text, str) or not isinstance(title, str) or not isinstance(id, (str, int, type(None))):
            raise broken(place, value, _LINE)
        whole = f"{title} {text}".replace("\0", "").strip()
        name = str(id) if id is not None else Document(whole).id if whole else ""
        yield name, whole, name, ""


def _of_files(path: Path, model: Any, notes: Counter[str]) -> Iterator[Passage]:
    """Under names within the folder, so that nothing but the ids of rows depends on where it lies."""
    told, (folder, _) = Notes(), folders_of(path)
    for document in read(path, model, notes=told):
        id, text, parent, name = _of_document(document)
        yield id.removeprefix(folder), text, parent.removeprefix(folder), name
    for reason, names in told.skipped.items():
        notes[f"files: {reason}"] += len(names)
