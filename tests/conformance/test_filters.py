"""The filter language, and every store against its reference evaluator."""

from __future__ import annotations

import enum
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlr_rag import Document
from mlr_rag.errors import InvalidFilterError
from mlr_rag.filters import Bool, Cmp, constant, matches, parse
from mlr_rag.stores import Record, VectorStore
from tests.conformance.stores import STORES

KEYS = st.sampled_from(["a", "b", "a.b", 'q"', "a[]", "with space", ""])
SCALARS = st.one_of(
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 10, 2**53, 2**53 + 1, 2**62, 0.0, -0.0, 1.0, 0.5, 1.5, -1.0, 1e300, 1e-300]),
    st.sampled_from(["", "x", "1", "1.0", "True", "true", "None", "é", "x y", "X"]),
)
VALUES = st.one_of(st.none(), SCALARS, st.lists(st.one_of(SCALARS, st.none()), max_size=3), st.just({"a": 1}))
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)
NUMBERS = st.sampled_from([0, 1, -1, 2, 0.5, 1.5, 2**53, 2**53 + 1, -1e300])


def _comparisons() -> st.SearchStrategy[dict[str, Any]]:
    operators = st.one_of(
        st.tuples(st.sampled_from(["$eq", "$ne", "$contains"]), SCALARS),
        st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS),
        st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=3)),
        st.tuples(st.just("$exists"), st.booleans()),
    )
    nested = st.lists(operators, min_size=1, max_size=2).map(dict)
    return st.dictionaries(KEYS, st.one_of(SCALARS, nested), min_size=0, max_size=2)


FILTERS = st.recursive(
    _comparisons(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=5,
)
ROW = np.eye(4, dtype=np.float32)[0]


@functools.cache
def _store(name: str) -> VectorStore:
    return STORES[name](Path(tempfile.mkdtemp()))(4)


@pytest.mark.parametrize("name", sorted(STORES))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(metadatas=st.lists(METADATA, min_size=1, max_size=6), filters=st.lists(FILTERS, min_size=1, max_size=4))
def test_stores_agree_with_the_reference(name: str, metadatas: list[dict[str, Any]], filters: list[Any]) -> None:
    store = _store(name)
    store.delete(ids=[str(i) for i in range(6)])
    store.upsert([Record(Document("text", str(i), metadata), ROW) for i, metadata in enumerate(metadatas)])
    for filter in filters:
        condition = parse(filter)
        expected = {str(i) for i, metadata in enumerate(metadatas) if matches(condition, metadata)}
        assert {match.record.document.id for match in store.query(ROW, 10, condition)} == expected
        assert store.count(condition) == len(expected)
        assert {record.document.id for batch in store.scan(condition) for record in batch} == expected
    last = parse(filters[-1])
    if last is not None:
        kept = {str(i) for i, metadata in enumerate(metadatas) if not matches(last, metadata)}
        assert store.delete(filter=last) == len(metadatas) - len(kept)
        assert {record.document.id for batch in store.scan() for record in batch} == kept


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


class Language(str, enum.Enum):
    ENGLISH = "en"


@pytest.mark.parametrize("name", sorted(STORES))
@pytest.mark.parametrize("value", [Language.ENGLISH, np.str_("en")])
def test_strings_of_another_class_are_strings(name: str, value: str, tmp_path: Path) -> None:
    store = STORES[name](tmp_path)(4)
    store.upsert([Record(Document("text", "x", {"language": "en"}), ROW)])
    for filter in ({"language": value}, {"language": {"$in": [value]}}):
        assert store.count(parse(filter)) == 1
    store.close()


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
