"""BM25 as a source of candidates, computed by bm25s."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mlr_rag.errors import InvalidInputError, MissingExtraError
from mlr_rag.training.mining.candidates import Corpus, Ranking, best, texts_of

Stemmer = Callable[[list[str]], list[str]]


class BM25:
    """The documents that share words with the query, scored as Lucene does; others are no candidates.

    Words are runs of two or more letters or digits, in lower case, less English stop words. With the defaults nDCG@10
    is 0.662 on SciFact and 0.406 on nl2bash.

    Args:
        k1: How fast repeated words cease to count.
        b: How much long documents lose, from 0 to 1.
        stemmer: From words to their stems, such as `Stemmer.Stemmer("english").stemWords` of PyStemmer: with it 0.686
            on SciFact, which is English prose, but 0.387 on nl2bash, where words are names of commands as well.
    """

    def __init__(self, k1: float = 1.5, b: float = 0.75, stemmer: Stemmer | None = None) -> None:
        if not (k1 >= 0 and 0 <= b <= 1):
            raise InvalidInputError("no parameters of BM25", found=f"k1={k1}, b={b}", expected="k1 >= 0, 0 <= b <= 1")
        self._k1, self._b, self._stemmer, self._bm25s = k1, b, stemmer, _bm25s()

    def index(self, corpus: Corpus) -> _WordIndex:
        """See Source."""
        texts = texts_of(corpus)
        scorer = self._bm25s.BM25(k1=self._k1, b=self._b)
        words = self._words(list(texts.values()))
        if not any(words):
            raise InvalidInputError("no document has a word that counts", expected="letters, digits")
        scorer.index(words, show_progress=False)
        return _WordIndex(list(texts), scorer, self._words)

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return words


class _WordIndex:
    def __init__(self, ids: list[str], scorer: Any, words: Callable[[list[str]], list[list[str]]]) -> None:
        self._ids, self._scorer, self._words = ids, scorer, words

    def search(self, queries: Sequence[str], k: int) -> Iterator[Ranking]:
        for words in self._words(list(queries)):
            known = self._scorer.get_tokens_ids(words)
            scores = self._scorer.get_scores_from_ids(known) if known else np.zeros(len(self._ids))
            yield [(self._ids[place], float(scores[place])) for place in best(scores, k) if scores[place] > 0]


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError as problem:
        raise MissingExtraError(
            "BM25 needs a package that is not installed",
            found=f"no {problem.name}",
            remedy="pip install 'mlr-rag[train]'",
        ) from problem
    logging.getLogger("bm25s").setLevel(logging.NOTSET)  # it sets DEBUG, and so speaks where the application is silent
    return bm25s
