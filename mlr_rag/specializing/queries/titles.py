"""Where the title of a text is, if it has one: on a line of its own, or run together with what follows."""

from __future__ import annotations

from mlr_rag.specializing.queries.questions import stands_alone
from mlr_rag.specializing.queries.sentences import LABELS, LONGEST_TITLE, Span, first_line, word_spans
from mlr_rag.specializing.queries.vocabulary import STOP_WORDS, Vocabulary

_FOLLOWING = 2  # words after the one that may begin a sentence


def title(text: str, vocabulary: Vocabulary) -> Span | None:
    """Where it begins and ends, without its marks.

    Collections join a title and a text with a space. The text then begins with a word that has a capital, though no
    sentence ended before it and the corpus writes that word small, and small words follow; or with a label such as
    OBJECTIVE; or with the words of the title.
    """
    line = first_line(text)
    if line is not None:
        return line
    if not stands_alone(text[:200]):
        return None
    spans = word_spans(text[: 16 * LONGEST_TITLE])[: LONGEST_TITLE + 1 + _FOLLOWING]
    found = [text[start:end] for start, end in spans]
    for place in range(1, len(spans) - _FOLLOWING):
        between = text[spans[place - 1][1] : spans[place][0]]
        if any(mark in between for mark in ".?!\n"):
            return None  # a sentence ended
        joined = text[spans[place][1] : spans[place + _FOLLOWING][0]].replace(found[place + 1], "", 1)
        if between.strip(" )]\"'”’") or any(mark in joined for mark in ".?!"):
            continue
        before, after = found[:place], found[place : place + 1 + _FOLLOWING]
        repeated = place > 1 and [word.lower() for word in after[:2]] == [word.lower() for word in found[:2]]
        if repeated or _is_label(*after[:2]) or (_ends_title(before, vocabulary) and _begins(after, vocabulary)):
            return spans[0][0], spans[place - 1][1] + len(between.rstrip())
    return None


def _is_label(word: str, following: str) -> bool:
    return word.lower() in LABELS and (word.isupper() or (word.istitle() and following[0].isupper()))


def _begins(words: list[str], vocabulary: Vocabulary) -> bool:
    """Whether the first of the words begins a sentence."""
    first, *rest = words
    capitals = [word for word in rest if word.istitle() and vocabulary.is_no_name(word)]
    return first.istitle() and vocabulary.is_no_name(first) and rest[0][0].islower() and not capitals


def _ends_title(words: list[str], vocabulary: Vocabulary) -> bool:
    """Whether a title may end with the last of the words: with a name only where all that counts has a capital."""
    if not words[-1].istitle():
        return words[-1].lower() not in STOP_WORDS
    return (len(words) > 1 or not vocabulary.is_no_name(words[0])) and all(
        not word[0].islower() for word in words if word.lower() not in STOP_WORDS
    )
