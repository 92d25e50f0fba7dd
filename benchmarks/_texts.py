"""Documents with vectors for the benchmarks of stores: clustered as those of texts are, and queries near them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlr_rag import Document
from mlr_rag.filters import Filter, matches, parse
from mlr_rag.stores import Record, Vector
from mlr_rag.testing import unit_rows

DIMENSION = 384
BATCH = 256
CONDITION = {"year": {"$gte": 2023}}  # two years of 25
_LANGUAGES, _YEARS = ("de", "en", "fr", "it"), range(2000, 2025)
_CLUSTER = 50  # documents, on average
_LENGTH = 300  # characters


@dataclass(frozen=True)
class Texts:
    """Some documents, their vectors, and those of queries from the same clusters that are not stored; and of others."""

    documents: list[Document]
    rows: Vector
    queries: Vector
    others: Vector

    @classmethod
    def make(cls, size: int, queries: int, seed: int) -> Texts:
        """The same for the same arguments."""
        rows = unit_rows(size + 2 * queries, DIMENSION, seed, max(_CLUSTER, size) // _CLUSTER)
        choose = random.Random(seed)
        words = ["".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=choose.randint(2, 10))) for _ in range(5000)]
        story = " ".join(choose.choices(words, k=100_000))
        documents = []
        for number in range(size):
            start = choose.randrange(len(story) - _LENGTH)
            metadata = {"year": choose.choice(_YEARS), "lang": choose.choice(_LANGUAGES), "n": number}
            text = f"{number}: {story[start : start + _LENGTH]}"
            documents.append(Document(text, f"document-{number}", metadata))
        return cls(documents, rows[:size], *np.split(rows[size:], 2))

    def batches(self) -> Iterator[list[Record]]:
        """Everything, as it is written."""
        for start in range(0, len(self.documents), BATCH):
            part = slice(start, start + BATCH)
            yield [Record(*pair) for pair in zip(self.documents[part], self.rows[part], strict=True)]

    def recall(self, found: list[list[str]], k: int, filter: Filter | None) -> float:
        """The share of the answers to the first queries that are as near as the exact k-th."""
        passed = np.array([matches(filter, document.metadata) for document in self.documents])
        numbers = {document.id: number for number, document in enumerate(self.documents)}
        hits = 0
        for query, ids in zip(self.queries, found, strict=False):
            scores = np.where(passed, self.rows @ query, -np.inf)
            least = np.partition(scores, -k)[-k] - 1e-6
            hits += sum(scores[numbers[id]] >= least for id in ids)
        return float(hits / (k * len(found)))


def condition() -> Filter:
    """`CONDITION`, parsed."""
    parsed = parse(CONDITION)
    if parsed is None:
        raise ValueError("a condition that always holds")
    return parsed
