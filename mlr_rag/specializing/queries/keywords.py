"""Key phrases and keywords of a text, by TF-IDF."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from mlr_rag.specializing.queries.sentences import Span, words
from mlr_rag.specializing.queries.vocabulary import READ, STOP_WORDS, Vocabulary, total

_SHORT = 12  # words
_LEAST, _MOST = 3, 6  # words in a keyword query
_EARLY, _EARLY_COUNTS = 200, 1.5  # characters: a title or first sentence says what a text is about
_NOWHERE_ELSE = 0.5  # what no other document says is seldom what people call it


class _Phrase(NamedTuple):
    score: float
    span: Span  # where it is first
    text: str


def key_phrases(text: str, vocabulary: Vocabulary) -> list[str]:
    """The phrases of 2 to 4 words that tell this text from others, best first: (1 + ln tf) · sum of idf / √words.

    They have no function words, and come back in the text or in another document. None holds another.
    """
    chosen: list[_Phrase] = []
    for phrase in _ranked(text, vocabulary):
        if " " in phrase.text and not any(phrase.text in each.text or each.text in phrase.text for each in chosen):
            chosen.append(phrase)
    return [_as_written(text, each.span) for each in chosen]


def keywords(text: str, vocabulary: Vocabulary, drawn: float = 0.5) -> str:
    """The text's best phrases and words, 3 to 6 words in the text's order; of a short text about half of its words.

    Args:
        text: Any.
        vocabulary: Of the corpus.
        drawn: 0 to 1; more words with more.
    """
    found = words(text)
    if len(found) <= _SHORT:
        return _of_short(found, vocabulary)
    chosen: list[_Phrase] = []
    taken: set[str] = set()
    room = _LEAST + round(drawn * (_MOST - _LEAST))
    for phrase in _ranked(text, vocabulary):
        parts = words(phrase.text)
        if len(parts) <= room and not taken & set(parts):
            chosen.append(phrase)
            taken.update(parts)
            room -= len(parts)
    return " ".join(_as_written(text, each.span) for each in sorted(chosen, key=lambda each: each.span))


def _of_short(found: list[str], vocabulary: Vocabulary) -> str:
    """The first word and the rarest others, half of them all, in order; no function words and no single letters."""
    places = {word.lower(): place for place, word in reversed(list(enumerate(found)))}
    told = sorted(place for word, place in places.items() if word not in STOP_WORDS and len(word) > 1)
    rare = sorted(told[1:], key=lambda place: (-vocabulary.rarity(found[place]), place))
    return " ".join(found[place] for place in sorted([*told[:1], *rare[: max(2, len(places) // 2) - 1]]))


def _ranked(text: str, vocabulary: Vocabulary) -> list[_Phrase]:
    """Words and phrases, best first."""
    first: dict[str, Span] = {}
    times: Counter[str] = Counter()
    for phrase, span in vocabulary.phrases(text[:READ]):
        times[phrase] += 1
        first.setdefault(phrase, span)
    known = {phrase for phrase, count in times.items() if " " not in phrase or count > 1 or vocabulary.recurs(phrase)}
    for phrase in sorted(known):
        for part in (phrase.partition(" ")[2], phrase.rpartition(" ")[0]):
            if " " in part and times[part] == times[phrase]:
                known.discard(part)  # it is always in the longer one
    ranked = []
    for phrase in known:
        parts = words(phrase)
        rarities = [vocabulary.rarity(part) * (1 if vocabulary.is_shared(part) else _NOWHERE_ELSE) for part in parts]
        if parts and all(len(part) > 2 and not part.isdigit() and of_part for part, of_part in _ends(parts, rarities)):
            weight = _EARLY_COUNTS if first[phrase][0] < _EARLY else 1.0
            score = weight * (1 + math.log(times[phrase])) * total(rarities) / math.sqrt(len(parts))
            ranked.append(_Phrase(score, first[phrase], phrase))
    return sorted(ranked, key=lambda each: (-each.score, each.span))


def _ends(parts: list[str], rarities: list[float]) -> list[tuple[str, float]]:
    return [(parts[0], rarities[0]), (parts[-1], rarities[-1])]


def _as_written(text: str, span: Span) -> str:
    return " ".join(text[span[0] : span[1]].split())
