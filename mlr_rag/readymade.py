"""Vectors that come ready-made from outside: brought to unit length, and compared with what the model makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlr_rag.admission import Pair
from mlr_rag.documents import Document
from mlr_rag.encoders import name_of, stream_documents
from mlr_rag.errors import InvalidInputError, ModelMismatchError
from mlr_rag.stores import Vector


def unit_rows(vectors: Any, shape: tuple[int, ...]) -> Vector:
    """The vectors as float32 unit rows of a shape.

    Raises:
        ModelMismatchError: they have another length.
        InvalidInputError: they have another shape, or one is zero or not finite.
    """
    try:
        rows = np.asarray(vectors, np.float64)
    except (TypeError, ValueError, RuntimeError):  # torch raises the last, for a tensor that requires a gradient
        lengths = {len(row) for row in vectors if isinstance(row, list)} if isinstance(vectors, list) else set()
        raise InvalidInputError(
            "no vectors",
            found=f"rows of {sorted(lengths)} numbers" if len(lengths) > 1 else vectors,
            expected=f"numbers, of shape {shape}",
            remedy="Of a tensor take .detach().cpu().float().numpy().",
        ) from None
    if 0 in shape and not rows.size:
        return np.empty(shape, np.float32)
    if rows.ndim == len(shape) and rows.shape[-1] != shape[-1]:
        raise ModelMismatchError(
            "vectors of another length than this collection's",
            found=rows.shape[-1],
            expected=shape[-1],
            remedy="Encode with this collection's own model.",
        )
    if rows.shape != shape:
        raise InvalidInputError("vectors of another shape than is needed", found=rows.shape, expected=shape)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise InvalidInputError("a vector has no direction", found="zero, NaN or infinity", expected="finite numbers")
    unit: Vector = (rows / norms).astype(np.float32)
    return unit


def check_query_vector(pair: Pair, vector: Vector, text: str) -> None:
    """Refuse a query's vector that the model would not have made of its text.

    Raises:
        ModelMismatchError: names the cosine of the two.
    """
    made = np.asarray(pair.encoder.encode_query([text]), np.float32)
    also = " A vector that stands for other texts too, such as an imagined answer, is one to pass without its text."
    _check(pair, f"the query {text!r:.60}", float(made[0] @ vector), also)


def check_document_vectors(pair: Pair, given: Sequence[tuple[Document, Vector]]) -> None:
    """Refuse documents' vectors that the model would not have made of their texts; the first and the last are asked.

    Raises:
        ModelMismatchError: names the document and the cosine of the two.
    """
    asked = [given[index] for index in sorted({0, len(given) - 1})] if given else []
    for batch in stream_documents(pair.encoder, [document.text for document, _ in asked]):
        for index, made in zip(batch.indices, batch.vectors, strict=True):
            document, row = asked[index]
            cosine = (np.atleast_2d(made) * np.atleast_2d(row)).sum(axis=-1).min()
            _check(pair, f"document {document.id!r:.60}", float(cosine))


def _check(pair: Pair, what: str, cosine: float, also: str = "") -> None:
    if not cosine >= pair.passport.tolerance:
        raise ModelMismatchError(
            f"the vector of {what} was not made by the model of {pair.store.url}",
            found=f"a cosine of {cosine:.4f} to {name_of(pair.encoder)}'s own",
            expected=f"{pair.passport.tolerance} or more",
            remedy=f"Encode with this collection's own model, queries as queries and documents as documents.{also}",
        )
