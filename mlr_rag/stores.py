"""Where vectors live: the VectorStore protocol, finding stores by URL, and the checks that stores share."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidInputError, MissingExtraError, ModelMismatchError, StoreNotFoundError
from mlr_rag.filters import Filter

Vector: TypeAlias = npt.NDArray[np.float32]
Info: TypeAlias = dict[str, Any]

ENTRY_POINTS = "mlr_rag.stores"


@dataclass(frozen=True)
class Record:
    """A stored document, and its unit vector `(D,)` or unit rows `(m, D)`; None where vectors were not asked for."""

    document: Document
    vector: Vector | None = None


@dataclass(frozen=True)
class Match:
    """A record that a query found, and its score: the cosine, in [-1, 1]."""

    record: Record
    score: float


@runtime_checkable
class VectorStore(Protocol):
    """What a retriever needs of a store. Every store passes the same conformance suite, `mlr_rag.testing`.

    Vectors are unit vectors and a score is their dot product; with several vectors a document, the largest one.
    All methods may be called from any thread. All raise `StoreClosedError` after `close`.

    A collection may have several generations side by side, numbered from 1, each with its own shape, description and
    records; one of them is current, and is what the URL opens. A store object is a handle on one generation, and
    stays with it whatever becomes current: so a search never meets vectors of another model.

    Optional: `remote`, True where queries wait for a server, and then `aquery`, a `query` that does not block the event
    loop; and `identity` (see `identity_of`).

    Attributes:
        url: What opens the collection again; the same for all its generations. Holds no credentials.
        dimension: Length of the vectors.
        vectors_per_document: How many each document has.
        generation: The one that this object reads and writes.
    """

    url: str
    dimension: int
    vectors_per_document: int
    generation: int

    @property
    def info(self) -> Info | None:
        """What `write_info` last wrote: the collection's own description, passport included."""

    def write_info(self, info: Info) -> None:
        """Replace the description, durably."""

    def upsert(self, records: Sequence[Record]) -> None:
        """Write the records, durably; a record with a known id replaces the old one whole.

        Nothing is written if one of them is unfit. A large call may be written in parts, each whole or not at all.
        """

    def get(self, ids: Sequence[str], with_vectors: bool = False) -> list[Record]:
        """The records with these ids, in the order asked for; missing ones are left out."""

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """The content hash of each of these ids that is present."""

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None) -> int:
        """Delete by ids or by filter, exactly one of them; returns how many there were."""

    def query(self, vector: Vector, k: int, filter: Filter | None = None, with_vectors: bool = False) -> list[Match]:
        """The k records nearest to a `(D,)` unit vector, sorted by (-score, id)."""

    def count(self, filter: Filter | None = None) -> int:
        """How many records there are."""

    def scan(
        self, filter: Filter | None = None, batch: int = 256, with_vectors: bool = False
    ) -> Iterator[list[Record]]:
        """Every record once, in batches, in no promised order."""

    def generations(self) -> list[int]:
        """Which generations of the collection there are, ascending."""

    def current(self) -> int:
        """The generation that the URL opens, asked of the store at every call, as another process may switch it."""

    def beside(self, generation: int, dimension: int | None = None, vectors_per_document: int = 1) -> VectorStore:
        """A handle of its own on another generation of the same collection, made where `dimension` is given.

        Raises:
            StoreNotFoundError: it is not there, and no dimension was given.
            ModelMismatchError: it is there in another shape than was given.
        """

    def switch(self, generation: int) -> None:
        """Make another generation the current one: durably, and at once for everyone.

        Raises:
            StoreNotFoundError: there is no such generation; nothing was changed.
        """

    def drop(self) -> None:
        """Delete this generation and close; the current one takes the whole collection with it."""

    def close(self) -> None:
        """Release files and locks; calling it again does nothing."""


class StoreFactory(Protocol):
    """What an entry point in `mlr_rag.stores` names: the scheme is the entry point's name."""

    def open(self, location: str, *, dimension: int | None, vectors_per_document: int = 1) -> VectorStore:
        """Open, or create where `dimension` is given, the collection at the part of the URL after `scheme:`."""


def split_url(url: str) -> tuple[str, str]:
    """Scheme and location: a plain path is a folder of the edge store."""
    scheme, colon, location = url.partition(":")
    if not colon or len(scheme) == 1 or "/" in scheme or "\\" in scheme:  # a path, or a Windows drive
        return "edge", url
    return scheme, location


def open_store(url: str, *, dimension: int | None = None, vectors_per_document: int = 1) -> VectorStore:
    """The store that a URL names: `./kb`, `memory:`, `qdrant://host:6333/name`, `chroma:./dir/name` and so on.

    Without a `dimension` the collection must exist.

    Raises:
        InvalidInputError: no store has this scheme.
        MissingExtraError: its package is not installed.
    """
    scheme, location = split_url(url)
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if scheme not in found:
        schemes = ", ".join(sorted(found))
        raise InvalidInputError(
            "no store for this URL", found=f"{scheme}:", expected=f"a path, or one of {schemes} before a colon"
        )
    try:
        factory: StoreFactory = found[scheme].load()
    except ImportError as problem:
        raise MissingExtraError(
            f"{scheme}: needs a package that is not installed",
            found=f"no {problem.name}",
            remedy=f"pip install 'mlr-rag[{scheme.partition('+')[0]}]'",
        ) from problem
    return factory.open(location, dimension=dimension, vectors_per_document=vectors_per_document)


def check_vectors(records: Sequence[Record], dimension: int, vectors_per_document: int = 1) -> None:
    """Refuse records whose vectors are not unit vectors of the store's shape."""
    expected = (dimension,) if vectors_per_document == 1 else (vectors_per_document, dimension)
    for record in records:
        if record.vector is None or record.vector.shape != expected:
            raise InvalidInputError(
                f"the vector of document {record.document.id!r:.60} has another shape than the collection",
                found=None if record.vector is None else record.vector.shape,
                expected=expected,
            )
    if records:
        norms = np.linalg.norm(stacked(records), axis=-1).reshape(len(records), -1)
        wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-3).all(axis=1))
        if len(wrong):
            raise InvalidInputError(
                f"the vector of document {records[wrong[0]].document.id!r:.60} is not a unit vector",
                found=f"norm {norms[wrong[0]].tolist()}",
                expected="norm 1",
                remedy="The model gave zero or NaN for this text; check its weights and the text.",
            )


def check_dimension(dimension: int | None, vectors_per_document: int) -> None:
    """Refuse to make what no vector fits; a dimension of None makes nothing."""
    if (dimension is not None and dimension < 1) or vectors_per_document < 1:
        raise InvalidInputError(
            "not a shape of vectors",
            found=f"{dimension} dimensions, {vectors_per_document} vector(s) a document",
            expected="1 or more of each",
        )


def check_shape(where: str, found: tuple[int, int], wanted: tuple[int | None, int]) -> None:
    """Refuse to open what holds vectors of another shape: (dimension, vectors per document); a dimension of None fits.

    Raises:
        ModelMismatchError: names both.
    """
    if wanted[0] is not None and found != wanted:
        raise ModelMismatchError(
            f"{where} holds vectors of another shape than the model gives",
            found=f"{found[0]} dimensions, {found[1]} vector(s) a document",
            expected=f"{wanted[0]} dimensions, {wanted[1]} vector(s) a document",
            remedy="Open it with the model that it was made with, or index into another collection.",
        )


def is_in_memory(url: str) -> bool:
    """Whether what a URL opens is gone when it is closed, or with this process."""
    return split_url(url)[0] == "memory" or split_url(url)[1].startswith(":memory:")


def identity_of(store: VectorStore) -> Hashable:
    """What two handles have in common only if they are on one collection: its URL, unless the store knows better."""
    identity: Hashable = getattr(store, "identity", store.url)
    return identity


def check_current(store: VectorStore) -> None:
    """Refuse to have written to what a migration has left behind; asked after a write.

    Raises:
        ModelMismatchError: another handle, or another process, switched the collection to another generation.
    """
    current = store.current()
    if current != store.generation:
        raise ModelMismatchError(
            f"{store.url} was migrated to another model while it was open here",
            found=f"generation {store.generation}",
            expected=f"generation {current}, the current one",
            remedy="Open it again, and make the last call again: it changed only what was left behind.",
        )


def no_such_generation(store: VectorStore, generation: int) -> StoreNotFoundError:
    """What to raise for a generation that is not there."""
    return StoreNotFoundError(
        f"{store.url} has no generation {generation}",
        found=", ".join(map(str, store.generations())),
        expected="one of these",
        remedy="It was dropped, by prune(), or never made.",
    )


def stacked(records: Sequence[Record]) -> Vector:
    """The vectors of some records as one array."""
    return np.stack([np.asarray(record.vector, np.float32) for record in records])


def check_query(vector: Vector, dimension: int) -> None:
    """Refuse a query vector of another shape than the store's."""
    if vector.shape != (dimension,) or not np.isfinite(vector).all():
        found = f"{vector.shape}{'' if np.isfinite(vector).all() else ' with NaN or infinity'}"
        raise InvalidInputError("not a query vector", found=found, expected=f"({dimension},), finite")


def check_name(name: str) -> None:
    """Refuse a collection's name that not every server can take, so that any collection can be copied to any store."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,238}[A-Za-z0-9]", name) or ".." in name or "--" in name:
        raise InvalidInputError(
            "not a name for a collection",
            found=name,
            expected="3 to 240 letters, digits, '.', '_' and '-', a letter or digit first and last, no '..' or '--'",
        )


def check_one_of(ids: Sequence[str] | None, filter: Filter | None) -> None:
    """Refuse a delete that names nothing, or ids and a filter at once: never delete all by omission."""
    if (ids is None) == (filter is None):
        raise InvalidInputError(
            "delete needs ids or a filter, exactly one",
            found="neither" if ids is None else "both",
            expected="one",
            remedy="To delete everything, drop() the collection.",
        )


def sorted_matches(found: list[Match]) -> list[Match]:
    """Scores clipped to [-1, 1], best first, ties by id."""
    clipped = [Match(match.record, min(1.0, max(-1.0, match.score))) for match in found]
    return sorted(clipped, key=lambda match: (-match.score, match.record.document.id))
