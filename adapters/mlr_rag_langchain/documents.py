"""LangChain's Documents and ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from langchain_core.documents import Document as LangChainDocument

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidDocumentError


def from_langchain(documents: Iterable[LangChainDocument]) -> Iterator[Document]:
    """LangChain's Documents as ours; one without an id gets a hash of its content.

    Raises:
        InvalidDocumentError: names the document by its place.
    """
    for place, document in enumerate(_several(documents)):
        try:
            if not isinstance(document, LangChainDocument):
                raise InvalidDocumentError(
                    "not a LangChain Document", found=type(document).__name__, expected="langchain_core Document"
                )
            yield Document(document.page_content, document.id or "", document.metadata)
        except InvalidDocumentError as problem:
            raise problem.at(f"document {place:,}") from None


def to_langchain(document: Document) -> LangChainDocument:
    """A document of ours as LangChain's: the same text, id and metadata."""
    return LangChainDocument(document.text, id=document.id, metadata=document.metadata)


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


def _several(documents: Any) -> Iterable[Any]:
    if isinstance(documents, (str, LangChainDocument)) or not isinstance(documents, Iterable):
        raise InvalidDocumentError("no documents", found=type(documents).__name__, expected="a list of Documents")
    return documents
