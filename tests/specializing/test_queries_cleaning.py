"""Cleaning: near-copies of a passage and queries that were asked before."""

from __future__ import annotations

import pytest

from mlr_rag.specializing.queries.cleaning import Cleaner

PASSAGE = "Some history. The old stone bridge over the river was built by monks in the year twelve hundred. It stands."


@pytest.mark.parametrize(
    "query",
    [
        "The old stone bridge over the river was built by monks in the year twelve hundred",
        "the old stone bridge over the river was built by the monks in twelve hundred",  # nearly the sentence
        "who says that the old stone bridge over the river was a toll bridge of the duke's",  # eight words in a row
        "It stands",
    ],
)
def test_near_copies_are_left_out(query: str) -> None:
    assert Cleaner().reason(query, PASSAGE) == "near-copy of its passage"


@pytest.mark.parametrize("query", ["old stone bridge", "stone bridge monks twelve hundred", "who built the bridge?"])
def test_a_few_words_of_the_passage_are_no_copy(query: str) -> None:
    assert Cleaner().reason(query, PASSAGE) == ""


def test_queries_that_differ_in_case_marks_order_plurals_and_function_words_are_one() -> None:
    cleaner = Cleaner()
    reasons = [
        cleaner.reason(query, PASSAGE)
        for query in ("Who built bridges?", "who built the bridge", "BRIDGE built!", "who built ships?")
    ]
    assert reasons == ["", "asked before", "asked before", ""]


def test_questions_of_function_words_alone_are_told_apart() -> None:
    cleaner = Cleaner()
    assert [cleaner.reason(query, PASSAGE) for query in ("what is it", "how was it", "What is it?")] == [
        "",
        "",
        "asked before",
    ]


def test_blank_and_very_long_queries_are_left_out() -> None:
    assert [Cleaner().reason(query, PASSAGE) for query in ("", " ?! ", "word " * 41)] == ["blank", "blank", "too long"]


def test_a_query_that_was_left_out_for_another_reason_was_not_asked() -> None:
    cleaner = Cleaner()
    assert cleaner.reason("It stands", PASSAGE) == "near-copy of its passage"
    assert cleaner.reason("It stands", "Another text.") == ""
