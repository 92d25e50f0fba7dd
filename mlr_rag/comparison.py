"""How two models answer the same queries over the same documents: what to look at before a migration switches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mlr_rag.admission import Pair
from mlr_rag.documents import check_text
from mlr_rag.errors import InvalidInputError, InvalidQueryError

Queries: TypeAlias = "Sequence[str] | Mapping[str, Mapping[str, int]]"

_TOP, _DEPTH = 10, 100


@dataclass(frozen=True)
class Comparison:
    """Two models over the same documents.

    Attributes:
        queries: How many were asked.
        overlap: The mean share of the top 10 that both find, from 0 to 1.
        same_first: The share of queries with the same best document.
        before: "ndcg@10", "recall@100" and "mrr@10" of the old model; empty without judgments.
        after: The same of the new one.
    """

    queries: int
    overlap: float
    same_first: float
    before: dict[str, float]
    after: dict[str, float]


def compare(old: Pair, new: Pair, queries: Queries) -> Comparison:
    """Ask both models.

    Args:
        old: A model and its generation of the collection.
        new: Another model, and the generation that is to be compared.
        queries: Texts; or judgments: query text → document id → grade.

    Raises:
        InvalidQueryError: there are none, or one is no text.
    """
    texts = check_queries(queries)
    runs = [_run(pair, texts) for pair in (old, new)]
    tops = [[list(run[text])[:_TOP] for text in texts] for run in runs]
    pairs = list(zip(*tops, strict=True))
    before, after = (_metrics(queries, run) for run in runs)
    return Comparison(
        queries=len(texts),
        overlap=float(np.mean([len(set(one) & set(other)) / max(len(one), len(other), 1) for one, other in pairs])),
        same_first=float(np.mean([one[:1] == other[:1] for one, other in pairs])),
        before=before,
        after=after,
    )


def check_queries(queries: Any) -> list[str]:
    """The texts of the queries.

    Raises:
        InvalidQueryError: there are none, one is no text, or a judgment is no grade.
    """
    if not isinstance(queries, Iterable) or isinstance(queries, (str, bytes)):
        raise InvalidQueryError("no queries to compare with", found=queries, expected="a list, or judgments")
    texts = list(queries)
    if not texts:
        raise InvalidQueryError("no queries to compare with", found="none", expected="one or more")
    for text in texts:
        check_text(text, "a query", InvalidQueryError)
        grades = queries[text] if isinstance(queries, Mapping) else {}
        if not isinstance(grades, Mapping) or not all(type(grade) is int for grade in grades.values()):
            raise InvalidQueryError(
                f"the judgments of {text!r:.60} are none", found=grades, expected="id → whole grade"
            )
    return texts


def read_queries(file: Path) -> Queries:
    """Queries to compare with: one a line; or JSON Lines with "query" and "relevant", ids or id → grade, all of them.

    Raises:
        InvalidInputError: names the line that is neither.
    """
    try:
        content = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidInputError(f"cannot read {file}", found=str(problem), expected="a text file in UTF-8") from problem
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if file.suffix.lower() not in (".jsonl", ".ndjson"):
        return [line.strip() for _, line in lines]
    judged: dict[str, dict[str, int]] = {}
    for number, line in lines:
        try:
            parsed = json.loads(line)
            relevant = parsed["relevant"]
            if not isinstance(relevant, (list, dict)):
                raise TypeError(f"relevant is {relevant!r:.40}")
            grades = relevant if isinstance(relevant, dict) else dict.fromkeys(relevant, 1)
            judged[str(parsed["query"])] = {str(id): int(grade) for id, grade in grades.items()}
        except (ValueError, KeyError, TypeError) as problem:
            raise InvalidInputError(
                f"{file}, line {number:,}, is no judged query ({type(problem).__name__}: {problem})",
                found=line[:80],
                expected='{"query": "a text", "relevant": ["an id"]}',
            ) from None
    return judged


def _run(pair: Pair, texts: list[str]) -> dict[str, dict[str, float]]:
    """Document id → score, best first, for each query."""
    pair.check_model()
    vectors = np.asarray(pair.encoder.encode_query(texts), np.float32)
    return {
        text: {match.record.document.id: match.score for match in pair.store.query(vector, _DEPTH)}
        for text, vector in zip(texts, vectors, strict=True)
    }


def _metrics(queries: Queries, run: dict[str, dict[str, float]]) -> dict[str, float]:
    if not isinstance(queries, Mapping):
        return {}
    from mlr_rag.evaluation.metrics import mean_metrics

    return mean_metrics(queries, run)
