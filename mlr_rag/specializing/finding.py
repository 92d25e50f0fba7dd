"""What a ranker finds for every query, with its own scores."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from mlr_rag import progress
from mlr_rag.evaluation.itself import without_itself
from mlr_rag.specializing.material import Judged
from mlr_rag.training.mining.candidates import Run, Source

_AT_ONCE = 512  # queries


def find(source: Source, asked: Judged, corpus: Mapping[str, str], depth: int, name: str = "Searching") -> Run:
    """The `depth` best documents of each query and their scores, less what `without_itself` leaves out.

    Args:
        source: Dense or BM25 (mlr_rag.training).
        asked: Queries, none of them blank, and their judgments.
        corpus: Document id → text.
        depth: How many documents.
        name: What the progress bar says.
    """
    index, run, remaining = source.index(corpus), {}, iter(asked.queries.items())
    bar = progress.start(name, len(asked.queries), None)
    try:
        while part := list(islice(remaining, _AT_ONCE)):
            for (id, _), ranking in zip(part, index.search([text for _, text in part], depth + 1), strict=True):
                run[id] = without_itself(id, ranking, depth, asked.qrels)
            bar.update(len(part))
    finally:
        bar.close()
    return run


def pooled(run: Mapping[str, Mapping[str, float]], depth: int) -> list[str]:
    """The documents among some query's first `depth`, sorted."""
    return sorted({document for found in run.values() for document in islice(found, depth)})
