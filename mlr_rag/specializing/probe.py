"""The general probe: does a specialized model still find what has nothing to do with its corpus?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.specializing.material import Judged

GENERAL = Path(__file__).with_name("general")
# How far nDCG@10 of the general probe may fall. Fine-tuned models lost about a third of it on msmarco_5k, so that one
# at the limit loses less than a point there (general/README.md); the standard error of such a fall is 0.006 to 0.008.
TOLERANCE = 0.025


class Probe:
    """A judged collection on which a specialized model must not fall.

    Args:
        path: A BEIR folder or zip, of which the test split counts.

    Attributes:
        judged: Its queries and judgments.
        corpus: Its documents, id → text.
        fingerprint: Equal where queries, judgments and documents are.

    Raises:
        InvalidInputError: a file is missing or broken, or no query can be answered.
    """

    def __init__(self, path: str | Path) -> None:
        collection = Collection.load(path)
        self.judged, self.corpus = Judged(collection.queries, collection.qrels), dict(collection.texts())
        self._evaluator = RetrievalEvaluator(collection.queries, collection.qrels, self.corpus, name="probe")
        self.fingerprint = self._evaluator.fingerprint

    @classmethod
    def general(cls) -> Probe:
        """The probe that comes with the package: 330 short passages on everyday subjects and a query for each."""
        return cls(GENERAL)

    def measure(self, model: Any) -> float:
        """nDCG@10 of an encoder; the general probe takes a small model some seconds on a CPU."""
        values = self._evaluator.per_query(model)
        return sum(values.values()) / len(values)
