"""Every store against the reference evaluator of the filter language."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlr_rag.documents import Document
from mlr_rag.filters import matches, parse
from mlr_rag.stores import Record, VectorStore
from mlr_rag.testing.base import Suite

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
ROW = np.eye(8, dtype=np.float32)[0]


class Language(str, enum.Enum):
    ENGLISH = "en"


class Filters(Suite):
    """`query`, `count`, `scan` and `delete` select what `mlr_rag.filters.matches` does, for any metadata."""

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.function_scoped_fixture,  # one store for all examples, emptied by each
            HealthCheck.differing_executors,  # every store's class runs this one function
        ],
    )
    @given(metadatas=st.lists(METADATA, min_size=1, max_size=6), filters=st.lists(FILTERS, min_size=1, max_size=4))
    def test_stores_agree_with_the_reference(
        self, store: VectorStore, metadatas: list[dict[str, Any]], filters: list[Any]
    ) -> None:
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

    @pytest.mark.parametrize("value", [Language.ENGLISH, np.str_("en")])
    def test_strings_of_another_class_are_strings(self, store: VectorStore, value: str) -> None:
        store.upsert([Record(Document("text", "x", {"language": "en"}), ROW)])
        for filter in ({"language": value}, {"language": {"$in": [value]}}):
            assert store.count(parse(filter)) == 1
