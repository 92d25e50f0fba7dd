"""MLREmbedding: a model as LlamaIndex's BaseEmbedding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import Field, PrivateAttr, field_serializer

from mlr_rag.encoders import Encoder, check_single, document_vectors, name_of, open_encoder, query_vectors
from mlr_rag.errors import InvalidInputError, ModelMismatchError
from mlr_rag.frameworks import check_options
from mlr_rag.searching import turn_for

_Lists = list[list[float]]


class QueryVector(list[float]):
    """A query's vector that remembers which model made it, so that a store need not encode the query again to see."""

    made_by: Encoder | None = None  # itself, as asking for a fingerprint takes about a millisecond

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy is a list without it: the model is not copied along


class MLREmbedding(BaseEmbedding):
    """A model's vectors: queries always encoded as queries, texts of nodes as documents.

    Args:
        model: A name or folder, an MLRModel, any SentenceTransformer, or an encoder; by default
            sentence-transformers/all-MiniLM-L6-v2.
        embeddings_cache: A KVStore of LlamaIndex. Queries, documents and models are kept apart in it, which
            LlamaIndex itself does not; so the attribute of that name is None, whatever it is set to.
        options: Other fields of BaseEmbedding.

    Attributes:
        model_name: The model's name.
        recipe: What makes an MLRModel of it again.
        fingerprint: The model's, hashed afresh whenever this is serialised: LlamaIndex keys its caches by that. A
            model that has none gets a random one, so that it shares a cache with no other.

    Raises:
        UnsupportedModelError: the model gives several vectors a document, which these interfaces cannot carry.
        ModelMismatchError: `fingerprint` was given, as when this is made of a serialised one, and is not the model's.
    """

    recipe: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = ""

    _encoder: Encoder = PrivateAttr()
    _cache: Any = PrivateAttr(default=None)
    _unknown: str = PrivateAttr(default="")

    def __init__(self, model: Any = None, *, embeddings_cache: Any = None, **options: Any) -> None:
        check_options(options, (*type(self).model_fields, "class_name"), "MLREmbedding", "its fields")
        expected, recipe = options.pop("fingerprint", ""), options.pop("recipe", {})
        named = options.pop("model_name", None)
        encoder = check_single(open_encoder(named, recipe) if model is None else open_encoder(model))
        options.setdefault("embed_batch_size", 256)
        super().__init__(model_name=name_of(encoder), **options)
        self._encoder, self._unknown = encoder, f"unknown {uuid4()}"
        self.embeddings_cache = embeddings_cache
        self.recipe, self.fingerprint = getattr(encoder, "recipe", {}), self._current()
        if expected and expected != self.fingerprint:
            raise ModelMismatchError(
                f"{self.model_name} is not the model that this embedding was made with",
                found=self.fingerprint,
                expected=expected,
                remedy="Pass the model itself: MLREmbedding(model).",
            )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; a cache is kept where LlamaIndex's methods, which mix queries and documents, cannot see it."""
        if name != "embeddings_cache":
            return super().__setattr__(name, value)
        if value is not None and not hasattr(value, "put"):
            raise InvalidInputError("no cache", found=value, expected="a KVStore of llama_index.core")
        self._cache = value
        return None

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "MLREmbedding"

    @property
    def encoder(self) -> Encoder:
        """The model."""
        return self._encoder

    @property
    def mlr_rag_encoder(self) -> Encoder | None:
        """The model, for a Retriever to use as it is; a subclass may do more than show it."""
        return self._encoder if type(self) is MLREmbedding else None

    @field_serializer("fingerprint")
    def _serialized(self, _: str) -> str:
        return self._current()

    def __getstate__(self) -> dict[str, Any]:
        self.fingerprint = self._current()  # that of the model as it is now, should it have to be opened by its name
        state: dict[str, Any] = super().__getstate__()
        if "_encoder" not in state["__pydantic_private__"] and not self._encoder.fingerprint:
            raise TypeError(f"{self.model_name} cannot be pickled, nor be opened again by a name")
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        fields, private = dict(state["__dict__"]), state["__pydantic_private__"] or {}
        if "_encoder" in private:  # LlamaIndex leaves out what cannot be pickled
            del fields["fingerprint"], fields["recipe"], fields["model_name"]
            fields |= {"model": private["_encoder"], "embeddings_cache": private.get("_cache")}
        self.__init__(**fields)  # type: ignore[misc]

    def _current(self) -> str:
        return self._encoder.fingerprint or self._unknown

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """The mean of several queries' vectors, or what `agg_fn` makes of them."""
        if agg_fn is None and len(queries) == 1:
            return self.get_query_embedding(queries[0])
        return self._marked(super().get_agg_embedding_from_queries(queries, agg_fn))

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """`get_agg_embedding_from_queries`, without blocking the event loop."""
        if agg_fn is None and len(queries) == 1:
            return await self.aget_query_embedding(queries[0])
        return self._marked(await super().aget_agg_embedding_from_queries(queries, agg_fn))

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._marked(self._cached("query", [query], query_vectors)[0])

    async def _aget_query_embedding(self, query: str) -> list[float]:
        async with turn_for(self._encoder):
            return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> _Lists:
        return self._cached("document", texts, document_vectors)

    async def _aget_text_embeddings(self, texts: list[str]) -> _Lists:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def _cached(self, task: str, texts: list[str], encode: Callable[[Encoder, list[str]], _Lists]) -> _Lists:
        if self._cache is None:
            return encode(self._encoder, texts)
        self.fingerprint = self._current()
        collection = f"{task} {self.fingerprint}"
        known = {text: self._cache.get(text, collection=collection) for text in texts}
        missing = [text for text, found in known.items() if found is None]
        for text, vector in zip(missing, encode(self._encoder, missing), strict=True):
            known[text] = {"vector": vector}
            self._cache.put(text, known[text], collection=collection)
        return [known[text]["vector"] for text in texts]

    def _marked(self, vector: list[float]) -> QueryVector:
        marked = QueryVector(vector)
        marked.made_by = self._encoder
        return marked


def made_by_another(vector: list[float], encoder: Encoder) -> bool:
    """Whether a query's vector is known to be another encoder's; the embedding of another library is what it was."""
    made_by: Encoder | None = getattr(vector, "made_by", None)
    if made_by is None or getattr(made_by, "embeddings", made_by) is getattr(encoder, "embeddings", encoder):
        return False
    return not made_by.fingerprint or made_by.fingerprint != encoder.fingerprint


def text_to_check(vector: list[float], text: str | None, encoder: Encoder) -> str | None:
    """The text that a query's vector must agree with; None where the encoder is known to have made it, or no text is.

    Raises:
        ModelMismatchError: another model is known to have made it, and there is no text to see by.
    """
    made_by: Encoder | None = getattr(vector, "made_by", None)
    if made_by is None:
        return text or None
    if not made_by_another(vector, encoder):
        return None
    if not text:
        raise ModelMismatchError(
            "another model made this query's vector",
            found=name_of(made_by),
            expected=name_of(encoder),
            remedy="Encode queries with the collection's own model: embed_model=store.embed_model.",
        )
    return text
