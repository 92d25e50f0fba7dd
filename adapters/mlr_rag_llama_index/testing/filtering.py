"""Every operator and condition of MetadataFilters, against a plain reading of their definitions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from mlr_rag_llama_index.testing.base import Suite, ids_of, node, passages

LANGUAGES, YEARS, PRICES = ["de", "en", "fr", "pt-BR"], [1999, 2000, 2001, 2010], [-1.25, 0.5, 2.0, 9.75]
TAGS, SIZES, WORDS = ["draft", "news", "old"], [1, 2, 3], ["river", "mountain", "valley"]
# A missing value satisfies negations only, as it does for llama-index-core's own evaluator.
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda found, value: found == value,
    "!=": lambda found, value: found != value,
    ">": lambda found, value: found is not None and found > value,
    ">=": lambda found, value: found is not None and found >= value,
    "<": lambda found, value: found is not None and found < value,
    "<=": lambda found, value: found is not None and found <= value,
    "in": lambda found, value: found in value,
    "nin": lambda found, value: found not in value,
    "any": lambda found, value: any(item in (found or []) for item in value),
    "all": lambda found, value: all(item in (found or []) for item in value),
    "contains": lambda found, value: value in (found or []),
    "is_empty": lambda found, value: found is None or found == [],
    "text_match": lambda found, value: value in found,
    "text_match_insensitive": lambda found, value: value.lower() in found.lower(),
}
EQUALITY, LISTS, RANGES = ["==", "!="], ["in", "nin"], [">", ">=", "<", "<="]


class Filtering(Suite):
    """What a filter lets through."""

    @pytest.mark.parametrize("operator", EQUALITY + LISTS)
    def test_operator_on_strings(self, store: BasePydanticVectorStore, operator: str) -> None:
        self._agrees(store, _with_scalars(), _comparisons("language", operator, LANGUAGES))

    @pytest.mark.parametrize("operator", EQUALITY + LISTS + RANGES)
    def test_operator_on_integers(self, store: BasePydanticVectorStore, operator: str) -> None:
        self._agrees(store, _with_scalars(), _comparisons("year", operator, YEARS))

    @pytest.mark.parametrize("operator", EQUALITY + LISTS + RANGES)
    def test_operator_on_floats(self, store: BasePydanticVectorStore, operator: str) -> None:
        self._agrees(store, _with_scalars(), _comparisons("price", operator, PRICES))

    @pytest.mark.parametrize("operator", ["any", "all"])
    def test_operator_on_lists(self, store: BasePydanticVectorStore, operator: str) -> None:
        self._agrees(store, _with_lists(), _comparisons("tags", operator, TAGS))

    def test_contains_a_string(self, store: BasePydanticVectorStore) -> None:
        self._agrees(store, _with_lists(), _comparisons("tags", "contains", TAGS))

    def test_contains_a_number(self, store: BasePydanticVectorStore) -> None:
        self._agrees(store, _with_lists(), _comparisons("sizes", "contains", SIZES))

    def test_is_empty(self, store: BasePydanticVectorStore) -> None:
        """The field is missing, None or an empty list."""
        self._agrees(store, _with_lists(), _comparisons("tags", "is_empty", [None]))

    def test_text_match(self, store: BasePydanticVectorStore) -> None:
        self._agrees(store, _with_scalars(), _comparisons("title", "text_match", WORDS))

    def test_text_match_insensitive(self, store: BasePydanticVectorStore) -> None:
        upper = [word.upper() for word in WORDS]
        self._agrees(store, _with_scalars(), _comparisons("title", "text_match_insensitive", upper))

    @pytest.mark.parametrize("operator", EQUALITY + LISTS + RANGES)
    def test_a_missing_field_satisfies_only_negations(self, store: BasePydanticVectorStore, operator: str) -> None:
        nodes = self.filled(store, [node("with", metadata={"year": 2000}), node("without", metadata={"other": 1})])
        for filters in _comparisons("year", operator, [2000]):
            assert (nodes[1].node_id in self.held(store, filters=filters)) == (operator in ("!=", "nin"))

    @pytest.mark.parametrize("condition", ["and", "or", "not"])
    def test_condition(self, store: BasePydanticVectorStore, condition: str) -> None:
        """Satisfied by what satisfies all, any or none of the parts."""
        pairs = itertools.product(_comparisons("language", "==", LANGUAGES), _comparisons("year", ">", YEARS[:3]))
        both = [
            MetadataFilters(filters=[*a.filters, *b.filters], condition=FilterCondition(condition)) for a, b in pairs
        ]
        self._agrees(store, _with_scalars(), both)

    def test_conditions_nest(self, store: BasePydanticVectorStore) -> None:
        self._agrees(store, _with_scalars(), _nested([FilterCondition.AND, FilterCondition.OR]))

    def test_not_nests(self, store: BasePydanticVectorStore) -> None:
        self._agrees(store, _with_scalars(), _nested(list(FilterCondition)))

    def test_no_filters_let_everything_through(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(5))
        assert set(self.held(store, filters=MetadataFilters(filters=[]))) == ids_of(nodes)

    def test_filters_apply_before_top_k(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(200))
        worst = next(node for node in nodes if node.node_id == self.ranking(nodes)[-1])
        filters = MetadataFilters(filters=[MetadataFilter(key="n", value=worst.metadata["n"])])
        assert store.query(self.question(1, filters=filters)).ids == [worst.node_id]

    def test_a_number_is_not_its_digits(self, store: BasePydanticVectorStore) -> None:
        number, digits = self.filled(store, [node("number", metadata={"a": 1}), node("digits", metadata={"a": "1"})])
        for value, expected in ((1, number), ("1", digits)):
            filters = MetadataFilters(filters=[MetadataFilter(key="a", value=value)])
            assert set(self.held(store, filters=filters)) == {expected.node_id}

    def test_any_key_can_be_filtered_on(self, store: BasePydanticVectorStore) -> None:
        keys = ["with space", "a.b", "a[]", 'q"', "é"]
        nodes = self.filled(store, [node(key, metadata={key: "x"}) for key in keys] + [node("other")])
        for key, wanted in zip(keys, nodes, strict=False):
            filters = MetadataFilters(filters=[MetadataFilter(key=key, value="x")])
            assert set(self.held(store, filters=filters)) == {wanted.node_id}

    def _agrees(self, store: BasePydanticVectorStore, nodes: list[TextNode], every: Sequence[MetadataFilters]) -> None:
        self.filled(store, nodes)
        expected = [_selected(filters, nodes) for filters in every]
        assert any(0 < len(some) < len(nodes) for some in expected)
        for filters, ids in zip(every, expected, strict=True):
            assert set(self.held(store, filters=filters)) == ids, filters


def _with_scalars() -> list[TextNode]:
    """Every language with every year and price, and some titles."""
    every = itertools.product(LANGUAGES, YEARS, PRICES)
    return [
        node(
            f"passage {n}",
            metadata={
                "language": language,
                "year": year,
                "price": price,
                "title": f"{WORDS[n % 3]} {WORDS[n // 3 % 3]}",
            },
        )
        for n, (language, year, price) in enumerate(every)
    ]


def _with_lists() -> list[TextNode]:
    """Every subset of the tags with every subset of the sizes; None for tags, and no field at all."""
    metadata: list[dict[str, Any]] = [
        {"tags": list(tags), "sizes": list(sizes)} for tags in _subsets(TAGS) for sizes in _subsets(SIZES)
    ]
    metadata += [{"tags": None, "sizes": [1]}, {"sizes": [2]}]
    return [node(f"passage {n}", metadata=found) for n, found in enumerate(metadata)]


def _subsets(values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [some for size in range(len(values) + 1) for some in itertools.combinations(values, size)]


def _comparisons(key: str, operator: str, values: Sequence[Any]) -> list[MetadataFilters]:
    """With each value, or for the operators that take a list, with each and with every two of them."""
    if operator in ("in", "nin", "any", "all"):
        values = [list(some) for size in (1, 2) for some in itertools.combinations(values, size)]
    return [
        MetadataFilters(filters=[MetadataFilter(key=key, operator=FilterOperator(operator), value=value)])
        for value in values
    ]


def _nested(conditions: Sequence[FilterCondition]) -> list[MetadataFilters]:
    """Every way to put these conditions into one another, three deep."""
    leaves: list[MetadataFilter | MetadataFilters] = [
        MetadataFilter(key="price", operator=FilterOperator.GT, value=0.5),
        MetadataFilter(key="language", value="en"),
        MetadataFilter(key="year", operator=FilterOperator.LTE, value=2000),
        MetadataFilter(key="language", operator=FilterOperator.NE, value="fr"),
    ]
    return [
        MetadataFilters(
            filters=[
                leaves[0],
                MetadataFilters(
                    filters=[leaves[1], MetadataFilters(filters=leaves[2:], condition=inner)], condition=middle
                ),
            ],
            condition=outer,
        )
        for outer, middle, inner in itertools.product(conditions, repeat=3)
    ]


def _selected(filters: MetadataFilters, nodes: Iterable[TextNode]) -> set[str]:
    return {node.node_id for node in nodes if _holds(filters, node.metadata)}


def _holds(filters: MetadataFilters | MetadataFilter, metadata: dict[str, Any]) -> bool:
    if isinstance(filters, MetadataFilter):
        return OPERATORS[filters.operator.value](metadata.get(filters.key), filters.value)
    parts = [_holds(part, metadata) for part in filters.filters]
    if filters.condition is FilterCondition.NOT:
        return not any(parts)
    return any(parts) if filters.condition is FilterCondition.OR else all(parts)
