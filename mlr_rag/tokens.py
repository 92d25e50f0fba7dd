"""Metadata as a set of exact-match tokens, for stores whose own filters are not exact.

Engines differ in whether 1 equals 1.0, in what a list matches, in which keys can be named. A store that keeps
`tokens(metadata)` as one keyword array, and `numbers(metadata)` for ranges, needs only "the array holds this
keyword" and "this number is in this range", which every engine does alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mlr_rag.filters import Scalar, is_number

_CACHED = 1 << 14  # values come again: hashing them anew was most of what writing a document cost


def tokens(metadata: Mapping[str, Any]) -> list[str]:
    """Every token that some comparison with this metadata could ask for."""
    found: set[str] = set()
    for key, value in metadata.items():
        if value is None:
            continue
        found.add(exists_token(key))
        if isinstance(value, (str, int, float, bool)):
            found.add(equal_token(key, value))
        elif isinstance(value, list):
            found.update(contains_token(key, item) for item in value if isinstance(item, (str, int, float, bool)))
    return sorted(found)


def numbers(metadata: Mapping[str, Any]) -> dict[str, float]:
    """The fields that a range can compare, under names that any engine can take."""
    return {field_name(key): float(value) for key, value in metadata.items() if is_number(value)}


def exists_token(key: str) -> str:
    """Present where the field is there and is not None."""
    return _token("exists", key)


def equal_token(key: str, value: Scalar) -> str:
    """Present where the field equals the value."""
    return _token("eq", key, value)


def contains_token(key: str, value: Scalar) -> str:
    """Present where the field is a list that holds the value."""
    return _token("contains", key, value)


@lru_cache(_CACHED)
def field_name(key: str) -> str:
    """A name made of [0-9a-f] that stands for any key."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:24]


@lru_cache(_CACHED, typed=True)
def _token(kind: str, key: str, *values: Scalar) -> str:
    plain = [float(value) + 0.0 if is_number(value) else value for value in values]  # 1 is 1.0, -0.0 is 0.0
    return hashlib.sha256(json.dumps([kind, key, *plain]).encode()).hexdigest()[:24]
