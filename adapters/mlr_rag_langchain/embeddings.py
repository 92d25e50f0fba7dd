"""MLREmbeddings: a model as LangChain's Embeddings, for any vector store of theirs."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.embeddings import Embeddings

from mlr_rag.encoders import Encoder, check_single, document_vectors, name_of, open_encoder, query_vectors
from mlr_rag.searching import turn_for


class MLREmbeddings(Embeddings):
    """A model's vectors: queries always encoded as queries, documents as documents.

    Args:
        model: A name or folder, an MLRModel, any SentenceTransformer, or an encoder; by default
            sentence-transformers/all-MiniLM-L6-v2.

    Attributes:
        encoder: The model.
        model: Its name.

    Raises:
        UnsupportedModelError: the model gives several vectors a document, which these interfaces cannot carry.
    """

    def __init__(self, model: Any = None) -> None:
        self.encoder = check_single(open_encoder(model))
        self.model = name_of(self.encoder)

    @property
    def fingerprint(self) -> str:
        """The model's: the namespace for a cache of vectors; "" for embeddings of another library, which have none."""
        return self.encoder.fingerprint

    @property
    def mlr_rag_encoder(self) -> Encoder | None:
        """The model, for a Retriever to use as it is; a subclass may do more than show it."""
        return self.encoder if type(self) is MLREmbeddings else None

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of a query.

        Raises:
            InvalidQueryError: the text is blank, or no text.
        """
        return query_vectors(self.encoder, [text])[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The unit vectors of documents.

        Raises:
            InvalidDocumentError: a text is blank, or no text.
        """
        return document_vectors(self.encoder, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query`, without blocking the event loop."""
        async with turn_for(self.encoder):
            return await asyncio.to_thread(self.embed_query, text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents`, without blocking the event loop."""
        return await asyncio.to_thread(self.embed_documents, texts)

    def __repr__(self) -> str:
        return f"MLREmbeddings({self.model!r})"
