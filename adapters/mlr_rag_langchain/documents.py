"""LangChain's Documents and ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from langchain_core.documents import Document as LangChainDocument

from mlr_rag.documents import Document, Hit
from mlr_rag.errors import InvalidDocumentError
from mlr_rag.frameworks import converted


def from_langchain(documents: Iterable[LangChainDocument]) -> Iterator[Document]:
    """LangChain's Documents as ours; one without an id gets a hash of its content.

    Raises:
        InvalidDocumentError: names the document by its place.
    """
    return converted(documents, LangChainDocument, _document, "document", "LangChain Document")


def to_langchain(document: Document) -> LangChainDocument:
    """A document of ours as LangChain's: the same text, id and metadata."""
    return LangChainDocument(document.text, id=document.id, metadata=document.metadata)


def documents_of(hits: Iterable[Hit]) -> list[LangChainDocument]:
    """The documents of hits as LangChain's, in their order."""
    return [to_langchain(hit.document) for hit in hits]


def id_of(id: Any) -> str:
    """An id as we keep it: numbers and UUIDs as text."""
    if isinstance(id, (int, UUID)) and not isinstance(id, bool):
        return str(id)
    if not isinstance(id, str):
        raise InvalidDocumentError("not an id", found=f"{type(id).__name__} {id!r:.80}", expected="str, int or UUID")
    return id


def ids_of(ids: Any) -> list[str]:
    """An id, or several, as we keep them."""
    if isinstance(ids, (str, bytes, Mapping)) or not isinstance(ids, Iterable):
        return [id_of(ids)]
    return [id_of(id) for id in ids]


def _document(document: LangChainDocument) -> Document:
    return Document(document.page_content, document.id or "", document.metadata)
