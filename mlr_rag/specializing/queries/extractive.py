"""Queries taken out of the documents themselves, where there is no language model: extractive queries."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mlr_rag import progress
from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.queries.cleaning import Cleaner
from mlr_rag.specializing.queries.keywords import key_phrases, keywords
from mlr_rag.specializing.queries.query import GeneratedQueries, GeneratedQuery
from mlr_rag.specializing.queries.questions import claim, is_question, questions
from mlr_rag.specializing.queries.sentences import Span, headings, plain, sentences, words
from mlr_rag.specializing.queries.titles import title
from mlr_rag.specializing.queries.vocabulary import Vocabulary, total

EXTRACTIVE_KINDS = ("title", "heading", "phrase", "keywords", "first sentence", "sentence", "question")

_READ = 12_000  # characters of a document: a longer one is known by them
_LEAST_LEFT = 12  # words that must be left of a passage, for it to be worth finding
_OF_A_KIND = 4  # queries of one kind that a document gives at the most


class _Made(NamedTuple):
    text: str
    passage: str | None = None


def extract_queries(
    corpus: Mapping[str, str],
    documents: Sequence[str] | None = None,
    count: int | None = None,
    kinds: Sequence[str] = EXTRACTIVE_KINDS,
    seed: int = 0,
    show_progress: bool | None = None,
) -> GeneratedQueries:
    """Queries out of the documents' own words, by rules: no model is asked, and the same input gives the same queries.

    Kinds: "title" and "first sentence", whose passage is then the rest of the text; "sentence", what another sentence
    claims, less that sentence; "heading"; "phrase" and "keywords", by TF-IDF over the corpus; "question", one that the
    text asks itself, or, in English, that a sentence of it answers. Round by round, each document gives one query, of
    the kind that there are fewest of so far among those that it has something for.

    Args:
        corpus: Document id → text; all of it is read for how rare words are.
        documents: The ids of those to make queries of; by default all.
        count: How many queries, at the most; by default one a document.
        kinds: Which.
        seed: Of the order of the documents, and of what is drawn where there is a choice.
        show_progress: By default on a terminal.

    Raises:
        InvalidInputError: an unknown kind or document, or no query at all.
    """
    chosen = sorted(corpus if documents is None else set(documents))
    _check(chosen, corpus, kinds)
    random.Random(f"{seed} documents").shuffle(chosen)  # noqa: S311
    wanted = len(chosen) if count is None else count
    extractor = _Extractor(corpus, kinds, seed)
    found: list[GeneratedQuery] = []
    bar = progress.start("Extracting queries", wanted, show_progress)
    try:
        while chosen and len(found) < wanted:
            left = []
            for id in chosen:
                query = extractor.next_of(id)
                if query is not None:
                    found.append(query)
                    left.append(id)
                    bar.update(1)
                if len(found) == wanted:
                    break
            chosen = left
    finally:
        bar.close()
    if not found:
        raise InvalidInputError(
            "no query can be extracted from these documents",
            found=", ".join(f"{reason}: {count}" for reason, count in sorted(extractor.dropped.items())),
            expected="texts with sentences, titles or several words, with spaces between these",
            remedy="Pass queries of your own, or a language model.",
        )
    return GeneratedQueries(tuple(found), dict(sorted(extractor.dropped.items())))


def _check(documents: Sequence[str], corpus: Mapping[str, str], kinds: Sequence[str]) -> None:
    unknown = [kind for kind in kinds if kind not in EXTRACTIVE_KINDS]
    if unknown or not kinds:
        raise InvalidInputError(
            "an unknown kind of extractive query",
            found=unknown[0] if unknown else "none",
            expected=", ".join(EXTRACTIVE_KINDS),
        )
    for id in documents:
        if id not in corpus:
            raise InvalidInputError("no such document in the corpus", found=id, expected="ids of the corpus")


class _Extractor:
    """What each document still has to give, how many there are of each kind, and what was left out."""

    def __init__(self, corpus: Mapping[str, str], kinds: Sequence[str], seed: int) -> None:
        self._corpus, self._kinds, self._seed = corpus, kinds, seed
        self._vocabulary = Vocabulary(corpus)
        self._titles = Counter(_said(text, title(text, self._vocabulary)) for text in corpus.values())
        self._cleaner = Cleaner()
        self._left: dict[str, dict[str, list[_Made]]] = {}
        self._shares = Counter(dict.fromkeys(kinds, 0))
        self.dropped: Counter[str] = Counter()

    def next_of(self, id: str) -> GeneratedQuery | None:
        """The document's next query; None where it has none left."""
        if id not in self._left:
            self._left[id] = self._all_of(id)
        left = self._left[id]
        while left:
            kind = min(left, key=lambda kind: (self._shares[kind], self._kinds.index(kind)))
            made = left[kind].pop(0)
            if not left[kind]:
                del left[kind]
            text = self._corpus[id]
            reason = self._cleaner.reason(made.text, text if made.passage is None else made.passage)
            if not reason:
                self._shares[kind] += 1
                return GeneratedQuery(made.text, id, kind, made.passage)
            self.dropped[reason] += 1
        return None

    def _all_of(self, id: str) -> dict[str, list[_Made]]:
        text = self._corpus[id][:_READ]
        random_ = random.Random(f"{self._seed} {id}")  # noqa: S311
        made: dict[str, list[_Made]] = {kind: [] for kind in self._kinds}
        for kind, each in self._of(text, random_.random()):
            if kind in made and len(made[kind]) < _OF_A_KIND and len(words(each.text)) > 1:
                made[kind].append(each)
        found = {kind: each for kind, each in made.items() if each}
        if not found:
            self.dropped["document without anything to extract"] += 1
        return found

    def _of(self, text: str, drawn: float) -> Iterator[tuple[str, _Made]]:
        at = title(text, self._vocabulary)
        called = _said(text, at)
        body = text if at is None else _without(text, at)
        phrases = key_phrases(text, self._vocabulary)
        if called and self._titles[called] == 1 and _enough(body):
            yield "title", _Made(called, body)
        elif called:  # several documents have it, and only what is theirs alone tells them apart
            own = [phrase for phrase in phrases if not set(words(phrase.lower())) & set(words(called.lower()))]
            yield from (("title", _Made(f"{called} {phrase}")) for phrase in own[:2])
        for line in headings(text):
            if line != called:
                yield "heading", _Made(f"{called} {line}" if called and len(words(line)) < 4 else line)
        yield from (("phrase", _Made(phrase)) for phrase in phrases)
        yield "keywords", _Made(keywords(text, self._vocabulary, drawn))
        yield from self._sentences(text, body, called)

    def _sentences(self, text: str, body: str, called: str) -> Iterator[tuple[str, _Made]]:
        spans = sentences(body)
        told = [plain(body[start:end]) for start, end in spans]
        ranked, asked, answered = [], [], []
        for place, (span, sentence) in enumerate(zip(spans, told, strict=True)):
            rest = f"{called}\n{_without(body, span)}" if called else _without(body, span)
            if is_question(sentence):
                asked.append(_Made(sentence, rest))
                continue
            answered += [_Made(question) for question in questions(sentence)]
            if claim(sentence) and _enough(rest):
                if place == 0:
                    yield "first sentence", _Made(claim(sentence), rest)
                else:
                    ranked.append((-self._shared(sentence, rest), place, _Made(claim(sentence), rest)))
        yield from (("sentence", made) for *_, made in sorted(ranked))
        yield from (("question", made) for made in [*asked, *answered])  # the text's own first

    def _shared(self, sentence: str, rest: str) -> float:
        """How rare, on the mean of its words, is what the sentence has in common with the rest of the passage."""
        inside = {word.lower() for word in words(sentence)}
        common = inside & {word.lower() for word in words(rest)}
        return total(self._vocabulary.rarity(word) for word in common) / len(inside)


def _said(text: str, at: Span | None) -> str:
    return "" if at is None else plain(text[at[0] : at[1]])


def _without(text: str, span: Span) -> str:
    return f"{text[: span[0]].rstrip()} {text[span[1] :].lstrip()}".strip()


def _enough(passage: str) -> bool:
    return len(words(passage)) >= _LEAST_LEFT
