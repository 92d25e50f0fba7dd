"""Every error that mlr_rag raises on purpose.

MlrRagError
├── InvalidInputError (ValueError)        the caller's values
│   ├── InvalidDocumentError
│   │   └── DuplicateIdError
│   ├── InvalidQueryError
│   └── InvalidFilterError
├── ModelError                            the model
│   ├── ModelNotFoundError
│   ├── UnsafeModelError
│   ├── UnsupportedModelError
│   └── ModelMismatchError                this collection was made by another model
├── StoreError                            the collection and its disk
│   ├── StoreNotFoundError
│   ├── StoreLockedError
│   ├── StoreCorruptError
│   ├── StoreFullError
│   ├── StoreClosedError
│   ├── StoreUnavailableError             a server that cannot be reached, or stopped answering
│   └── StoreDeniedError                  a server that did not accept the credentials
├── TrainingError                         a training run that cannot go on
│   ├── TeacherError                      a teacher that failed, or gave what are no scores
│   └── LanguageModelError                a language model that failed, or gave what are no queries
└── MissingExtraError (ImportError)       an optional dependency
"""

from __future__ import annotations

import reprlib
from typing import Any

RESTORE = "Restore the folder from a copy, or delete it and index again."  # what there is to do about damage

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


class MlrRagError(Exception):
    """Base of them all: says what was found, what was expected and what to do next.

    Attributes:
        found: The offending value, or what was met in its place.
        expected: What would have been right.
        remedy: What to do next.
    """

    def __init__(self, problem: str, *, found: Any = None, expected: Any = None, remedy: str = "") -> None:
        self.problem, self.found, self.expected, self.remedy = problem, found, expected, remedy
        facts = []
        if found is not None:
            facts.append(f"found {_shown(found)}")
        if expected is not None:
            facts.append(f"expected {_shown(expected)}")
        sentence = problem if not facts else f"{problem}: {', '.join(facts)}"
        super().__init__(f"{sentence}. {remedy}".strip() if remedy else sentence)

    def at(self, place: str) -> MlrRagError:
        """The same error, saying where."""
        return _rebuild(type(self), f"{place}: {self.problem}", self.found, self.expected, self.remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.problem, self.found, self.expected, self.remedy)


class InvalidInputError(MlrRagError, ValueError):
    """A value that the caller passed cannot be used; nothing was changed."""


class InvalidDocumentError(InvalidInputError):
    """A document's text, id or metadata cannot be stored."""


class DuplicateIdError(InvalidDocumentError):
    """One call holds two different documents with one id."""


class InvalidQueryError(InvalidInputError):
    """A query, or a parameter of a search, cannot be used."""


class InvalidFilterError(InvalidInputError):
    """A filter is not in the filter language (see mlr_rag.filters)."""


class ModelError(MlrRagError):
    """Something about the model."""


class ModelNotFoundError(ModelError):
    """No model of that name is on this machine or can be fetched."""


class UnsafeModelError(ModelError):
    """Loading the model would run code from its folder (pickle, remote code)."""


class UnsupportedModelError(ModelError):
    """The model's architecture or modules cannot give multi-layer representations."""


class ModelMismatchError(ModelError):
    """The collection's vectors were made by a model that this one does not agree with."""


class StoreError(MlrRagError):
    """Something about the collection or the disk under it."""


class StoreNotFoundError(StoreError):
    """There is no collection there."""


class StoreLockedError(StoreError):
    """Another process has the collection open."""


class StoreCorruptError(StoreError):
    """The collection's files are not what they should be."""


class StoreFullError(StoreError):
    """The disk has no room for the write, which was not begun."""


class StoreClosedError(StoreError):
    """The retriever or store was closed."""


class StoreUnavailableError(StoreError):
    """A server cannot be reached or stopped answering; the call may be made again."""


class StoreDeniedError(StoreError):
    """A server did not accept the credentials."""


class TrainingError(MlrRagError):
    """A training run cannot go on; what was done so far is kept."""


class TeacherError(TrainingError):
    """A teacher failed or gave what are no scores; none of it is kept, and all that it scored before is.

    Attributes:
        scores: What a teacher that raises it has of the scores that it was asked for, `(n,)`, NaN where it has none;
            a ScoreCache keeps them.
    """

    scores: Any = None


class LanguageModelError(TrainingError):
    """A language model failed or wrote what are no queries; what it replied before is kept."""


class MissingExtraError(MlrRagError, ImportError):
    """A feature needs a package that is not installed."""


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= 200 and value.isprintable() else _SHORT.repr(value)


def _rebuild(cls: type[MlrRagError], problem: str, found: Any, expected: Any, remedy: str) -> MlrRagError:
    return cls(problem, found=found, expected=expected, remedy=remedy)
