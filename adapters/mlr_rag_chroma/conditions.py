"""The filter language in Chroma's `where` grammar, exactly.

A record has an array of tokens, for what its fields hold and which of them are numbers, and each number as an integer.
The array is replaced whole, but Chroma keeps a key that two writers at once did not both know of: a number counts only
where the array says that there is one.
The grammar has no `not` and no empty list, and `$and` and `$or` need two parts: negations are pushed to the leaves.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from mlr_rag import tokens
from mlr_rag.filters import Cmp, Filter, constant, is_number

# One array of tokens is as fast to filter by as a typed copy of each field (both 11 ms at 10,000 documents), and takes
# any key, and values that Chroma could not hold or compare as they are.
_TOKENS = "tokens"

_PARTS = 100  # of one $and or $or: SQLite nests them, a thousand levels at most

_OPPOSITE = {"$and": "$or", "$or": "$and"}
_POSITIVE = {"ne": "eq", "nin": "in"}
_OUTSIDE = {"gt": "$lte", "gte": "$lt", "lt": "$gte", "lte": "$gt"}


def fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a record's metadata must hold in Chroma, for its own to be filtered by."""
    numbers = tokens.numbers(metadata)
    others = {key: value for key, value in metadata.items() if not is_number(value)}
    return {_TOKENS: [*tokens.tokens(others), *numbers] or None} | {
        field: _ordered(value) for field, value in numbers.items()
    }


def translate(filter: Filter) -> dict[str, Any]:
    """What matches just what `mlr_rag.filters.matches` does; the filter must not be a constant one."""
    return _translate(filter, negated=False)


def _translate(filter: Filter, negated: bool) -> dict[str, Any]:
    if isinstance(filter, Cmp):
        return _comparison(filter, negated)
    if filter.op == "not":
        return _translate(filter.parts[0], not negated)
    # Of the constant parts none decides, or the whole would be constant: they can be left out.
    parts = [_translate(part, negated) for part in filter.parts if constant(part) is None]
    return _joined("$and" if filter.op == "and" else "$or", parts, negated)


def _comparison(cmp: Cmp, negated: bool) -> dict[str, Any]:
    if cmp.op in _POSITIVE:
        return _comparison(Cmp(cmp.key, _POSITIVE[cmp.op], cmp.value), not negated)
    match cmp.op:
        case "exists":
            either = tokens.exists_token(cmp.key), tokens.field_name(cmp.key)
            negated = negated == cmp.value
            return _joined("$or", [_holds(token, negated) for token in either], negated)
        case "in":
            return _among(cmp.key, cmp.value, negated)
        case "eq":
            return _among(cmp.key, [cmp.value], negated)
        case "contains":
            return _holds(tokens.contains_token(cmp.key, cmp.value), negated)
    return _number(cmp.key, {_OUTSIDE[cmp.op] if negated else f"${cmp.op}": _ordered(cmp.value)}, negated)


def _among(key: str, values: Sequence[Any], negated: bool) -> dict[str, Any]:
    parts = [_holds(tokens.equal_token(key, value), negated) for value in values if not is_number(value)]
    numbers = [_ordered(value) for value in values if is_number(value)]
    if numbers:
        parts.append(_number(key, {"$nin" if negated else "$in": numbers}, negated))
    return _joined("$or", parts, negated)


def _number(key: str, condition: dict[str, Any], negated: bool) -> dict[str, Any]:
    """A condition of a number, which no number at all does not satisfy, and satisfies where it is a negated one."""
    field = tokens.field_name(key)
    return {"$or" if negated else "$and": [_holds(field, negated), {field: condition}]}


def _holds(token: str, negated: bool) -> dict[str, Any]:
    return {_TOKENS: {"$not_contains" if negated else "$contains": token}}


def _joined(operator: str, parts: list[dict[str, Any]], negated: bool) -> dict[str, Any]:
    while len(parts) > _PARTS:
        groups = [parts[start : start + _PARTS] for start in range(0, len(parts), _PARTS)]
        parts = [_joined(operator, group, negated) for group in groups]
    return parts[0] if len(parts) == 1 else {_OPPOSITE[operator] if negated else operator: parts}


def _ordered(value: float) -> int:
    """An integer that compares with others as the float does: a server's JSON changes the last bit of some floats."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)  # also makes 0.0 of -0.0
