"""Queries that a language model writes, one a prompt; what it replied is kept, so that nothing is asked for twice."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlr_rag import progress
from mlr_rag.errors import InvalidInputError, LanguageModelError, MlrRagError
from mlr_rag.specializing.queries.cleaning import ASKED_BEFORE, MOST_WORDS, Cleaner
from mlr_rag.specializing.queries.kinds import KINDS, Example, kinds_of, prompt
from mlr_rag.specializing.queries.query import GeneratedQueries, GeneratedQuery
from mlr_rag.specializing.queries.sentences import words
from mlr_rag.specializing.queries.vocabulary import STOP_WORDS
from mlr_rag.training.cache import ContentCache, content_key, open_cache
from mlr_rag.training.llm import LanguageModel, as_language_model, in_threads, without_thoughts

_LONGEST_PASSAGE = 2_000  # characters, as in arXiv 2502.19712
_FIRST, _MOST_NONSENSE, _MOST_USELESS = 50, 0.5, 0.9  # of the first replies; repetitions are no nonsense
_LEAST = 60  # prompts that are sent however long it takes
_AT_ONCE = 4  # prompts for each thread between two looks at what came back, and at the time
_STEM = 4  # letters that two forms of a word have in common
_LABEL = re.compile(
    r"^(?:[-*•]\s+|\d+[.)]\s+)?(?:\**(?:search query|query|question|claim|title|keywords|search)\**\s*:\**\s*)?",
    re.IGNORECASE,
)
_MARKS = " \t\"'“”`*"
_PREAMBLE = re.compile(r"^(?:sure|certainly|of course|okay|ok|here(?:'s| is| are))\b.*[:!.]$", re.IGNORECASE)
_REFUSAL = re.compile(
    r"^(?:i(?:'m| am) (?:sorry|unable|not able)|sorry(?:[,.!:;]|\s+(?:but|i)\b|$)"
    r"|i (?:cannot|can't|can not|won't|will not|apologi[sz]e)"
    r"|as an? (?:ai|language model)|unfortunately, i|no (?:query|passage|text) (?:is|was|given|provided|found)\b|n/?a$"
    r"|none\.?$|\[(?:insert|your) )",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Order:
    """What is asked for."""

    document: str
    kind: str
    prompt: str
    key: bytes


def write_queries(
    corpus: Mapping[str, str],
    documents: Sequence[str] | None,
    language_model: Any,
    count: int | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    cache: ContentCache | str | Path | None = None,
    seed: int = 0,
    examples: Sequence[Example] = (),
    seconds: float = float("inf"),
    show_progress: bool | None = None,
) -> GeneratedQueries:
    """Queries that a language model writes for documents drawn at random, in equal shares of each kind.

    A reply is the first line of it that may be a query. What is none (blank, a refusal, over 40 words), is nearly
    copied from its passage, has no word in common with it, or was asked before, is counted and left out, so that there
    may be fewer than `count`.

    Args:
        corpus: Document id → text, of which 2,000 characters are shown.
        documents: The ids of those to choose from; by default all.
        language_model: Whatever `as_language_model` takes.
        count: How many queries are asked for; by default one a document. Beyond that each document is asked about
            again, for another kind.
        kinds: Names of KINDS.
        cache: Keeps the replies, under the model's name and the prompt: a ContentCache, or the path of its file.
        seed: Of which documents, which kinds and which examples.
        examples: (passage, query) pairs of your own, shown for the kind "examples" in place of ours.
        seconds: When to ask no more, once there are about 60 replies. Those that are kept take no time.
        show_progress: By default on a terminal.

    Raises:
        InvalidInputError: an unknown kind or document, or more queries than there are documents and kinds.
        LanguageModelError: the model failed, or more than half of its first 50 replies are no queries, copies of the
            passage or not about it, or nearly all are the same; what it replied is kept.
    """
    model = as_language_model(language_model)
    orders = _orders(corpus, documents, model, count, kinds, seed, examples)
    cleaner, dropped = Cleaner(), Counter[str]()
    found: list[GeneratedQuery] = []
    useless: list[str] = []
    ends = time.monotonic() + seconds
    known = open_cache(ContentCache, cache)
    bar = progress.start("Writing queries", len(orders), show_progress)
    try:
        start = 0
        while start < len(orders) and (start < _LEAST or time.monotonic() < ends):
            part = orders[start : start + (model.threads * _AT_ONCE if start else _FIRST)]
            for place, (order, reply) in enumerate(zip(part, _replies(part, model, known), strict=True), start):
                text, passage = first_query(reply), corpus[order.document][:_LONGEST_PASSAGE]
                reason = _reason(text, passage) or cleaner.reason(text, corpus[order.document])
                if not reason:
                    found.append(GeneratedQuery(text, order.document, order.kind))
                else:
                    dropped[reason] += 1
                    useless.append(reply)
                _check_sense(place + 1, len(orders), useless, dropped)
            bar.update(len(part))
            start += len(part)
    finally:
        bar.close()
        if known is not cache:
            known.close()
    return GeneratedQueries(tuple(found), dict(sorted(dropped.items())))


def _orders(
    corpus: Mapping[str, str],
    documents: Sequence[str] | None,
    model: LanguageModel,
    count: int | None,
    names: Sequence[str],
    seed: int,
    examples: Sequence[Example],
) -> list[_Order]:
    kinds, drawn = kinds_of(names), sorted(corpus if documents is None else set(documents))
    for id in drawn:
        if id not in corpus:
            raise InvalidInputError("no such document in the corpus", found=id, expected="ids of the corpus")
    wanted = len(drawn) if count is None else count
    if not 1 <= wanted <= len(drawn) * len(kinds):
        raise InvalidInputError(
            "not so many queries can be written",
            found=wanted,
            expected=f"1 to {len(drawn) * len(kinds)}: one of each kind for each document",
        )
    random.Random(f"{seed} documents").shuffle(drawn)  # noqa: S311
    orders = []
    for number in range(wanted):
        again, place = divmod(number, len(drawn))
        id, kind = drawn[place], kinds[(place + again) % len(kinds)]
        asked = prompt(kind, corpus[id][:_LONGEST_PASSAGE], f"{seed} {id} {kind.name}", examples)
        orders.append(_Order(id, kind.name, asked, content_key("reply", model.name, asked)))
    return orders


def _replies(orders: Sequence[_Order], model: LanguageModel, cache: ContentCache) -> list[str]:
    """From the cache, or the model; each is kept as soon as it is there."""
    known = cache.get_many(order.key for order in orders)

    def ask(order: _Order) -> str:
        reply = model.complete(order.prompt)
        cache.put_many({order.key: reply.encode("utf-8", "surrogatepass")})
        return reply

    missing = {order.key: order for order in orders if order.key not in known}
    asked, problem = in_threads(ask, list(missing.values()), model.threads)
    if problem is not None:
        if isinstance(problem, MlrRagError) or not isinstance(problem, Exception):
            raise problem  # such as a full disk
        raise LanguageModelError(
            "the language model failed",
            found=f"{type(problem).__name__} {problem!s:.200}".rstrip(" ."),
            expected=f"a reply of {model.name:.100}",
            remedy="See that it runs, can be reached and replies in time. Its other replies are kept: run this again.",
        ) from problem
    new = {key: (reply or "").encode("utf-8", "surrogatepass") for key, reply in zip(missing, asked, strict=True)}
    replies = known | new
    return [replies[order.key].decode("utf-8", "surrogatepass") for order in orders]


def first_query(reply: str) -> str:
    """The first line of a reply that may be a query, less its quotes and label; "" where there is none."""
    for line in without_thoughts(reply).splitlines():
        text = _LABEL.sub("", line.strip()).lstrip(_MARKS + "#").rstrip(_MARKS)  # C# keeps its own
        if _REFUSAL.match(text):
            return ""
        if words(text) and len(words(text)) <= MOST_WORDS and not _PREAMBLE.match(text):
            return text
    return ""


def _reason(query: str, passage: str) -> str:
    """Why what a model wrote is no query of the passage that it was shown, whatever else is asked; "" where it is."""
    if not query:
        return "no query in the reply"
    return "" if _stems(query) & _stems(passage) else "no word of its passage"


def _stems(text: str) -> set[str]:
    """The beginnings of its words, less function words."""
    return {word[:_STEM] for word in map(str.lower, words(text)) if word not in STOP_WORDS}


def _check_sense(done: int, wanted: int, useless: Sequence[str], dropped: Mapping[str, int]) -> None:
    """Stop where most of what comes back is useless, before more of it is paid for."""
    nonsense = len(useless) - dropped.get(ASKED_BEFORE, 0)
    if done == min(_FIRST, wanted) and (nonsense > _MOST_NONSENSE * done or len(useless) > _MOST_USELESS * done):
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(dropped.items()))
        raise LanguageModelError(
            f"{len(useless)} of the first {done} replies of the language model are of no use",
            found=f"{reasons}; such as " + "; ".join(f"{reply.strip()!r:.80}" for reply in useless[:3]),
            expected="one line of up to 40 words about the passage, in its language, and no copy of it",
            remedy="Take a model that follows instructions.",
        )
