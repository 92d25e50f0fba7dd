"""RetrievalEvaluator: how well a model retrieves while it is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers.base.evaluation import BaseEvaluator

from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.itself import may_find_itself
from mlr_rag.evaluation.metrics import DEPTH, Qrels, Run, mean_metrics, query_metrics
from mlr_rag.model.encoding import WINDOW

_FEW = 8192  # documents whose vectors are kept: 12 MiB of 384 dimensions
_BEYOND = np.iinfo(np.int64).max  # the position of no document


class RetrievalEvaluator(BaseEvaluator):
    """nDCG@10, MRR@10 and recall@100 of a model that searches a corpus for every query, exactly.

    Grades are used as they are; documents of equal scores rank by id, as in the stores; of a document with several
    vectors the best one counts; a query that is itself a document does not find itself (see `may_find_itself`). Memory
    does not grow with the corpus beyond its texts. Of a small corpus the vectors are kept, and serve for as long as the
    model's document side stays as it is.

    Args:
        queries: The text of each query, by id.
        qrels: Query id → document id → grade; above 0 is relevant. Queries without a positive judgment are left out.
        corpus: The text of each document, by id; blank ones cannot be found.
        name: What the metrics begin with: "dev" gives "dev_ndcg@10".

    Attributes:
        primary_metric: "<name>_ndcg@10".
        fingerprint: Equal where the queries, judgments and documents are.

    Raises:
        InvalidInputError: no query has a relevant document in the corpus, or a judged query has no text.
    """

    def __init__(self, queries: Mapping[str, str], qrels: Qrels, corpus: Mapping[str, str], name: str = "dev") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        judged = {id: dict(grades) for id, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
        missing = sorted(judged.keys() - queries.keys())
        if missing:
            raise InvalidInputError(
                "judged queries have no text", found=f"{len(missing):,}, such as {missing[0]}", expected="none"
            )
        if not any(grade > 0 and corpus.get(doc) for grades in judged.values() for doc, grade in grades.items()):
            raise InvalidInputError(
                "no query has a relevant document in the corpus", found=f"{len(judged):,} queries with judgments"
            )
        self.name, self._qrels = name, judged
        self._queries = {id: queries[id] for id in judged}
        self._corpus = {id: corpus[id] for id in sorted(corpus) if corpus[id].strip()}
        self.primary_metric = f"{name}_ndcg@10"
        content = json.dumps([name, self._queries, judged, self._corpus], sort_keys=True)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self._kept: tuple[str, list[npt.NDArray[np.float32]]] = "", []

    @classmethod
    def over_pool(
        cls,
        queries: Mapping[str, str],
        qrels: Qrels,
        corpus: Mapping[str, str],
        run: Run,
        depth: int = DEPTH,
        name: str = "dev_pool",
    ) -> RetrievalEvaluator:
        """The same over a pool: only the documents that are judged or among some query's first `depth` of `run`.

        To encode a whole corpus at each evaluation is too slow on a CPU. Figures over a pool are higher than over the
        corpus and comparable only with others over the same pool: choose a checkpoint by them, and report none.
        """
        judged = (document for grades in qrels.values() for document in grades)
        mined = (
            document
            for found in run.values()
            for document, _ in sorted(found.items(), key=lambda hit: (-hit[1], hit[0]))[:depth]
        )
        pool = {document: corpus[document] for document in (*judged, *mined) if document in corpus}
        return cls(queries, qrels, pool, name)

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """The metrics; nothing is written, and `output_path`, `epoch` and `steps` count for nothing."""
        metrics = mean_metrics(self._qrels, self._search(model))
        return {f"{self.name}_{metric}": value for metric, value in metrics.items()}

    def per_query(self, model: Any) -> dict[str, float]:
        """nDCG@10 of each query, by id, always in the same order: what paired tests of two models compare."""
        return query_metrics(self._qrels, self._search(model))["ndcg@10"]

    def _search(self, model: Any) -> Run:
        """The first DEPTH documents of each query."""
        queries = np.asarray(model.encode_query(list(self._queries.values())), np.float32)
        ids = list(self._corpus)  # sorted, so that a document's position stands for its id among equal scores
        place = {id: position for position, id in enumerate(ids)}
        itself = np.array(
            [_BEYOND if may_find_itself(id, self._qrels) else place.get(id, _BEYOND) for id in self._queries]
        )
        scores = np.full((len(queries), 0), -np.inf, np.float32)
        positions = np.empty(scores.shape, np.int64)
        for start, documents in zip(range(0, len(ids), WINDOW), self._encoded(model, ids), strict=True):
            window = ids[start : start + WINDOW]
            found = _scores(queries, documents)
            rows = np.nonzero((itself >= start) & (itself < start + len(window)))[0]
            found[rows, itself[rows] - start] = -np.inf
            here = np.broadcast_to(np.arange(start, start + len(window)), found.shape)
            scores, positions = np.hstack([scores, found]), np.hstack([positions, here])
            best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
            scores, positions = np.take_along_axis(scores, best, 1), np.take_along_axis(positions, best, 1)
        return {
            id: {ids[p]: float(s) for p, s in zip(places, values, strict=True) if s > -np.inf}
            for id, places, values in zip(self._queries, positions, scores, strict=True)
        }

    def _encoded(self, model: Any, ids: list[str]) -> Iterable[npt.NDArray[np.float32]]:
        """The vectors of each window of documents."""
        texts = (ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW))
        windows = (np.asarray(model.encode_document([self._corpus[id] for id in part]), np.float32) for part in texts)
        key = getattr(model, "document_fingerprint", "")
        if not key or len(ids) > _FEW:
            return windows
        if key != self._kept[0]:
            self._kept = key, list(windows)
        return self._kept[1]


def _scores(queries: npt.NDArray[np.float32], documents: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`(q, n)` of queries `(q, D)` with documents `(n, D)`, or with the best vector of `(n, m, D)`."""
    vectors = documents.reshape(len(documents), -1, queries.shape[1])
    layers = [queries @ vectors[:, layer].T for layer in range(vectors.shape[1])]
    scores: npt.NDArray[np.float32] = np.max(layers, axis=0)
    return scores
