"""Which generated queries are kept: no near-copies of their passage, and none twice."""

from __future__ import annotations

from difflib import SequenceMatcher

from mlr_rag.specializing.queries.sentences import sentences, words
from mlr_rag.specializing.queries.vocabulary import STOP_WORDS

COPIED_RUN = 8  # words in a row that are the passage's
COPIED_RATIO = 0.8  # 2 · words in common, in order / words of both, with some sentence of the passage
MOST_WORDS = 40
ASKED_BEFORE = "asked before"


class Cleaner:
    """Says which queries to leave out, one after the other: of two that ask the same the first one is kept.

    Queries ask the same if they have the same words, less case, marks, order, plural endings and function words.
    """

    def __init__(self) -> None:
        self._asked: set[tuple[str, ...]] = set()

    def reason(self, query: str, passage: str) -> str:
        """Why this query of this passage is left out; "" where it is kept, and from now on known."""
        found = [word.lower() for word in words(query)]
        if not found:
            return "blank"
        if len(found) > MOST_WORDS:
            return "too long"
        if is_near_copy(found, passage):
            return "near-copy of its passage"
        content = [word for word in found if word not in STOP_WORDS]
        asked = tuple(sorted({_singular(word) for word in content})) or tuple(found)
        if asked in self._asked:
            return ASKED_BEFORE
        self._asked.add(asked)
        return ""


def is_near_copy(query: list[str], passage: str) -> bool:
    """Whether 8 words in a row, or nearly all of a sentence, are the passage's.

    A query of a few words may well be in its passage as it stands, as what a searcher types often is.
    """
    for start, end in sentences(passage):
        sentence = [word.lower() for word in words(passage[start:end])]
        if not set(query) & set(sentence):
            continue
        matcher = SequenceMatcher(None, sentence, query, autojunk=False)
        if matcher.quick_ratio() >= COPIED_RATIO and matcher.ratio() >= COPIED_RATIO:
            return True
        if len(query) >= COPIED_RUN and matcher.find_longest_match().size >= COPIED_RUN:
            return True
    return False


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
