"""The filter language as Qdrant Edge conditions, exactly: keywords in one array, and ranges on floats."""

from __future__ import annotations

from typing import Any

import qdrant_edge as qdrant

from mlr_rag import tokens
from mlr_rag.filters import Bool, Cmp, Filter

TOKENS = "tokens"
NUMBERS = "numbers"


def translate(filter: Filter | None) -> Any:
    """A qdrant_edge Filter that matches just what `mlr_rag.filters.matches` does, or None."""
    if filter is None:
        return None
    if isinstance(filter, Bool):
        parts = [translate(part) for part in filter.parts]
        if filter.op == "and":
            return qdrant.Filter(must=parts)
        if filter.op == "not":
            return qdrant.Filter(must_not=parts)
        return _any_of(parts)
    return _comparison(filter)


def _comparison(cmp: Cmp) -> Any:
    match cmp.op:
        case "exists":
            present = _holds(tokens.exists_token(cmp.key))
            return present if cmp.value else qdrant.Filter(must_not=[present])
        case "eq":
            return _holds(tokens.equal_token(cmp.key, cmp.value))
        case "ne":
            return qdrant.Filter(must_not=[_holds(tokens.equal_token(cmp.key, cmp.value))])
        case "in":
            return _any_of([_holds(tokens.equal_token(cmp.key, value)) for value in cmp.value])
        case "nin":
            return qdrant.Filter(must_not=[_holds(tokens.equal_token(cmp.key, value)) for value in cmp.value])
        case "contains":
            return _holds(tokens.contains_token(cmp.key, cmp.value))
    bounds = qdrant.RangeFloat(**{cmp.op: float(cmp.value)})
    return qdrant.Filter(must=[qdrant.FieldCondition(f"{NUMBERS}.{tokens.field_name(cmp.key)}", range=bounds)])


def _holds(token: str) -> Any:
    return qdrant.Filter(must=[qdrant.FieldCondition(TOKENS, match=qdrant.MatchValue(token))])


def _any_of(parts: list[Any]) -> Any:
    # An empty `should` is no condition at all; "one of nothing" must match nothing.
    return qdrant.Filter(should=parts) if parts else qdrant.Filter(must=[qdrant.HasIdCondition(set())])
