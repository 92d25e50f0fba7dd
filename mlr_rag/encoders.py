"""What turns texts into vectors: the Encoder protocol, and wrappers that bring other models under it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mlr_rag.documents import check_text
from mlr_rag.errors import InvalidDocumentError, InvalidInputError, InvalidQueryError, UnsupportedModelError

Vectors = npt.NDArray[np.float32]


@runtime_checkable
class Encoder(Protocol):
    """What a retriever needs of a model. `MLRModel` is one.

    Optional: `remote`, True where encoding waits for a server; `vectors_per_document` (1), `identity()` (parts of the
    fingerprint to name in a mismatch), `name`, and `stream` with `return_cut`, as in `MLRModel`, which let `add` write
    each batch as soon as it is encoded and count the texts that were cut.
    """

    @property
    def dimension(self) -> int:
        """D, the length of the vectors."""

    @property
    def fingerprint(self) -> str:
        """Equal for models that give equal vectors; "" where that cannot be told."""

    def encode_query(self, inputs: Any) -> Any:
        """Unit vectors of queries, `(n, D)` float32."""

    def encode_document(self, inputs: Any) -> Any:
        """Unit vectors of documents, `(n, D)` float32, or `(n, m, D)`."""


@dataclass(frozen=True)
class Batch:
    """Some texts of a window: their indices, their unit vectors `(b, D)` or `(b, m, D)`, and how many were cut."""

    indices: Sequence[int]
    vectors: Vectors
    cut: int


class SentenceTransformerEncoder:
    """Any SentenceTransformer, as it is."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.dimension = int(model.get_embedding_dimension())
        self.name = str(getattr(getattr(model[0], "config", None), "_name_or_path", "") or type(model[0]).__name__)

    @property
    def device(self) -> Any:
        """Where it computes."""
        return self._model.device

    @property
    def fingerprint(self) -> str:
        """See MLRModel."""
        from mlr_rag.model.identity import fingerprint

        return fingerprint(self._model)

    def identity(self) -> dict[str, Any]:
        """See MLRModel."""
        from mlr_rag.model.identity import identity

        return identity(self._model)

    def encode_query(self, inputs: Any) -> Vectors:
        """See Encoder."""
        return _unit(self._model.encode_query(list(inputs), show_progress_bar=False))

    def encode_document(self, inputs: Any) -> Vectors:
        """See Encoder."""
        return _unit(self._model.encode_document(list(inputs), show_progress_bar=False))

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many documents are longer than the model reads; 0 where it has no tokenizer that could tell."""
        tokenizer, limit = self._model.tokenizer, self._model.max_seq_length
        if limit is None or not hasattr(tokenizer, "is_fast"):
            return 0
        prompt = prompt_of(self._model, "document")
        tokens = tokenizer([prompt + text for text in texts], truncation=False, padding=False, verbose=False)
        return sum(len(row) > limit for row in tokens["input_ids"])


class EmbeddingsEncoder:
    """LangChain's Embeddings. Their passport rests on the canaries alone.

    Attributes:
        embeddings: Themselves.
    """

    fingerprint = ""
    remote = True  # it may be

    def __init__(self, embeddings: Any) -> None:
        self.embeddings = embeddings
        self.dimension = len(self._queries(["dimension"])[0])
        self.name = str(
            getattr(embeddings, "model_name", None) or getattr(embeddings, "model", None) or type(embeddings).__name__
        )

    def encode_query(self, inputs: Any) -> Vectors:
        """See Encoder."""
        return self._checked(self._queries, list(inputs))

    def encode_document(self, inputs: Any) -> Vectors:
        """See Encoder."""
        return self._checked(self._documents, list(inputs))

    def _queries(self, texts: list[str]) -> list[Any]:
        return [self.embeddings.embed_query(text) for text in texts]

    def _documents(self, texts: list[str]) -> list[Any]:
        return list(self.embeddings.embed_documents(texts))

    def _checked(self, encode: Callable[[list[str]], list[Any]], texts: list[str]) -> Vectors:
        rows = encode(texts)
        if len(rows) != len(texts):
            raise UnsupportedModelError(
                f"{self.name} gave another number of vectors than of texts", found=len(rows), expected=len(texts)
            )
        return _unit(rows)


class LlamaIndexEncoder(EmbeddingsEncoder):
    """LlamaIndex's BaseEmbedding, beneath its cache, which tells no queries from documents and no models apart."""

    def _queries(self, texts: list[str]) -> list[Any]:
        return [self.embeddings._get_query_embedding(text) for text in texts]

    def _documents(self, texts: list[str]) -> list[Any]:
        size = self.embeddings.embed_batch_size
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return [vector for part in parts for vector in self.embeddings._get_text_embeddings(part)]


def as_encoder(model: Any) -> Encoder:
    """The model itself, or wrapped: an Encoder, a SentenceTransformer, LangChain's or LlamaIndex's embeddings.

    Embeddings that do nothing but show an encoder give it back as `mlr_rag_encoder`.

    Raises:
        InvalidInputError: it is none of these.
    """
    if hasattr(model, "fingerprint") and hasattr(model, "encode_query") and hasattr(model, "encode_document"):
        encoder: Encoder = model
        return encoder
    if hasattr(model, "encode_query") and hasattr(model, "get_embedding_dimension"):
        return SentenceTransformerEncoder(model)
    shown: Encoder | None = getattr(model, "mlr_rag_encoder", None)
    if shown is not None:
        return shown
    if hasattr(model, "embed_query") and hasattr(model, "embed_documents"):
        return EmbeddingsEncoder(model)
    if hasattr(model, "_get_query_embedding") and hasattr(model, "_get_text_embeddings"):
        return LlamaIndexEncoder(model)
    raise InvalidInputError(
        "not a model",
        found=type(model).__name__,
        expected="a name or folder, an MLRModel, a SentenceTransformer, or embeddings of LangChain or LlamaIndex",
    )


def open_encoder(model: Any, recipe: dict[str, Any] | None = None) -> Encoder:
    """`as_encoder`, where the model may also be a name or a folder; the default model for None."""
    if model is None:
        from mlr_rag.model.names import DEFAULT_MODEL

        model = DEFAULT_MODEL
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        from mlr_rag.model import MLRModel

        return MLRModel.open(model, **(recipe or {}))
    return as_encoder(model)


def stream_documents(encoder: Encoder, texts: Sequence[str], size: int = 64) -> Iterator[Batch]:
    """Encode documents batch by batch: by the encoder's own `stream` where it has one, else `size` at a time."""
    stream = getattr(encoder, "stream", None)
    if stream is not None:
        yield from stream(texts)
        return
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        count_cut: Callable[[Sequence[str]], int] = getattr(encoder, "count_cut", lambda _: 0)
        vectors = np.asarray(encoder.encode_document(part), np.float32)
        yield Batch(range(start, start + len(part)), vectors, count_cut(part))


def encode_both(encoder: Encoder, texts: Sequence[str]) -> tuple[Vectors, Vectors]:
    """The texts as queries and as documents, without a word about those that are cut."""
    options: dict[str, Any] = {"return_cut": True} if hasattr(encoder, "stream") else {}
    encoded = [encode(list(texts), **options) for encode in (encoder.encode_query, encoder.encode_document)]
    queries, documents = (np.asarray(vectors[0] if options else vectors, np.float32) for vectors in encoded)
    return queries, documents


def check_single(encoder: Encoder) -> Encoder:
    """The encoder, refused where it gives several vectors a document, for interfaces that carry one."""
    several = vectors_per_document(encoder)
    if several > 1:
        raise UnsupportedModelError(
            f"{name_of(encoder)} gives several vectors a document",
            found=several,
            expected="1",
            remedy="Use Retriever, and its as_langchain() or as_llama_index(), which encode by themselves.",
        )
    return encoder


def query_vectors(encoder: Encoder, texts: Any) -> list[list[float]]:
    """Unit vectors of queries as lists of floats, for other libraries.

    Raises:
        InvalidQueryError: one is blank, or no text.
    """
    return _lists(encoder.encode_query, texts, "a query", InvalidQueryError)


def document_vectors(encoder: Encoder, texts: Any) -> list[list[float]]:
    """Unit vectors of documents as lists of floats, for other libraries.

    Raises:
        InvalidDocumentError: one is blank, or no text.
    """
    return _lists(encoder.encode_document, texts, "a document", InvalidDocumentError)


def _lists(encode: Callable[[Any], Any], texts: Any, what: str, error: type[InvalidInputError]) -> list[list[float]]:
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise error("no list of texts", found=texts, expected="a list")
    listed = list(texts)
    for text in listed:
        check_text(text, what, error)
    lists: list[list[float]] = np.asarray(encode(listed), np.float32).tolist() if listed else []
    return lists


def prompt_of(model: Any, task: str) -> str:
    """What a SentenceTransformer puts before a query or a document, by its own rules; "" for nothing."""
    prompts: dict[str, str | None] = getattr(model, "prompts", None) or {}
    for name in ("query",) if task == "query" else ("document", "passage", "corpus"):
        if name in prompts:
            return prompts[name] or ""
    return prompts.get(getattr(model, "default_prompt_name", None) or "") or ""


def vectors_per_document(encoder: Encoder) -> int:
    """1 unless the encoder says otherwise."""
    return int(getattr(encoder, "vectors_per_document", 1))


def name_of(encoder: Encoder) -> str:
    """The encoder's name, to show."""
    return str(getattr(encoder, "name", "") or type(encoder).__name__)


def identity_of(encoder: Encoder) -> tuple[str, dict[str, Any]]:
    """Its fingerprint, hashed afresh where it can be, and the parts that tell in a mismatch what differs."""
    identity = getattr(encoder, "identity", None)
    if identity is None:
        return encoder.fingerprint, {"dimension": encoder.dimension, "fingerprint": encoder.fingerprint}
    from mlr_rag.model.identity import digest

    parts: dict[str, Any] = identity()
    return digest(parts), parts


def _unit(vectors: Any) -> Vectors:
    rows = np.asarray(vectors, np.float32)
    unit: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return unit
