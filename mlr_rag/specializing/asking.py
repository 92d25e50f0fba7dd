"""Where the queries come from: the user's own, a language model's, or the documents' own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.material import Judged, Material
from mlr_rag.specializing.queries.extractive import EXTRACTIVE_KINDS, extract_queries
from mlr_rag.specializing.queries.generating import write_queries
from mlr_rag.specializing.queries.query import GeneratedQueries
from mlr_rag.specializing.queries.sentences import SPACELESS
from mlr_rag.specializing.stages import Done, Workspace
from mlr_rag.training.llm import LanguageModel

MOST, PER_DOCUMENT = 5000, 3  # queries that are made, at the most
BARE = ("phrase", "keywords")  # kinds that tell what a document is about, and ask nothing
_NEEDED = 40  # for a test that can show anything
_SHARE = 0.25  # of the time, for a language model
_READ = 200  # documents that tell what script they are in, and characters of each
_SPACELESS = re.compile(f"[{SPACELESS}]")


def make_queries(
    material: Material,
    language_model: LanguageModel | None,
    work: Workspace,
    clock: Clock,
    seed: int,
    taught: bool = False,
) -> Done[GeneratedQueries]:
    """Queries for a corpus without any: extracts, or a language model's, as many as it writes in a quarter of the time.

    What is but words of a document (`BARE`) is taken only where a teacher says what it is relevant to: a model that
    learned to find documents by such words found less by people's queries.

    Args:
        material: The corpus.
        language_model: None to take queries out of the documents.
        work: Keeps replies and the outcome.
        clock: Tells how much time there is.
        seed: Of every choice.
        taught: Whether there is a teacher.

    Raises:
        InvalidInputError: no query can be made.
        LanguageModelError: the model failed; its replies are kept.
    """
    corpus, wanted = material.corpus, min(MOST, PER_DOCUMENT * len(material.corpus))

    def made() -> GeneratedQueries:
        if language_model is None:
            kinds = [kind for kind in EXTRACTIVE_KINDS if taught or kind not in BARE]
            return extract_queries(corpus, count=wanted, kinds=kinds, seed=seed)
        replies, seconds = work.folder / "replies.sqlite", _SHARE * clock.left
        return write_queries(corpus, None, language_model, wanted, cache=replies, seed=seed, seconds=seconds)

    named = None if language_model is None else language_model.name
    needs = [material.fingerprint, named, clock.budget if named else None, seed, taught and named is None]
    done = work.stage("queries", needs, GeneratedQueries, made)
    if len(done.value.queries) < _NEEDED:
        reasons = "".join(f", {reason}: {count:,}" for reason, count in done.value.dropped.items())
        raise InvalidInputError(
            "too few queries could be made of the corpus",
            found=f"{len(done.value.queries)} of {len(corpus):,} documents{reasons}",
            expected=f"{_NEEDED} or more",
            remedy=_remedy(corpus) if language_model is None else "Pass a larger corpus, or queries of your own.",
        )
    return done


def _remedy(corpus: Mapping[str, str]) -> str:
    """What to do where the rules find too little."""
    some = "".join(text[:_READ] for text in islice(corpus.values(), _READ))
    if 2 * len(_SPACELESS.findall(some)) > len(some):
        return "The rules need spaces between words: have a language model write queries (llm=), or pass your own."
    return "Pass a larger corpus, a language model (llm=), or queries of your own."


def as_judged(generated: GeneratedQueries) -> tuple[Judged, dict[str, str], frozenset[str]]:
    """Generated queries, each judged by its document, and two things about some of them.

    What stands for the document in training where not all of it does, and which are but words of it (`BARE`).
    """
    made = {f"generated {number}": query for number, query in enumerate(generated.queries)}
    judged = Judged(
        {id: query.text for id, query in made.items()}, {id: {query.document: 1} for id, query in made.items()}
    )
    passages = {id: query.passage for id, query in made.items() if query.passage is not None}
    return judged, passages, frozenset(id for id, query in made.items() if query.kind in BARE)
