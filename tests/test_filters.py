"""The filter language. That every store agrees with its reference evaluator is shown in tests/conformance."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from mlr_rag.errors import InvalidFilterError
from mlr_rag.filters import Bool, Cmp, constant, matches, parse
from mlr_rag.testing.filters import FILTERS, METADATA

TRUTH: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"a": 1}, {"a": 1}, True),
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": 1}, {"a": True}, False),
    ({"a": 1}, {"a": "1"}, False),
    ({"a": 1}, {}, False),
    ({"a": 1}, {"a": None}, False),
    ({"a": 1}, {"a": [1]}, False),
    ({"a": {"$ne": 1}}, {}, True),
    ({"a": {"$ne": 1}}, {"a": None}, True),
    ({"a": {"$ne": 1}}, {"a": 1.0}, False),
    ({"a": {"$in": []}}, {"a": 1}, False),
    ({"a": {"$nin": []}}, {}, True),
    ({"a": {"$in": [1, "x"]}}, {"a": "x"}, True),
    ({"a": {"$gt": 1}}, {"a": 1}, False),
    ({"a": {"$gte": 1}}, {"a": 1}, True),
    ({"a": {"$lt": 1}}, {"a": "0"}, False),
    ({"a": {"$lte": 1}}, {"a": True}, False),
    ({"a": {"$gt": 0, "$lt": 2}}, {"a": 1}, True),
    ({"a": {"$contains": 1}}, {"a": [2, 1.0]}, True),
    ({"a": {"$contains": 1}}, {"a": [True]}, False),
    ({"a": {"$contains": "x"}}, {"a": "x"}, False),
    ({"a": {"$exists": True}}, {"a": []}, True),
    ({"a": {"$exists": True}}, {"a": None}, False),
    ({"a": {"$exists": False}}, {}, True),
    ({"$or": []}, {"a": 1}, False),
    ({"$and": []}, {}, True),
    ({"$not": {}}, {}, False),
    ({"$not": {"a": {"$gt": 1}}}, {}, True),
    ({"$or": [{"a": 1}, {"b": 1}], "c": 1}, {"b": 1, "c": 1}, True),
    ({"a": 2**53 + 1}, {"a": 2**53}, True),
    ({}, {}, True),
]


@pytest.mark.parametrize(("filter", "metadata", "expected"), TRUTH)
def test_meaning(filter: dict[str, Any], metadata: dict[str, Any], expected: bool) -> None:
    assert matches(parse(filter), metadata) is expected


def test_parsed_form() -> None:
    assert parse({"a": 1, "$not": {"b": {"$in": [1, 2]}}}) == Bool(
        "and", (Cmp("a", "eq", 1), Bool("not", (Cmp("b", "in", (1, 2)),)))
    )
    assert parse(None) is None
    assert parse({}) is None


ALWAYS = [{}, {"$or": [{}]}, {"$and": [{}, {}]}, {"$not": {"$or": []}}, {"x": {"$nin": []}}, {"$or": [{"a": 1}, {}]}]
NEVER = [{"$or": []}, {"x": {"$in": []}}, {"$not": {}}, {"$and": [{"a": 1}, {"$or": []}]}]


def test_constant_filters() -> None:
    assert [constant(parse(filter)) for filter in ALWAYS] == [True] * len(ALWAYS)
    assert [constant(parse(filter)) for filter in NEVER] == [False] * len(NEVER)
    assert constant(parse({"a": 1, "$or": [{"b": 1}]})) is None


@given(filter=FILTERS, metadata=METADATA)
def test_a_constant_filter_is_constant(filter: Any, metadata: dict[str, Any]) -> None:
    condition = parse(filter)
    if constant(condition) is not None:
        assert matches(condition, metadata) is constant(condition)


BAD = [
    "year > 2020", [("a", 1)], {1: 2}, {"a": {"$regex": "x"}}, {"a": {"gt": 1}}, {"a": {}}, {"$xor": []},
    {"$or": {"a": 1}}, {"$not": [{"a": 1}]}, {"a": None}, {"a": [1]}, {"a": {"$in": 1}}, {"a": {"$in": [None]}},
    {"a": {"$gt": "2020"}}, {"a": {"$gt": True}}, {"a": {"$exists": 1}}, {"a": float("nan")}, {"a": float("inf")},
    {"a": {"$lt": 10**400}}, {"a": {"b": 1}}, {"a": b"x"}, {"$eq": 1}, {"a": {"$contains": [1]}},
]  # fmt: skip


@pytest.mark.parametrize("filter", BAD, ids=repr)
def test_what_is_not_in_the_language(filter: Any) -> None:
    with pytest.raises(InvalidFilterError) as error:
        parse(filter)
    assert "expected" in str(error.value)
