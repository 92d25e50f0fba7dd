"""The filter language: what `filter=` means, on every store.

A filter is a dict. Each key is a metadata field, or `$and`, `$or` (lists of filters) or `$not` (a filter); entries of
one dict must all hold. A field's value is a plain value (equality) or a dict of operators:

    {"year": {"$gte": 2020, "$lt": 2024}, "$or": [{"lang": "en"}, {"tags": {"$contains": "draft"}}]}

    $eq $ne      equality with a string, number or bool: 1 == 1.0, but True != 1 and "1" != 1
    $in $nin     equality with any, or none, of a list; `$in []` matches nothing
    $gt $gte $lt $lte    numbers only, compared as 64-bit floats
    $contains    the field is a list that holds the value
    $exists      the field is there and is not None

A missing field, or None, makes every comparison false; `$ne` and `$nin` are negations, so it satisfies them.
Equality does not look into lists: that is `$contains`. Values inside nested dicts cannot be filtered on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

from mlr_rag.errors import InvalidFilterError

Scalar: TypeAlias = str | int | float | bool
Filter: TypeAlias = "Cmp | Bool"

_EQUALITY = ("eq", "ne", "contains")
_RANGE = ("gt", "gte", "lt", "lte")
_LIST = ("in", "nin")
OPERATORS = (*_EQUALITY, *_RANGE, *_LIST, "exists")


@dataclass(frozen=True)
class Cmp:
    """One field compared with one value (a tuple for `in` and `nin`)."""

    key: str
    op: str
    value: Any


@dataclass(frozen=True)
class Bool:
    """`and`, `or` or `not` of other filters; `not` has one part, an empty `and` matches everything."""

    op: Literal["and", "or", "not"]
    parts: tuple[Filter, ...]


def parse(filter: Mapping[str, Any] | None) -> Filter | None:
    """The parsed filter, or None where there is nothing to filter by.

    Raises:
        InvalidFilterError: names the part that is not in the language.
    """
    if filter is None:
        return None
    try:
        parsed = _parse(filter)
    except RecursionError:
        raise InvalidFilterError("a filter is nested too deeply", expected="a few levels") from None
    return None if parsed == Bool("and", ()) else parsed


def matches(filter: Filter | None, metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata satisfies the filter: the reference that every store must agree with."""
    if filter is None:
        return True
    if isinstance(filter, Bool):
        results = (matches(part, metadata) for part in filter.parts)
        if filter.op == "and":
            return all(results)
        return any(results) if filter.op == "or" else not next(results)
    value = metadata.get(filter.key)
    match filter.op:
        case "exists":
            return bool((value is not None) == filter.value)
        case "eq":
            return _equal(value, filter.value)
        case "ne":
            return not _equal(value, filter.value)
        case "in":
            return any(_equal(value, wanted) for wanted in filter.value)
        case "nin":
            return not any(_equal(value, wanted) for wanted in filter.value)
        case "contains":
            return isinstance(value, list) and any(_equal(item, filter.value) for item in value)
    if not is_number(value):
        return False
    found, bound = float(value), float(filter.value)  # type: ignore[arg-type]  # is_number has just said so
    if filter.op in ("gt", "gte"):
        return found > bound or (filter.op == "gte" and found == bound)
    return found < bound or (filter.op == "lte" and found == bound)


def constant(filter: Filter | None) -> bool | None:
    """True for a filter that every document satisfies, False for one that none does, None for any other.

    Sees through what programs make of missing parts, such as `{"$or": [{}]}` or `{"a": {"$nin": []}}`.
    """
    if filter is None:
        return True
    if isinstance(filter, Cmp):
        return {"in": False, "nin": True}.get(filter.op) if filter.value == () else None
    parts = {constant(part) for part in filter.parts}
    if filter.op == "not":
        (part,) = parts
        return None if part is None else not part
    ends = filter.op == "or"  # one such part decides
    if ends in parts:
        return ends
    return None if None in parts else not ends


def is_number(value: Any) -> bool:
    """An int or float; a bool is not a number here."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(value: Any, wanted: Scalar) -> bool:
    if is_number(value) and is_number(wanted):
        return float(value) == float(wanted)
    return type(value) is type(wanted) and bool(value == wanted)


def _parse(filter: Any) -> Filter:
    if not isinstance(filter, Mapping):
        raise InvalidFilterError("a filter is not a dict", found=filter, expected='such as {"year": {"$gte": 2020}}')
    parts: list[Filter] = []
    for key, value in filter.items():
        if not isinstance(key, str):
            raise InvalidFilterError("a filter's key is not a string", found=key, expected="a field's name")
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)):
                raise InvalidFilterError(f"{key} does not hold a list", found=value, expected="a list of filters")
            parts.append(Bool("and" if key == "$and" else "or", tuple(_parse(part) for part in value)))
        elif key == "$not":
            parts.append(Bool("not", (_parse(value),)))
        elif key.startswith("$"):
            raise InvalidFilterError(
                "an unknown operator", found=key, expected="a field's name, $and, $or or $not at this place"
            )
        elif isinstance(value, Mapping):
            if not value:
                raise InvalidFilterError(f"no operator for {key!r}", found="{}", expected="such as {'$eq': 1}")
            parts.extend(_comparison(key, op, operand) for op, operand in value.items())
        else:
            parts.append(_comparison(key, "$eq", value))
    return parts[0] if len(parts) == 1 else Bool("and", tuple(parts))


def _comparison(key: str, op: Any, value: Any) -> Cmp:
    name = op[1:] if isinstance(op, str) and op.startswith("$") else None
    if name not in OPERATORS:
        raise InvalidFilterError(
            f"an unknown operator for {key!r}", found=op, expected=" ".join(f"${known}" for known in OPERATORS)
        )
    if name in _LIST:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise InvalidFilterError(f"${name} for {key!r} does not hold a list", found=value, expected="a list")
        return Cmp(key, name, tuple(_scalar(key, item) for item in value))
    if name == "exists":
        if not isinstance(value, bool):
            raise InvalidFilterError(f"$exists for {key!r} is not a bool", found=value, expected="True or False")
        return Cmp(key, name, value)
    if name in _RANGE and not is_number(value):
        raise InvalidFilterError(
            f"${name} for {key!r} does not compare with a number",
            found=value,
            expected="a number",
            remedy="Store dates as numbers (20240131, or a timestamp) to compare them.",
        )
    return Cmp(key, name, _scalar(key, value))


def _scalar(key: str, value: Any) -> Scalar:
    if value is None:
        raise InvalidFilterError(
            f"{key!r} is compared with None", found=None, expected="a value", remedy="Use {'$exists': False}."
        )
    if not isinstance(value, (str, int, float, bool)):
        raise InvalidFilterError(f"{key!r} is compared with no scalar", found=value, expected="str, number or bool")
    if is_number(value):
        try:
            finite = math.isfinite(float(value))
        except OverflowError:
            finite = False
        if not finite:
            raise InvalidFilterError(f"{key!r} is compared with no finite number", found=value, expected="a number")
    for plain in (bool, int, float, str):  # an Enum or a numpy string is what it stands for
        if isinstance(value, plain):
            return plain(value.value) if isinstance(value, Enum) else plain(value)
    return value
