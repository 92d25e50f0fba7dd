"""The filter language as Qdrant Edge conditions, exactly: keywords in one array, and ranges on floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qdrant_edge as qdrant

from mlr_rag import tokens
from mlr_rag.filters import Cmp, Filter

TOKENS = "tokens"
NUMBERS = "numbers"
_TIGHTEST: dict[str, Callable[[float, float], float]] = {"gt": max, "gte": max, "lt": min, "lte": min}


def translate(filter: Filter | None) -> Any:
    """A qdrant_edge Filter that matches just what `mlr_rag.filters.matches` does, or None."""
    if filter is None:
        return None
    condition = _condition(filter)
    return condition if isinstance(condition, qdrant.Filter) else qdrant.Filter(must=[condition])


def _condition(filter: Filter) -> Any:
    if isinstance(filter, Cmp):
        return _comparison(filter)
    if filter.op == "and":
        return qdrant.Filter(must=_all_of(filter.parts))
    parts = [_condition(part) for part in filter.parts]
    return qdrant.Filter(must_not=parts) if filter.op == "not" else _any_of(parts)


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
    return _range(cmp.key, [cmp])


def _all_of(parts: Sequence[Filter]) -> list[Any]:
    """Conditions that must all hold; the bounds of one field become one, as the engine looks at each for itself."""
    bounds: dict[str, list[Cmp]] = {}
    for part in parts:
        if isinstance(part, Cmp) and part.op in _TIGHTEST:
            bounds.setdefault(part.key, []).append(part)
    others = [_condition(part) for part in parts if not (isinstance(part, Cmp) and part.op in _TIGHTEST)]
    return others + [_range(key, cmps) for key, cmps in bounds.items()]


def _range(key: str, cmps: Sequence[Cmp]) -> Any:
    values: dict[str, float] = {}
    for cmp in cmps:
        value = float(cmp.value)
        values[cmp.op] = _TIGHTEST[cmp.op](values.get(cmp.op, value), value)
    return qdrant.FieldCondition(f"{NUMBERS}.{tokens.field_name(key)}", range=qdrant.RangeFloat(**values))


def _holds(token: str) -> Any:
    return qdrant.FieldCondition(TOKENS, match=qdrant.MatchValue(token))


def _any_of(parts: list[Any]) -> Any:
    # An empty `should` is no condition at all; "one of nothing" must match nothing.
    return qdrant.Filter(should=parts) if parts else qdrant.Filter(must=[qdrant.HasIdCondition(set())])
