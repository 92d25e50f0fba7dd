"""extract_queries: what is taken out of texts without a language model, and what is left of their passages."""

from __future__ import annotations

from collections import Counter

import pytest

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.queries.cleaning import is_near_copy
from mlr_rag.specializing.queries.extractive import EXTRACTIVE_KINDS, extract_queries
from mlr_rag.specializing.queries.keywords import key_phrases, keywords
from mlr_rag.specializing.queries.questions import claim, is_question, questions
from mlr_rag.specializing.queries.sentences import plain, sentences, words
from mlr_rag.specializing.queries.titles import title
from mlr_rag.specializing.queries.vocabulary import Vocabulary

ARTICLE = """# Copper roofs

A copper roof is a covering of thin sheets. Sheets of copper are joined by folded seams.
The results show that folded seams keep rain water out for a hundred years.

## Care of seams

Acid rain thins the sheets over time. How often should seams be checked? Gutters of zinc must not drain onto copper."""
CORPUS = {
    "roofs": ARTICLE,
    "seams": "Folded seams on boats\nBoats of copper sheets have folded seams too. Rain water must run off the deck.",
    "tar": "find / -name '*.tar' -exec rm {} +",
    "short": "yes",
}


def of_kind(kind: str, **options: object) -> list[tuple[str, str | None]]:
    made = extract_queries(CORPUS, ["roofs"], 20, [kind], **options)  # type: ignore[arg-type]
    return [(query.text, query.passage) for query in made.queries]


def test_a_title_is_a_query_for_the_rest_of_its_text() -> None:
    ((text, passage),) = of_kind("title")
    assert text == "Copper roofs"
    assert passage is not None
    assert "Copper roofs" not in passage
    assert passage.startswith("A copper roof is")
    assert passage.endswith("onto copper.")


def test_a_sentence_is_a_query_for_the_text_without_it() -> None:
    for text, passage in of_kind("sentence") + of_kind("first sentence"):
        assert passage is not None
        assert text not in passage
        assert text in ARTICLE
        assert len(words(passage)) >= 12
    assert [text for text, _ in of_kind("first sentence")] == ["A copper roof is a covering of thin sheets"]
    assert "folded seams keep rain water out for a hundred years" in [text for text, _ in of_kind("sentence")]


def test_a_heading_says_what_it_is_a_heading_of() -> None:
    assert of_kind("heading") == [("Copper roofs Care of seams", None)]


def test_questions_are_those_of_the_text_and_those_that_it_answers() -> None:
    asked = [text for text, _ in of_kind("question")]
    assert asked[0] == "How often should seams be checked?"
    assert "what is a copper roof" in asked


def test_phrases_and_keywords_leave_the_passage_whole() -> None:
    phrases, found = of_kind("phrase"), of_kind("keywords")
    assert ("folded seams", None) in phrases
    assert all(2 <= len(words(text)) <= 4 and passage is None for text, passage in phrases)
    ((text, passage),) = found
    assert 3 <= len(words(text)) <= 6
    assert passage is None


def test_short_texts_give_keywords_or_are_counted_out() -> None:
    made = extract_queries(CORPUS, ["tar", "short"], 2)
    assert [(query.document, query.kind, query.text) for query in made.queries] == [("tar", "keywords", "find name")]
    assert made.dropped == {"document without anything to extract": 1}


def test_the_kinds_have_equal_shares_as_far_as_the_texts_go() -> None:
    corpus = {f"d{n:02}": ARTICLE.replace("opper", f"opper{'abcdefghijkl'[n]}") for n in range(12)}
    made = extract_queries(corpus, kinds=["title", "question", "phrase"])
    assert Counter(query.kind for query in made.queries) == {"title": 4, "question": 4, "phrase": 4}
    assert Counter(query.document for query in made.queries) == dict.fromkeys(corpus, 1)


def test_the_same_corpus_in_any_order_gives_the_same_queries_and_another_seed_others() -> None:
    corpus = {f"d{n:02}": ARTICLE.replace("opper", f"opper{'abcdefghijkl'[n]}") for n in range(12)}
    backwards = dict(reversed(corpus.items()))
    assert extract_queries(corpus, count=30) == extract_queries(backwards, count=30)
    assert extract_queries(corpus, count=30) != extract_queries(corpus, count=30, seed=1)


def test_no_query_is_asked_twice_or_nearly_copied() -> None:
    made = extract_queries({**CORPUS, "again": ARTICLE}, count=100)
    asked = [frozenset(words(query.text.lower())) for query in made.queries]
    assert len(set(asked)) == len(asked)
    assert made.dropped["asked before"] > 0
    for query in made.queries:
        assert not is_near_copy(words(query.text.lower()), query.passage or CORPUS.get(query.document, ARTICLE))


def test_nothing_to_extract_and_unknown_kinds_and_documents_are_errors() -> None:
    with pytest.raises(InvalidInputError, match="no query can be extracted"):
        extract_queries({"a": "yes", "b": "no"})
    with pytest.raises(InvalidInputError, match="riddle"):
        extract_queries(CORPUS, kinds=["riddle"])
    with pytest.raises(InvalidInputError, match="d99"):
        extract_queries(CORPUS, ["d99"])
    with pytest.raises(InvalidInputError, match="kind"):
        extract_queries(CORPUS, kinds=[])


# Titles

PLAIN = {f"p{n}": f"the angina treatments for this insufficient supply are known to {n}" for n in range(3)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Disc herniation and serum lipids Insufficient supply of blood was seen.", "Disc herniation and serum lipids"),
        ("Sore throats in Sweden OBJECTIVE To describe the care.", "Sore throats in Sweden"),
        ("Roofs of Zinc This metal is grey and soft.", "Roofs of Zinc"),
        ("We saw roofs of Zinc This metal is grey.", None),
        ("Grey roofs of Zinc This metal is soft.", None),
        ("Roofs made of zinc This metal is grey and soft.", "Roofs made of zinc"),
        ("zinc roofs Zinc roofs are grey and last long.", "zinc roofs"),
        ("A long history. This metal is grey.", None),
        ("This metal is grey and Insufficient supply of it is known.", None),
        ("Zinc roofs\n\nThey are grey.", "Zinc roofs"),
        ("Zinc roofs are grey.\nThey last.", None),
    ],
)
def test_a_title_ends_where_a_sentence_begins_though_none_ended(text: str, found: str | None) -> None:
    at = title(text, Vocabulary(PLAIN))
    assert (None if at is None else text[slice(*at)]) == found


# Sentences, claims and questions


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One is here. Two, e.g. this, is there? Yes!", ["One is here.", "Two, e.g. this, is there?", "Yes!"]),
        ("flow in tubes . the paper deals with it .", ["flow in tubes .", "the paper deals with it ."]),
        ("Dr. J. Smith has 3.5 ml. He left.", ["Dr. J. Smith has 3.5 ml.", "He left."]),
        ("A list\n- one\n- two", ["A list", "- one", "- two"]),
        ("这是第一句。这是第二句。", ["这是第一句。", "这是第二句。"]),
        ("  \n ", []),
    ],
)
def test_sentences_end_at_marks_blank_lines_and_list_items(text: str, parts: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text)] == parts


def test_labels_asides_and_full_stops_are_no_part_of_a_query() -> None:
    assert plain("CONCLUSIONS: Iron (Fe) rusts [3].") == "Iron rusts"
    assert plain("METHODS AND RESULTS Iron rusts in 3.5 days.") == "Iron rusts in 3.5 days"
    assert plain("Results of the vote are known.") == "Results of the vote are known"


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("We found that iron rusts faster in salt water", "iron rusts faster in salt water"),
        ("However, iron rusts faster in salt water", "iron rusts faster in salt water"),
        ("It rusts faster in salt water", ""),
        ("Iron rusts", ""),
        ("Iron rusts faster in salt water, which " + "very " * 20 + "often happens", "Iron rusts faster in salt water"),
    ],
)
def test_a_claim_stands_alone(sentence: str, said: str) -> None:
    assert claim(sentence) == said


@pytest.mark.parametrize(
    ("sentence", "asked"),
    [
        ("Tacoma is the largest port in the sound", ["what is Tacoma", "what is the largest port in the sound"]),
        (
            "The bridge was opened with a parade in July 1940",
            ["when was the bridge opened with a parade", "what was opened with a parade in July 1940"],
        ),
        ("Horry won seven championships with Houston", ["what won seven championships with Houston"]),
        ("It is the largest port in the sound", []),
        ("The aim of this study is the description of rust", []),
        ("Nothing known here", []),
    ],
)
def test_a_question_is_what_a_statement_answers(sentence: str, asked: list[str]) -> None:
    assert questions(sentence) == asked


def test_a_question_of_the_text_has_four_words_or_more() -> None:
    assert is_question("How long do fleas live?")
    assert not is_question("Why?")
    assert not is_question("Fleas live long.")


# Keywords


def test_function_words_are_never_at_the_ends_of_phrases_nor_among_keywords() -> None:
    vocabulary = Vocabulary(CORPUS)
    for phrase in key_phrases(ARTICLE, vocabulary):
        assert not vocabulary.is_function_word(phrase.split()[0])
    assert not {"the", "of", "is"} & set(keywords(ARTICLE, vocabulary).lower().split())


def test_words_that_most_documents_hold_are_function_words_in_any_language() -> None:
    vocabulary = Vocabulary({f"d{n}": f"der Hund{n} bellt" for n in range(60)})
    assert vocabulary.is_function_word("der")
    assert not vocabulary.is_function_word("Hund3")
    assert vocabulary.rarity("Hund3") > vocabulary.rarity("der") == 0


def test_every_kind_is_found_somewhere() -> None:
    made = extract_queries(CORPUS, count=50)
    assert {query.kind for query in made.queries} == set(EXTRACTIVE_KINDS)
