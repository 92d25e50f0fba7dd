"""What a generated query is, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class GeneratedQuery:
    """A query that was made from a document, which is relevant to it.

    Attributes:
        text: The query.
        document: The id of the document.
        kind: How it was made, such as "question" or "title".
        passage: What to train on in place of the document's text: the text without what the query was taken from;
            None where the text stays whole.
    """

    text: str
    document: str
    kind: str
    passage: str | None = None


@dataclass(frozen=True)
class GeneratedQueries:
    """Generated queries, and how many were left out.

    Attributes:
        queries: In the order in which they were made.
        dropped: Reason → how many queries, replies or documents it cost.
    """

    queries: tuple[GeneratedQuery, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
