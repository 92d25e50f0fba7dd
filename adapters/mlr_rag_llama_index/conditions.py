"""LlamaIndex's metadata filters in our filter language, and those that it cannot say, by reading every document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from mlr_rag import filters as own
from mlr_rag.errors import InvalidFilterError
from mlr_rag.retriever import Retriever

Predicate: TypeAlias = Callable[[Mapping[str, Any]], bool]

_NAMES = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$contains",
}
_MANY = {FilterOperator.ANY: "$or", FilterOperator.ALL: "$and"}
_READ = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE, FilterOperator.IS_EMPTY)


def search_options(
    retriever: Retriever, filters: MetadataFilters | Mapping[str, Any] | None, ids: list[str] | None = None
) -> dict[str, Any]:
    """The options of `Retriever.search` for filters and ids that must both hold.

    `text_match`, `text_match_insensitive` and `is_empty` read every document of the collection, once.

    Raises:
        InvalidFilterError: a filter compares with what it cannot.
    """
    if filters is None or isinstance(filters, Mapping):
        return {"filter": filters, "ids": ids}
    if not isinstance(filters, (MetadataFilters, MetadataFilter)):
        raise InvalidFilterError("no filters", found=filters, expected="MetadataFilters, or a dict")
    if not _must_read(filters):
        return {"filter": translate(filters), "ids": ids}
    among, satisfies = None if ids is None else set(ids), predicate(filters)
    found = [
        record.document.id
        for batch in retriever.store.scan(batch=2048)
        for record in batch
        if (among is None or record.document.id in among) and satisfies(record.document.metadata)
    ]
    return {"filter": None, "ids": found}


def everything(filters: MetadataFilters | Mapping[str, Any] | None) -> bool:
    """Whether every document satisfies the filters, whatever its metadata."""
    if isinstance(filters, (MetadataFilters, MetadataFilter)):
        return not _must_read(filters) and own.constant(own.parse(translate(filters))) is True
    return own.constant(own.parse(filters)) is True


def predicate(filters: MetadataFilters | MetadataFilter | Mapping[str, Any] | None) -> Predicate:
    """Whether metadata satisfies the filters, as a function."""
    if isinstance(filters, MetadataFilters) and _must_read(filters):
        parts = [predicate(part) for part in filters.filters]
        if filters.condition == FilterCondition.NOT:
            return lambda metadata: not any(part(metadata) for part in parts)
        joined = any if filters.condition == FilterCondition.OR else all
        return lambda metadata: joined(part(metadata) for part in parts)
    if isinstance(filters, MetadataFilter) and filters.operator in _READ:
        return _reading(filters)
    parsed = own.parse(translate(filters) if isinstance(filters, (MetadataFilters, MetadataFilter)) else filters)
    return lambda metadata: own.matches(parsed, metadata)


def _reading(filter: MetadataFilter) -> Predicate:
    key, wanted = filter.key, filter.value
    if filter.operator == FilterOperator.IS_EMPTY:
        return lambda metadata: metadata.get(key) in (None, "", [])
    if not isinstance(wanted, str):
        raise InvalidFilterError(f"{filter.operator.value} for {key!r}", found=wanted, expected="a text")
    folded = str.casefold if filter.operator == FilterOperator.TEXT_MATCH_INSENSITIVE else str
    wanted = folded(wanted)
    return lambda metadata: isinstance(metadata.get(key), str) and wanted in folded(metadata[key])


def translate(filters: MetadataFilters | MetadataFilter) -> dict[str, Any]:
    """The same in our filter language."""
    if isinstance(filters, MetadataFilters):
        parts = [translate(part) for part in filters.filters]
        if not parts:
            return {}  # whatever the condition: no filters
        if filters.condition == FilterCondition.NOT:
            return {"$not": {"$or": parts}}
        return {"$or" if filters.condition == FilterCondition.OR else "$and": parts}
    if filters.operator in _MANY:
        if not isinstance(filters.value, list):
            raise InvalidFilterError(
                f"{filters.operator.value} for {filters.key!r} does not hold a list",
                found=filters.value,
                expected="a list",
            )
        return {_MANY[filters.operator]: [{filters.key: {"$contains": value}} for value in filters.value]}
    return {filters.key: {_NAMES[filters.operator]: filters.value}}


def _must_read(filters: MetadataFilters | MetadataFilter) -> bool:
    if isinstance(filters, MetadataFilters):
        return any(_must_read(part) for part in filters.filters)
    return filters.operator in _READ
