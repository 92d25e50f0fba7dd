"""The passport of a collection: which model made its vectors, and whether another one may use them.

A passport holds a sha256 over everything that moves a model's vectors, and the vectors of a few canary sentences,
encoded as queries and as documents. On opening a collection:

    equal hash                                    the same model
    other hash, every canary agrees to 0.9999     equivalent: accepted, and noted (another container or dtype)
    only the query side differs, and every        accepted, and noted: the stored vectors are what the model would make,
      canary agrees as a document                   and only queries go another way; refused where nobody passed the
                                                    model and it was found by its name
    else                                          ModelMismatchError
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from mlr_rag import encoders
from mlr_rag.canaries import CANARIES, LONGEST
from mlr_rag.encoders import Encoder
from mlr_rag.errors import RESTORE, ModelMismatchError, StoreCorruptError

TOLERANCE = 0.9999
QUERY_SIDE = "query_side"  # the part of an identity that moves queries' vectors and no document's


@dataclass(frozen=True)
class Verdict:
    """How a model compares with a passport.

    Attributes:
        same: The hashes are equal.
        cosine: The lowest canary cosine, of documents alone for `queries_only`; None where the hashes made asking
            needless.
        differs: Which parts of the identity differ.
        accepted: Whether the model may use the collection.
        unseen: The lengths differ where no canary is long enough to tell, so nothing vouches for longer texts.
        queries_only: Nothing differs but the query side (see mlr_rag.model.sides), and it moves queries.
        lacks_query_side: The passport's model has a query side of its own, and this one has none.
    """

    same: bool
    cosine: float | None
    differs: tuple[str, ...]
    accepted: bool
    unseen: bool = False
    queries_only: bool = False
    lacks_query_side: bool = False

    @property
    def note(self) -> str:
        """What to tell about an accepted model that is not quite the same; "" for the same."""
        if self.same or not self.differs:
            return ""
        if self.queries_only:
            queries = "queries go another way, through a query side of their own"
            if self.lacks_query_side:
                queries = "the collection was last used with a query side that this model lacks"
            return (
                "accepted for its documents' side, which is the passport's (every canary agrees as a document, cosine "
                f"{self.cosine:.6f}); {queries}"
            )
        return (
            f"accepted as equivalent: differs from the passport in {', '.join(self.differs)}, "
            f"and every canary agrees (cosine {self.cosine:.6f})"
        )


class Passport(BaseModel):
    """Who made a collection's vectors. Written into the collection's description.

    Attributes:
        model: The model's name, to show and to open it again.
        digest: Its fingerprint; "" where it has none, and the canaries decide alone.
        parts: What the fingerprint is made of.
        recipe: What MLRModel.from_pretrained needs beside the name.
        tolerance: The canary cosine from which on another fingerprint is accepted.
        queries, documents: The canaries' vectors, float32, base64.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    model: str
    digest: str
    dimension: int
    vectors_per_document: int
    parts: dict[str, Any]
    recipe: dict[str, Any]
    tolerance: float
    queries: str
    documents: str

    @classmethod
    def issue(cls, encoder: Encoder, tolerance: float = TOLERANCE) -> Passport:
        """The passport of a model: hashes it, and encodes the canaries once as queries and once as documents."""
        digest, parts = encoders.identity_of(encoder)
        queries, documents = encoders.encode_both(encoder, CANARIES)
        return cls(
            model=encoders.name_of(encoder),
            digest=digest,
            dimension=encoder.dimension,
            vectors_per_document=encoders.vectors_per_document(encoder),
            parts=parts,
            recipe=getattr(encoder, "recipe", {}),
            tolerance=tolerance,
            queries=_pack(queries),
            documents=_pack(documents),
        )

    def compare(self, encoder: Encoder) -> Verdict:
        """Whether a model's vectors may be mixed with this passport's."""
        digest, parts = encoders.identity_of(encoder)
        names = self.parts.keys() | parts.keys()
        differs = tuple(sorted(name for name in names if self.parts.get(name) != parts.get(name)))
        shape = (encoder.dimension, encoders.vectors_per_document(encoder))
        if shape != (self.dimension, self.vectors_per_document):
            return Verdict(same=False, cosine=None, differs=differs, accepted=False)
        if self.digest and digest == self.digest:
            return Verdict(same=True, cosine=None, differs=(), accepted=True)
        queries, documents = encoders.encode_both(encoder, CANARIES)
        of_queries, of_documents = _lowest_cosine(self.queries, queries), _lowest_cosine(self.documents, documents)
        queries_only = differs == (QUERY_SIDE,) and of_queries < self.tolerance
        cosine = of_documents if queries_only else min(of_queries, of_documents)
        unseen = _beyond_the_canaries(self.parts, parts)
        accepted = cosine >= self.tolerance and not unseen
        return Verdict(
            same=False,
            cosine=cosine,
            differs=differs,
            accepted=accepted,
            unseen=unseen,
            queries_only=queries_only,
            lacks_query_side=QUERY_SIDE not in parts,
        )

    def with_queries_of(self, encoder: Encoder) -> Passport:
        """The passport of a model that differs in its query side alone; documents' canaries stay as they were."""
        return self.issue(encoder, self.tolerance).model_copy(update={"documents": self.documents})

    def admit(self, encoder: Encoder, where: str, by_name: bool = False) -> str:
        """Let a model use the collection, or refuse.

        Args:
            encoder: The model.
            where: The collection.
            by_name: Nobody passed the model: it is what the passport's name leads to.

        Returns:
            A note where it is not quite the same model, else "".

        Raises:
            ModelMismatchError: its vectors do not agree with the collection's, or it was found by name and sends
                queries another way than the collection's model.
        """
        verdict = self.compare(encoder)
        name, recipe = encoders.name_of(encoder), getattr(encoder, "recipe", {})
        if verdict.accepted and verdict.queries_only and by_name:
            raise ModelMismatchError(
                f"{where} was last used with a query side that the model of its passport's name does not have",
                found=_described(name, recipe, encoder.fingerprint),
                expected=_described(self.model, self.recipe, self.digest),
                remedy=f"Pass the adapted model: Retriever.open({where!r}, model). To have it found by name, save it, "
                "then reindex(MLRModel.load(folder)), which encodes nothing.",
            )
        if verdict.accepted:
            return verdict.note
        cosine = "another shape" if verdict.cosine is None else f"canary cosine {verdict.cosine:.4f}"
        if verdict.unseen:
            cosine += f", and another length that no canary of {LONGEST} tokens shows"
        raise ModelMismatchError(
            f"{where} was made with another model, which differs in {', '.join(verdict.differs) or 'its vectors'}",
            found=f"{_described(name, recipe, encoder.fingerprint)}, {cosine}",
            expected=f"{_described(self.model, self.recipe, self.digest)}, canary cosine >= {self.tolerance}",
            remedy=f"Open it with the model that it was made with ({self._way()}), "
            f"or move it to this one: Retriever.open({where!r}).reindex(model).",
        )

    def _way(self) -> str:
        if not self.digest:
            return f"{self.model}, which must be passed, as it comes from another library"
        return f"Retriever.open without a model finds it by name: {self._call()}"

    def _call(self) -> str:
        """The code that makes the passport's model, if it has not been trained since."""
        options = "".join(f", {name}={value!r}" for name, value in self.recipe.items())
        return f"MLRModel.from_pretrained({self.model!r}{options})" if self.recipe else repr(self.model)


def read_passport(info: Mapping[str, Any], where: str) -> Passport:
    """The passport in a collection's description.

    Raises:
        StoreCorruptError: it cannot be read.
    """
    try:
        passport = Passport.model_validate(info["passport"])
        shape = (-1, passport.vectors_per_document, passport.dimension)
        _unpack(passport.queries).reshape(-1, passport.dimension)
        _unpack(passport.documents).reshape(shape)
    except (ValueError, KeyError, TypeError) as problem:
        raise StoreCorruptError(
            f"the passport of {where} cannot be read",
            found=f"{type(problem).__name__} {problem!s:.120}",
            expected="what mlr_rag wrote",
            remedy=RESTORE,
        ) from problem
    return passport


def _beyond_the_canaries(parts: dict[str, Any], others: dict[str, Any]) -> bool:
    """Whether the lengths differ where no canary is long enough to tell."""
    lengths = [parts.get("max_length"), others.get("max_length")]
    known = [length for length in lengths if isinstance(length, int)]
    return lengths[0] != lengths[1] and (len(known) < 2 or min(known) >= LONGEST)


def _described(name: str, recipe: dict[str, Any], digest: str) -> str:
    layers = f" ({recipe['pooling']} of layers {', '.join(map(str, recipe['layers']))})" if recipe else ""
    return f"{name}{layers} [{digest[:12] or 'no fingerprint'}]"


def _pack(vectors: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()


def _unpack(packed: str) -> npt.NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(packed), "<f4")


def _lowest_cosine(packed: str, vectors: npt.NDArray[np.float32]) -> float:
    stored = _unpack(packed).astype(np.float64).reshape(vectors.shape)
    cosines = (stored * vectors).sum(-1) / np.linalg.norm(stored, axis=-1) / np.linalg.norm(vectors, axis=-1)
    return float(np.nan_to_num(cosines, nan=-1.0).min())
