"""Vectors of texts, kept by the weights that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlr_rag import progress
from mlr_rag.encoders import Encoder, Vectors, name_of, vectors_per_document
from mlr_rag.errors import InvalidInputError, StoreCorruptError, UnsupportedModelError
from mlr_rag.training.cache import ContentCache, content_key

WINDOW = 512  # texts that are encoded, and kept, at once


class VectorCache:
    """Encodes each distinct text once, and keeps its vector under the encoder's fingerprint, the task and the text.

    The fingerprint covers the weights: a model that is trained further shares no vector with what it was before. What
    only queries go through does not move documents' vectors, and they are shared.

    Args:
        path: The file of a `ContentCache`, made where it is missing; other values may lie in it. None keeps nothing
            from one call to the next.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._content = None if path is None else ContentCache(path)

    def encode(self, encoder: Encoder, texts: Sequence[str], task: str, show_progress: bool | None = None) -> Vectors:
        """Unit vectors of the texts, in their order: `(n, D)` float32, or `(n, m, D)` of documents in several vectors.

        Each window of texts is kept as soon as it is encoded: what was killed goes on from there when it is run again.

        Args:
            encoder: See mlr_rag.encoders.
            texts: Any number; all of their vectors are held in memory.
            task: "query" or "document".
            show_progress: By default on a terminal, for more than one window.

        Raises:
            InvalidInputError: the encoder has no fingerprint, so nobody could tell its vectors from another's; it goes
                with a path of None only.
            UnsupportedModelError: the encoder's vectors are not of the shape that it tells, or not finite.
            StoreCorruptError: a vector that was kept is of another shape.
        """
        if self._content is not None and not encoder.fingerprint:
            raise InvalidInputError(
                f"{name_of(encoder)} has no fingerprint, so its vectors cannot be kept",
                expected="an MLRModel, or a SentenceTransformer",
                remedy="Pass no cache.",
            )
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        distinct = list(places)
        several = vectors_per_document(encoder)
        shape = (several, encoder.dimension) if several > 1 and task == "document" else (encoder.dimension,)
        vectors = np.empty((len(distinct), *shape), np.float32)
        unknown: list[str] = []
        for start in range(0, len(distinct), WINDOW):
            window = distinct[start : start + WINDOW]
            known = self._read(encoder, window, task, shape)
            for text, vector in known.items():
                vectors[places[text]] = vector
            unknown += [text for text in window if text not in known]
        unknown.sort(key=lambda text: (-len(text), text))  # so that texts of one batch are of like length
        quick = show_progress is None and len(unknown) <= WINDOW
        bar = progress.start("Encoding", len(unknown), False if quick else show_progress)
        try:
            for start in range(0, len(unknown), WINDOW):
                window = unknown[start : start + WINDOW]
                rows = _encoded(encoder, window, task, shape)
                self._write(encoder, window, task, rows)
                vectors[[places[text] for text in window]] = rows
                bar.update(len(window))
        finally:
            bar.close()
        return vectors if len(distinct) == len(texts) else vectors[[places[text] for text in texts]]

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._content is not None:
            self._content.close()

    def __enter__(self) -> VectorCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, encoder: Encoder, texts: Sequence[str], task: str, shape: tuple[int, ...]) -> dict[str, Vectors]:
        if self._content is None:
            return {}
        keys = _keys(encoder, texts, task)
        found = self._content.get_many(keys)
        return {
            text: _vector(found[key], shape, self._content.path)
            for text, key in zip(texts, keys, strict=True)
            if key in found
        }

    def _write(self, encoder: Encoder, texts: Sequence[str], task: str, vectors: Vectors) -> None:
        if self._content is not None:
            rows = (row.astype("<f4").tobytes() for row in vectors)
            self._content.put_many(dict(zip(_keys(encoder, texts, task), rows, strict=True)))


def _keys(encoder: Encoder, texts: Sequence[str], task: str) -> list[bytes]:
    fingerprint = encoder.fingerprint  # asked once a window: a model's takes most of a millisecond
    if task == "document":
        fingerprint = getattr(encoder, "document_fingerprint", fingerprint)
    return [content_key("vector", fingerprint, task, text) for text in texts]


def _vector(value: bytes, shape: tuple[int, ...], path: Path | None) -> Vectors:
    if len(value) != 4 * np.prod(shape):
        raise StoreCorruptError(
            f"a vector in {path} is of another shape than the model gives",
            found=f"{len(value):,} bytes",
            expected=f"{' x '.join(map(str, shape))} float32",
            remedy="Delete the file: what it held is encoded again.",
        )
    return np.frombuffer(value, "<f4").reshape(shape)


def _encoded(encoder: Encoder, texts: Sequence[str], task: str, shape: tuple[int, ...]) -> Vectors:
    encode = encoder.encode_query if task == "query" else encoder.encode_document
    vectors = np.asarray(encode(list(texts)), np.float32)
    if vectors.shape != (len(texts), *shape):
        raise UnsupportedModelError(
            f"{name_of(encoder)} gave vectors of another shape than it tells",
            found=vectors.shape,
            expected=(len(texts), *shape),
        )
    broken = ~np.isfinite(vectors).reshape(len(texts), -1).all(1)
    if broken.any():
        raise UnsupportedModelError(
            f"{name_of(encoder)} gave a vector that is not finite",
            found=f"NaN or infinity for {texts[int(broken.argmax())]!r:.80}",
            expected="numbers",
            remedy="Check the model's weights; training in half precision may have broken them.",
        )
    return vectors
