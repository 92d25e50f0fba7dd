"""Every layer's and every pair's rankings from one pass over the corpus, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mlr_rag import progress
from mlr_rag.documents import Document
from mlr_rag.evaluation.itself import may_find_itself
from mlr_rag.evaluation.layer_scores import DEPTH, Best, Scores, Similarity, System, systems_of
from mlr_rag.model.encoding import WINDOW
from mlr_rag.model.model import MLRModel

POPULATIONS = ("all", "retrieved", "relevant")
_ROWS = 256  # documents that are scored at once


class LayerPass:
    """Rankings of every system, and the layers' scores in each population, from documents that come once.

    Populations: "all" pairs of a query and a document, as in-batch negatives are; "retrieved", the last layer's
    `DEPTH` best of each query, as mined negatives are; "relevant", the judged positives.

    Args:
        model: A model with every layer in its layer set.
        queries: query id → text.
        qrels: query id → document id → grade.
        similarity: "cosine" of vectors, or their "dot" product before the model normalizes them.
    """

    def __init__(
        self,
        model: MLRModel,
        queries: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, int]],
        similarity: Similarity = "cosine",
    ) -> None:
        self._model, self._similarity = model, similarity
        self._last = System("one", model.layers[-1:])
        self._rows = {id: row for row, id in enumerate(queries)}
        self._itself = {id: row for id, row in self._rows.items() if not may_find_itself(id, qrels)}
        self._relevant: dict[str, list[int]] = {}
        for query, grades in qrels.items():
            for document, grade in grades.items():
                if grade > 0:
                    self._relevant.setdefault(document, []).append(self._rows[query])
        num_layers, device = len(model.layers), model.device
        self.scores = {name: Scores(num_layers) for name in POPULATIONS}
        self.best = {system: Best(len(queries), device) for system in systems_of(num_layers)}
        self.ids: list[str] = []
        self.cut = 0
        self._queries = self._encode_queries(list(queries.values()))  # (L, Q, D)
        self._retrieved = torch.full((num_layers, len(queries), DEPTH), -torch.inf, device=device)

    def run(self, documents: Iterable[Document], total: int | None = None) -> None:
        """The pass: encode every document once, and rank it for every query in every system."""
        remaining = iter(documents)
        layers = len(self._model.layers)
        bar = progress.start(f"Measuring {layers} layers in {len(self.best)} ways", total, None)
        while window := list(islice(remaining, WINDOW)):
            for rows, vectors in self._stream([document.text for document in window], "document"):
                self._add([window[row].id for row in rows], vectors)
                bar.update(len(rows))
        bar.close()
        self.scores["retrieved"].add(self._retrieved[:, self.best[self._last].scores > -torch.inf])

    def rankings(self, system: System) -> dict[str, dict[str, float]]:
        """The run of a system: query id → document id → score."""
        best = self.best[system]
        scores, places = best.scores.tolist(), best.places.tolist()
        return {
            query: {
                self.ids[place]: score
                for place, score in zip(places[row], scores[row], strict=True)
                if score > -torch.inf
            }
            for query, row in self._rows.items()
        }

    @torch.inference_mode()
    def _add(self, ids: Sequence[str], vectors: Tensor) -> None:
        """Documents' token-pooled vectors of every layer, `(b, L, D)`, as they are before the modules that follow."""
        layers = self._finish(vectors)
        scores = torch.einsum("qd,bld->lqb", self._queries[-1], layers)
        self.scores["all"].add(scores.flatten(1))
        relevant = [(row, column) for column, id in enumerate(ids) for row in self._relevant.get(id, ())]
        if relevant:
            rows, columns = zip(*relevant, strict=True)
            self.scores["relevant"].add(scores[:, rows, columns])
        itself = torch.zeros(scores.shape[1:], dtype=torch.bool, device=scores.device)
        for column, id in enumerate(ids):
            if id in self._itself:
                itself[self._itself[id], column] = True
        start = len(self.ids)
        self.ids += ids
        for system, best in self.best.items():
            found = self._score(system, vectors, layers, scores).masked_fill(itself, -torch.inf)
            kept = best.add(found, start)
            if system == self._last:
                old_and_new = torch.cat([self._retrieved, scores], 2)
                self._retrieved = old_and_new.gather(2, kept.expand(len(scores), -1, -1))

    def _score(self, system: System, vectors: Tensor, layers: Tensor, scores: Tensor) -> Tensor:
        chosen = [layer - 1 for layer in system.layers]
        if system.kind == "both":
            return self._queries[chosen[0]] @ layers[:, chosen[0]].T
        if system.kind == "mean":
            return self._queries[-1] @ self._finish(vectors[:, chosen].mean(1)).T
        return scores[chosen].amax(0)

    @torch.inference_mode()
    def _encode_queries(self, texts: list[str]) -> Tensor:
        parts: list[tuple[int, Tensor]] = []
        for start in range(0, len(texts), WINDOW):
            for rows, vectors in self._stream(texts[start : start + WINDOW], "query"):
                parts += zip((start + row for row in rows), self._finish(vectors), strict=True)
        return torch.stack([layers for _, layers in sorted(parts, key=lambda part: part[0])], 1)

    def _stream(self, texts: list[str], task: str) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Batches of rows and their token-pooled vectors, `(b, L, D)`, taken before the modules that follow."""
        taken: list[Tensor] = []

        def take(module: Any, args: Any, features: Any) -> None:
            taken.append(features["layer_embeddings"])

        hook = self._model[1].register_forward_hook(take)
        try:
            for batch in self._model.stream(texts, task, batch_size=_ROWS, return_layers=True):
                self.cut += batch.cut if task == "document" else 0
                yield batch.indices, taken.pop()
        finally:
            hook.remove()

    def _finish(self, vectors: Tensor) -> Tensor:
        """What the modules after the pooling make of `(..., D)`; the last one normalizes, which "dot" leaves out."""
        rows: Any = vectors.reshape(-1, vectors.shape[-1])
        for module in list(self._model)[2:] if self._similarity == "cosine" else list(self._model)[2:-1]:
            rows = module({"sentence_embedding": rows})["sentence_embedding"]
        rows = rows[:, : self._model.truncate_dim].float()
        rows = torch.nn.functional.normalize(rows, dim=-1) if self._similarity == "cosine" else rows
        return torch.as_tensor(rows.reshape(*vectors.shape[:-1], -1))
