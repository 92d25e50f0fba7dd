"""What goes in and what comes out: Document and Hit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mlr_rag.errors import InvalidDocumentError

Metadata: TypeAlias = dict[str, Any]
MAX_ID_LENGTH = 4096

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True)
class Document:
    """A text to retrieve, with an id and JSON metadata.

    Args:
        text: What is encoded and returned; not blank.
        id: Any string of 1 to 4,096 characters; by default a hash of text and metadata, so that adding the
            same document again changes nothing.
        metadata: JSON values under string keys; comes back exactly as it went in.

    Raises:
        InvalidDocumentError: for a value that could not be stored exactly in every store.
    """

    text: str
    id: str = ""
    metadata: Metadata = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text(self.text, "a document's text")
        if not isinstance(self.metadata, Mapping):
            raise InvalidDocumentError(
                "metadata is not a mapping", found=self.metadata, expected="a dict of JSON values"
            )
        try:
            object.__setattr__(self, "metadata", _json_copy(self.metadata, "metadata"))
        except RecursionError:
            raise InvalidDocumentError("metadata is nested too deeply", expected="a few levels") from None
        if self.id == "":
            object.__setattr__(self, "id", self.content_hash)
        check_id(self.id)

    @classmethod
    def stored(cls, text: str, id: str, metadata: Metadata) -> Document:
        """A document as a store holds it: it was checked when it was written, and is not checked again."""
        document = object.__new__(cls)
        document.__dict__.update(text=text, id=id, metadata=metadata)
        return document

    def __hash__(self) -> int:
        return hash((self.id, self.content_hash))

    @property
    def content_hash(self) -> str:
        """128 bits of SHA-256 over text and metadata, in hex."""
        return hashlib.sha256(_canonical([self.text, self.metadata]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Hit:
    """A retrieved document and its score: the cosine to the query, in [-1, 1], higher is better."""

    document: Document
    score: float


def beginning(text: str, length: int) -> str:
    """The first words of a text, on one line, to show."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[:length].rsplit(" ", 1)[0] + " ..."


def check_text(text: Any, what: str, error: type[InvalidDocumentError] | Any = InvalidDocumentError) -> None:
    """Refuse what is not a storable, encodable text."""
    if not isinstance(text, str):
        raise error(f"{what} is not a string", found=f"{type(text).__name__} {text!r:.80}", expected="str")
    if not text.strip():
        raise error(f"{what} is blank", found=text, expected="at least one visible character", remedy="Leave it out.")
    _check_storable(text, what, error)


def check_id(id: Any) -> None:
    """Refuse what cannot be an id."""
    if not isinstance(id, str):
        raise InvalidDocumentError(
            "an id is not a string", found=f"{type(id).__name__} {id!r:.80}", expected="str", remedy="Use str(id)."
        )
    if not 1 <= len(id) <= MAX_ID_LENGTH:
        raise InvalidDocumentError(
            "an id has an impossible length",
            found=f"{len(id):,} characters",
            expected=f"1 to {MAX_ID_LENGTH:,}",
            remedy="Use a hash of the long name, and keep the name in the metadata.",
        )
    _check_storable(id, "an id", InvalidDocumentError)


def check_ids(ids: Any) -> list[str]:
    """An id, or several, as a list; what cannot be one is refused."""
    if not isinstance(ids, Iterable) or isinstance(ids, (bytes, Mapping)):
        raise InvalidDocumentError("no ids", found=f"{type(ids).__name__} {ids!r:.80}", expected="an id, or a list")
    listed = [ids] if isinstance(ids, str) else list(ids)
    for id in listed:
        check_id(id)
    return listed


def _check_storable(text: str, what: str, error: Any) -> None:
    if "\0" in text:
        raise error(
            f"{what} holds a NUL character",
            found=f"NUL at {text.index(chr(0)):,} in {text!r:.80}",
            expected="text",
            remedy="Remove it with text.replace('\\0', '').",
        )
    check_characters(text, what, error)


def check_characters(text: str, what: str, error: Any) -> None:
    """Refuse a string that no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise error(
            f"{what} holds half of a character (a lone surrogate)",
            found=f"{text[problem.start]!r} at {problem.start:,}",
            expected="text that can be written as UTF-8",
            remedy="Repair it with text.encode('utf-8', 'replace').decode().",
        ) from None


def _json_copy(value: Any, where: str) -> Any:
    """A deep copy of a JSON value; the place and the value are named where it is none."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_storable(value, where, InvalidDocumentError)
        return str.__str__(value)  # what an Enum of strings stands for, not its name
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidDocumentError(f"{where} is too large", found=value, expected="64 bits", remedy="Use str().")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidDocumentError(
                f"{where} is not a finite number", found=value, expected="a finite number", remedy="Use None."
            )
        return float(value)
    if isinstance(value, list):
        return [_json_copy(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidDocumentError(f"a key of {where} is not a string", found=key, expected="str")
            _check_storable(key, f"a key of {where}", InvalidDocumentError)
        return {str(key): _json_copy(item, f"{where}[{key!r:.40}]") for key, item in value.items()}
    raise InvalidDocumentError(
        f"{where} is not a JSON value",
        found=f"{type(value).__name__} {value!r:.80}",
        expected="None, bool, int, float, str, list or dict",
        remedy="Convert it: list(tuple), date.isoformat(), number.item().",
    )
