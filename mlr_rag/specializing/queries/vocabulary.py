"""What a corpus says about words: how rare they are, which phrases recur, which are written in lower case."""

from __future__ import annotations

import math
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from mlr_rag.specializing.queries.sentences import Span, sentences, word_spans, words

READ = 4_000  # characters of a text: what it is about is said early
_READ = 10_000  # documents; more do not change what is rare
_BUCKETS = 2**22  # of phrases: two that share one are taken for one, which is seldom and does no harm
LONGEST_PHRASE = 4  # words

# Function words of English; other languages' are found by how common they are.
_ENGLISH = """
    a about above after again against all almost along already also although always am among an and any are aren't
    around as at away be became because become becomes been before being below between both but by came can cannot
    come could did do does doesn't doing don't done down during each either else etc even ever every few for from
    further get gets given gives had has have having he hence her here hers herself him himself his how however i if
    in into is isn't it its itself just least less like made make makes many may me might more most much must my
    neither no nor not now of off often on once one only onto or other others our out over own per perhaps quite
    rather s same several shall she should since so some still such t than that the their them then there therefore
    these they this those though through thus to together too toward towards under until up upon us use used uses
    using usually very via was we well were what when where whether which while who whom whose why will with within
    without would yet you your
"""
STOP_WORDS = frozenset(_ENGLISH.split())


class Vocabulary:
    """The words and phrases of a corpus, counted over 10,000 of its documents at the most.

    Args:
        texts: The corpus.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        ids = sorted(texts)
        step = max(1, math.ceil(len(ids) / _READ))
        self.documents = len(ids[::step])
        self._holding: Counter[str] = Counter()  # documents with the word
        self._lower: Counter[str] = Counter()  # times in lower case, less times with a capital
        self._phrases = array("H", bytes(2 * _BUCKETS))
        for id in ids[::step]:
            self._count(texts[id][:READ])

    def _count(self, text: str) -> None:
        found = words(text)
        self._holding.update({word.lower() for word in found})
        for word in found:
            self._lower[word.lower()] += 1 if word.islower() else -1
        for bucket in {_bucket(phrase) for phrase, _ in self.phrases(text) if " " in phrase}:
            self._phrases[bucket] = min(self._phrases[bucket] + 1, 65_535)

    def rarity(self, word: str) -> float:
        """The inverse document frequency, 0 for function words."""
        return (
            0.0 if self.is_function_word(word) else math.log((self.documents + 1) / (self._holding[word.lower()] + 0.5))
        )

    def is_function_word(self, word: str) -> bool:
        """An English one, or a word that more than a third of the documents hold, if there are 50 documents."""
        known = word.lower()
        return known in STOP_WORDS or (self.documents >= 50 and self._holding[known] * 3 > self.documents)

    def is_no_name(self, word: str) -> bool:
        """Whether it is a function word, or the corpus writes it in lower case more often than with a capital."""
        return word.lower() in STOP_WORDS or self._lower[word.lower()] > 0

    def is_shared(self, word: str) -> bool:
        """Whether two documents or more hold it."""
        return self._holding[word.lower()] > 1

    def recurs(self, phrase: str) -> bool:
        """Whether two documents or more hold it."""
        return self._phrases[_bucket(phrase)] > 1

    def phrases(self, text: str) -> Iterator[tuple[str, Span]]:
        """Each run of up to four words with no function word or mark between them, in lower case, and its place."""
        for chunk in _chunks(text):
            for start in range(len(chunk)):
                for end in range(start + 1, min(start + LONGEST_PHRASE, len(chunk)) + 1):
                    span = (chunk[start][0], chunk[end - 1][1])
                    yield " ".join(text[span[0] : span[1]].lower().split()), span


def _chunks(text: str) -> Iterator[list[Span]]:
    """The words between function words and marks."""
    for start, end in sentences(text):
        chunk: list[Span] = []
        for a, b in word_spans(text[start:end]):
            span = (a + start, b + start)
            if chunk and text[chunk[-1][1] : span[0]].strip():
                yield chunk
                chunk = []
            if text[span[0] : span[1]].lower() in STOP_WORDS:
                if chunk:
                    yield chunk
                chunk = []
            else:
                chunk.append(span)
        if chunk:
            yield chunk


def _bucket(phrase: str) -> int:
    return zlib.crc32(phrase.encode("utf-8", "surrogatepass")) % _BUCKETS


def total(rarities: Iterable[float]) -> float:
    """Their sum, exact, so that it is the same in any order."""
    return math.fsum(rarities)
