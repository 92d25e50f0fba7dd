"""The general probe: does a specialized model still find what has nothing to do with its corpus?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.evaluation.significance import Difference, paired_bootstrap
from mlr_rag.specializing.material import Judged

GENERAL = Path(__file__).with_name("general")
# How far nDCG@10 of the general probe may fall. Fine-tuned models lost about a third of it on msmarco_5k, so that one
# at the limit loses less than a point there (general/README.md); the standard error of such a fall is 0.006 to 0.008.
TOLERANCE = 0.025


@dataclass(frozen=True)
class ProbeResult:
    """How well a model does on a probe.

    Attributes:
        ndcg: nDCG@10, the mean over the queries.
        values: nDCG@10 of each query, by id, always in the same order.
        fingerprint: The probe's: results of one probe only can be compared.
    """

    ndcg: float
    values: dict[str, float]
    fingerprint: str


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

    def measure(self, model: Any) -> ProbeResult:
        """nDCG@10 of an encoder; the general probe takes a small model some seconds on a CPU."""
        values = self._evaluator.per_query(model)
        return ProbeResult(sum(values.values()) / len(values), values, self.fingerprint)


def drop(base: ProbeResult, tuned: ProbeResult) -> Difference:
    """How much nDCG@10 falls from base to tuned, query by query; negative where it rises.

    Raises:
        InvalidInputError: these are results of two different probes.
    """
    if base.fingerprint != tuned.fingerprint:
        raise InvalidInputError(
            "results of two probes",
            found=f"{len(base.values)} and {len(tuned.values)} queries, or other texts",
            expected="both models measured on the same probe",
        )
    return paired_bootstrap(list(base.values.values()), list(tuned.values.values()))
