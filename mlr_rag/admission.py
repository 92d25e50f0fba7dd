"""Letting a model use a store: the passport is compared, or issued where there is none yet."""

from __future__ import annotations

import logging
import threading
from typing import Any
from uuid import uuid4

from mlr_rag.encoders import Encoder, name_of, open_encoder, vectors_per_document
from mlr_rag.errors import InvalidInputError, ModelMismatchError, StoreError, UnsupportedModelError
from mlr_rag.filters import is_number
from mlr_rag.passport import Passport, read_passport
from mlr_rag.stores import VectorStore, check_current

logger = logging.getLogger(__name__)

COPYING = "copying"  # in the description of a copy that is not finished
COLLECTION = "collection"  # a random name in it, which tells a collection from another one at the same place

_ADMITTING = threading.Lock()


class Pair:
    """A model, and a store whose passport has admitted it.

    Args:
        encoder: The model; None for the one in the store's passport, found by its name.
        store: One generation of a collection.
        tolerance: The canary cosine for the passport of a new collection.
        passport: What the store is about to get, for a model that it has admitted already; by default what it has.

    Attributes:
        passport: The store's.
        note: What was said of a model that is not quite the one in the passport; "" otherwise.

    Raises:
        ModelMismatchError: the store's vectors are not this model's.
    """

    def __init__(
        self, encoder: Encoder | None, store: VectorStore, tolerance: float, passport: Passport | None = None
    ) -> None:
        by_name = encoder is None
        self.encoder = open_encoder(*_recorded_model(store)) if encoder is None else encoder
        self.store = store
        self.passport, self.note = (passport, "") if passport else admit(self.encoder, store, tolerance, by_name)
        self._fingerprint = self.encoder.fingerprint
        self._warn()

    def check_model(self) -> None:
        """Refuse to go on with a model whose weights or settings have changed since the last check."""
        if self.encoder.fingerprint == self._fingerprint:
            return
        self.note = self.passport.admit(self.encoder, self.store.url)
        self._fingerprint = self.encoder.fingerprint
        self._warn()

    def check_written(self) -> None:
        """Refuse to have written to what is not this model's any more; asked after each write.

        Raises:
            ModelMismatchError: another handle, or another process, switched the collection to another generation, or
                dropped it and made it again with another model.
        """
        check_current(self.store)
        passport = read_passport(self.store.info or {}, self.store.url)
        if passport.documents != self.passport.documents:
            raise ModelMismatchError(
                f"{self.store.url} was made again with another model while it was open here",
                found=passport.model,
                expected=self.passport.model,
                remedy="Open it again. What was just written has the wrong vectors: add it again with that model.",
            )

    def _warn(self) -> None:
        if self.note:
            logger.warning("%s: %s", self.store.url, self.note)


def admit(encoder: Encoder, store: VectorStore, tolerance: float, by_name: bool) -> tuple[Passport, str]:
    """The store's passport, and a note where the model is not quite the one in it; see `Passport.admit`.

    Raises:
        ModelMismatchError: the store's vectors are not this model's.
        StoreCorruptError: the passport cannot be read.
    """
    with _ADMITTING:  # else two threads could give one new collection two passports
        return _admit_alone(encoder, store, tolerance, by_name)


def _admit_alone(encoder: Encoder, store: VectorStore, tolerance: float, by_name: bool) -> tuple[Passport, str]:
    if not is_number(tolerance) or not -1 <= tolerance <= 1:
        raise InvalidInputError("tolerance is not a cosine", found=tolerance, expected="a number in [-1, 1]")
    if store.info is not None:
        return _admitted(encoder, store, by_name)
    shape = encoder.dimension, vectors_per_document(encoder)
    expected = store.dimension, store.vectors_per_document
    if shape != expected:
        raise ModelMismatchError(
            f"{name_of(encoder)} gives vectors of another shape than {store.url} holds",
            found=f"{shape[0]} dimensions, {shape[1]} vector(s) a document",
            expected=f"{expected[0]} dimensions, {expected[1]} vector(s) a document",
            remedy="Make the store with the model's dimension and vectors_per_document.",
        )
    if store.count():
        raise ModelMismatchError(
            f"{store.url} holds vectors, but no passport that says which model made them",
            found="no passport",
            expected="a collection made by mlr_rag",
            remedy="Index the documents again into a new collection.",
        )
    passport = Passport.issue(encoder, tolerance)
    if not passport.digest and not passport.compare(encoder).accepted:
        raise UnsupportedModelError(
            f"{name_of(encoder)} gives other vectors each time it is asked",
            found=f"canaries that differ by more than {tolerance} allows",
            expected="equal vectors for equal texts",
            remedy="Switch off what is random in it, such as dropout: model.eval().",
        )
    if store.info is None:  # another process may have been quicker
        store.write_info({"passport": passport.model_dump(), COLLECTION: uuid4().hex})
    return _admitted(encoder, store, by_name, passport)


def _admitted(
    encoder: Encoder, store: VectorStore, by_name: bool, issued: Passport | None = None
) -> tuple[Passport, str]:
    """Compare with the store's passport, unless it is the one that was just issued to this encoder."""
    info = store.info or {}
    if info.get(COPYING):
        raise StoreError(
            f"{store.url} is an unfinished copy",
            found=f"{store.count():,} documents so far",
            expected="a whole collection",
            remedy="Run the same copy again: it goes on where it was.",
        )
    passport = read_passport(info, store.url)
    return passport, "" if passport == issued else passport.admit(encoder, store.url, by_name)


def collection_id(store: VectorStore) -> str:
    """What tells a collection from any other, whatever model it has by now; its URL where it was made without."""
    return str((store.info or {}).get(COLLECTION) or store.url)


def _recorded_model(store: VectorStore) -> tuple[str | None, dict[str, Any]]:
    """The name and recipe in a collection's passport; None for the default model where there is none yet."""
    if store.info is None:
        return None, {}
    passport = read_passport(store.info, store.url)
    return passport.model, passport.recipe
