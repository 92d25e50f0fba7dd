"""Queries that are documents themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def may_find_itself(query: str, qrels: Mapping[str, Mapping[str, float]] | None) -> bool:
    """Whether a query may find the document that has its own id: only if that is judged relevant to it.

    In BEIR's ArguAna and Quora the queries are documents, and do not find themselves. Where the judgments ask for that
    very document, the two are only numbered alike.

    Args:
        query: Its id.
        qrels: Query id → document id → grade; above 0 is relevant. None where there are no judgments.
    """
    return (qrels or {}).get(query, {}).get(query, 0) > 0


def without_itself(
    query: str, ranking: Iterable[tuple[str, float]], depth: int, qrels: Mapping[str, Mapping[str, float]] | None
) -> dict[str, float]:
    """The first `depth` documents of a ranking and their scores, less what a query may not find (may_find_itself)."""
    itself = may_find_itself(query, qrels)
    return dict([hit for hit in ranking if itself or hit[0] != query][:depth])
