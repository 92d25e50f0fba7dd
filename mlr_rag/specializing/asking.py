"""Where the queries come from: the user's own, a language model's, or the documents' own words."""

from __future__ import annotations

import time
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.material import Judged, Material
from mlr_rag.specializing.queries.extractive import extract_queries
from mlr_rag.specializing.queries.generating import write_queries
from mlr_rag.specializing.queries.query import GeneratedQueries
from mlr_rag.specializing.stages import Done, Workspace
from mlr_rag.training.llm import LanguageModel

MOST, PER_DOCUMENT = 5000, 3  # queries that are made, at the most
_NEEDED = 40  # for a test that can show anything
_TRIED, _SHARE, _LEAST = 16, 0.25, 60  # replies that tell how fast a model is; the share of the time; queries


def make_queries(
    material: Material, language_model: LanguageModel | None, work: Workspace, clock: Clock, seed: int
) -> Done[GeneratedQueries]:
    """Queries for a corpus without any: extracts, or a language model's, as many as it writes in a quarter of the time.

    Args:
        material: The corpus.
        language_model: None to take queries out of the documents.
        work: Keeps replies and the outcome.
        clock: Tells how much time there is.
        seed: Of every choice.

    Raises:
        InvalidInputError: no query can be made.
        LanguageModelError: the model failed; its replies are kept.
    """
    corpus, wanted = material.corpus, min(MOST, PER_DOCUMENT * len(material.corpus))

    def made() -> GeneratedQueries:
        if language_model is None:
            return extract_queries(corpus, count=wanted, seed=seed)
        replies: Any = work.folder / "replies.sqlite"
        tried, started = min(_TRIED, wanted), time.perf_counter()
        write_queries(corpus, None, language_model, tried, cache=replies, seed=seed)
        a_reply = max(1e-6, (time.perf_counter() - started) / tried)
        fit = max(_LEAST, int(min(1e9, _SHARE * clock.left / a_reply)))
        return write_queries(corpus, None, language_model, min(wanted, fit), cache=replies, seed=seed)

    named = None if language_model is None else language_model.name
    done = work.stage("queries", [material.fingerprint, named, clock.budget, seed], GeneratedQueries, made)
    if len(done.value.queries) < _NEEDED:
        raise InvalidInputError(
            "too few queries could be made of the corpus",
            found=f"{len(done.value.queries)} of {len(corpus):,} documents",
            expected=f"{_NEEDED} or more",
            remedy="Pass a larger corpus, or queries of your own.",
        )
    return done


def as_judged(generated: GeneratedQueries) -> tuple[Judged, dict[str, str]]:
    """Generated queries, each judged by its document, and what stands for this in training where not all of it does."""
    made = {f"generated {number}": query for number, query in enumerate(generated.queries)}
    judged = Judged(
        {id: query.text for id, query in made.items()}, {id: {query.document: 1} for id, query in made.items()}
    )
    return judged, {id: query.passage for id, query in made.items() if query.passage is not None}
