"""The filter language as Qdrant conditions, exactly: keywords in one array, and ranges on floats."""

from __future__ import annotations

from qdrant_client import models

from mlr_rag import tokens
from mlr_rag.filters import Cmp, Filter

TOKENS = "tokens"
NUMBERS = "numbers"
TENANT = "tenant"


def translate(filter: Filter | None, tenant: str | None = None) -> models.Filter | None:
    """A Filter that matches just what `mlr_rag.filters.matches` does, of one tenant, or None for everything."""
    parts = [] if filter is None else [_condition(filter)]
    if tenant is not None:
        parts.append(models.FieldCondition(key=TENANT, match=models.MatchValue(value=tenant)))
    if len(parts) == 1 and isinstance(parts[0], models.Filter):
        return parts[0]
    return models.Filter(must=parts) if parts else None


def number_field(key: str) -> str:
    """The payload field that ranges on a metadata field look at: what an index of it is made on."""
    return f"{NUMBERS}.{tokens.field_name(key)}"


def _condition(filter: Filter) -> models.Condition:
    if isinstance(filter, Cmp):
        return _comparison(filter)
    parts = [_condition(part) for part in filter.parts]
    if filter.op == "and":
        return models.Filter(must=parts)
    if filter.op == "not":
        return models.Filter(must_not=parts)
    # An empty `should` is no condition at all; "one of nothing" must match nothing.
    return models.Filter(should=parts) if parts else _holds([])


def _comparison(cmp: Cmp) -> models.Condition:
    match cmp.op:
        case "exists":
            present = _holds([tokens.exists_token(cmp.key)])
            return present if cmp.value else models.Filter(must_not=[present])
        case "eq" | "in":
            return _holds(_equal_tokens(cmp))
        case "ne" | "nin":
            return models.Filter(must_not=[_holds(_equal_tokens(cmp))])
        case "contains":
            return _holds([tokens.contains_token(cmp.key, cmp.value)])
    return models.FieldCondition(key=number_field(cmp.key), range=models.Range(**{cmp.op: float(cmp.value)}))


def _equal_tokens(cmp: Cmp) -> list[str]:
    values = cmp.value if cmp.op in ("in", "nin") else [cmp.value]
    return [tokens.equal_token(cmp.key, value) for value in values]


def _holds(wanted: list[str]) -> models.Condition:
    """The tokens hold one of these: one condition however many, as local mode pays for each with every point."""
    if not wanted:
        return models.HasIdCondition(has_id=[])
    if len(wanted) == 1:
        return models.FieldCondition(key=TOKENS, match=models.MatchValue(value=wanted[0]))
    return models.FieldCondition(key=TOKENS, match=models.MatchAny(any=wanted))
