"""Candidates for each query: from vectors, from words, and from several sources fused by rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mlr_rag import progress
from mlr_rag.encoders import Encoder, Vectors, open_encoder
from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.itself import without_itself
from mlr_rag.training.cache import open_cache
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.teachers.scores import ScoreCache

if TYPE_CHECKING:
    from mlr_rag.retriever import Retriever

Corpus: TypeAlias = "Mapping[str, str] | Retriever"  # id → text, or an open collection
Ranking: TypeAlias = list[tuple[str, float]]  # (document id, score), best first, ties by id
Run: TypeAlias = dict[str, dict[str, float]]  # query id → document id → score, best first

_AT_ONCE = 512  # queries
_HITS = 64  # queries whose hits, texts and all, a store gives at once
_SCORES = 2**24  # scores that are held at once, 64 MiB


class Index(Protocol):
    """A corpus that a source has made ready."""

    def search(self, queries: Sequence[str], k: int) -> Iterator[Ranking]:
        """The k best documents of each query; fewer where fewer have anything to do with it."""


class Source(Protocol):
    """A way of finding candidates."""

    def index(self, corpus: Corpus) -> Index:
        """Make a corpus ready to be searched."""


class Dense:
    """The documents whose vectors are nearest to the query's; with several vectors a document, the nearest.

    Exact over texts. Of an open collection, its own store is asked, and nothing is encoded but the queries, where the
    model is the same: the search is then the store's, which in a folder is approximate from 20,000 documents on.

    Args:
        model: An encoder, a SentenceTransformer, or a name or folder; by default the collection's own.
        cache: Where vectors are kept: a VectorCache, or the path of its file.
    """

    def __init__(self, model: Any = None, cache: VectorCache | str | Path | None = None) -> None:
        self._encoder = None if model is None else open_encoder(model)
        self._cache = open_cache(VectorCache, cache)

    def index(self, corpus: Corpus) -> Index:
        """See Source."""
        if isinstance(corpus, Mapping):
            if self._encoder is None:
                raise InvalidInputError(
                    "no model to encode the texts with", expected="Dense(model)", remedy="Or pass an open Retriever."
                )
            return _VectorIndex(self._encoder, self._cache, texts_of(corpus))
        if self._encoder is None or _same(self._encoder, corpus.model):
            return _StoreIndex(corpus)
        return _VectorIndex(self._encoder, self._cache, texts_of(corpus))


class _VectorIndex:
    def __init__(self, encoder: Encoder, cache: VectorCache, texts: Mapping[str, str]) -> None:
        self._encoder, self._cache, self._ids = encoder, cache, list(texts)
        # One row a text: a product of matrices may give equal rows scores that differ in the last bit, and no tie.
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts.values()))}
        self._rows = np.array([rows[text] for text in texts.values()])
        self._vectors = cache.encode(encoder, list(rows), "document")

    def search(self, queries: Sequence[str], k: int) -> Iterator[Ranking]:
        vectors = self._cache.encode(self._encoder, queries, "query")
        flat = self._vectors.reshape(-1, vectors.shape[1])
        size = max(1, _SCORES // len(flat))
        for start in range(0, len(queries), size):
            products: Vectors = vectors[start : start + size] @ flat.T
            for of_texts in products.reshape(len(products), len(self._vectors), -1).max(-1):
                scores = of_texts[self._rows]
                yield [(self._ids[place], float(scores[place])) for place in best(scores, k)]


class _StoreIndex:
    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def search(self, queries: Sequence[str], k: int) -> Iterator[Ranking]:
        for start in range(0, len(queries), _HITS):
            for hits in self._retriever.search_many(queries[start : start + _HITS], k):
                yield [(hit.document.id, hit.score) for hit in hits]


def _same(encoder: Encoder, other: Encoder) -> bool:
    return encoder is other or bool(encoder.fingerprint and encoder.fingerprint == other.fingerprint)


def mine(
    queries: Mapping[str, str],
    corpus: Corpus,
    sources: Sequence[Source],
    depth: int = 100,
    show_progress: bool | None = None,
    qrels: Mapping[str, Mapping[str, float]] | None = None,
) -> Run:
    """The candidates of each query: each source's `depth` best, fused by `rrf`, of which the `depth` best are kept.

    A query does not find the document that has its own id, as in BEIR, unless `qrels` has it for relevant. Blank
    documents are no candidates, and blank queries have none. The same input gives the same run.

    Args:
        queries: Query id → text.
        corpus: Document id → text, or an open Retriever.
        sources: Such as `[Dense(model, cache), BM25()]`.
        depth: How many candidates.
        show_progress: By default on a terminal.
        qrels: Query id → document id → grade, where there are judgments.

    Raises:
        InvalidInputError: no queries, documents or sources, or something in them is not a text.
    """
    check_texts(queries, "query")
    check_corpus(corpus)
    if not sources or depth < 1:
        raise InvalidInputError(
            "nothing to mine", found=f"{len(sources)} sources, depth {depth}", expected="1 or more of each"
        )
    indexes = [source.index(corpus) for source in sources]
    run: Run = {id: {} for id in queries}
    asked = ((id, text) for id, text in queries.items() if text.strip())
    bar = progress.start("Mining", len(queries), show_progress)
    try:
        while part := list(islice(asked, _AT_ONCE)):
            texts = [text for _, text in part]
            found: list[Run] = []
            for index in indexes:
                rankings = zip(part, index.search(texts, depth + 1), strict=True)
                found.append({id: without_itself(id, ranking, depth, qrels) for (id, _), ranking in rankings})
            run |= {id: dict(islice(fused.items(), depth)) for id, fused in rrf(found).items()}
            bar.update(len(part))
    finally:
        bar.close()
    return run


def rrf(runs: Sequence[Mapping[str, Mapping[str, float]]], k: int = 60) -> Run:
    """Reciprocal-rank fusion: each document's sum of 1 / (k + rank) over the runs that have it, ranks from 1.

    Documents are ranked by (-score, id) in the runs and in the result (Cormack, Clarke and Büttcher, SIGIR 2009).
    """
    fused: Run = {}
    for run in runs:
        for query, scores in run.items():
            sums = fused.setdefault(query, {})
            for rank, (document, _) in enumerate(_ranked(scores), 1):
                sums[document] = sums.get(document, 0.0) + 1 / (k + rank)
    return {query: dict(_ranked(sums)) for query, sums in fused.items()}


def _ranked(scores: Mapping[str, float]) -> Ranking:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def score_candidates(
    teacher: Any,
    queries: Mapping[str, str],
    corpus: Corpus,
    run: Mapping[str, Mapping[str, float]],
    cache: ScoreCache | str | Path | None = None,
    depth: int | None = None,
    qrels: Mapping[str, Mapping[str, float]] | None = None,
    show_progress: bool | None = None,
) -> Run:
    """The teacher's scores of each query's candidates, best first; asked for once, with a cache (see ScoreCache).

    What a teacher with `skip_failures` could not score is left out, and counted in the cache's `skipped`.

    Args:
        teacher: Who is asked: whatever `as_teacher` takes. Of a list of teachers it is the mean, each brought to one
            scale over these very pairs; for another choice pass a MeanTeacher that is fit.
        queries: Query id → text; those with no candidates are left out of the result.
        corpus: Document id → text, or an open Retriever.
        run: The candidates.
        cache: Where scores are kept: a ScoreCache, or the path of its file; None keeps them nowhere.
        depth: How many of each query's candidates are scored; by default all.
        qrels: Judgments: the relevant documents are scored as well, whether they are among the candidates or not.
        show_progress: By default on a terminal.

    Raises:
        InvalidInputError: the run names a query or a document that is not there.
        TeacherError: see ScoreCache.score; what was scored before is kept.
    """
    from mlr_rag.training.teachers.teacher import scored  # which imports torch

    check_texts(queries, "query")
    check_corpus(corpus)
    wanted: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for query, candidates in run.items():
        if query not in queries:
            raise InvalidInputError("the run has a query that is not among the queries", found=query)
        relevant = [id for id, grade in (qrels or {}).get(query, {}).items() if grade > 0]
        chosen = list(islice(candidates, depth))
        ids = list(dict.fromkeys([*chosen, *relevant]))
        texts |= passages(corpus, [id for id in ids if id not in texts])
        check_known(query, chosen, texts)
        wanted[query] = [id for id in ids if id in texts]
    pairs = [(queries[query], texts[id]) for query, ids in wanted.items() for id in ids]
    scores = iter(scored(teacher, pairs, cache, show_progress).tolist())
    found = {query: {id: next(scores) for id in ids} for query, ids in wanted.items()}
    return {
        query: dict(_ranked({id: score for id, score in of_query.items() if not isnan(score)}))
        for query, of_query in found.items()
    }


def best(scores: npt.NDArray[Any], k: int) -> list[int]:
    """Where the k highest of `(n,)` scores are, highest first, ties by place."""
    chosen = np.arange(len(scores))
    if k < len(scores):
        least = np.partition(scores, -k)[-k]
        above, level = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        chosen = np.sort(np.concatenate([above, level[: k - len(above)]]))
    places: list[int] = chosen[np.argsort(-scores[chosen], kind="stable")].tolist()
    return places


def texts_of(corpus: Corpus) -> dict[str, str]:
    """The id and text of each document that is not blank, sorted by id, so that an earlier place wins a tie.

    Raises:
        InvalidInputError: there is none, or one is not a text.
    """
    if isinstance(corpus, Mapping):
        check_texts(corpus, "document")
        documents = [(id, text) for id, text in corpus.items() if text.strip()]
    else:
        documents = [(r.document.id, r.document.text) for batch in corpus.store.scan() for r in batch]
    if not documents:
        raise InvalidInputError("no documents to find candidates in", expected="one or more with a text")
    return dict(sorted(documents))


def passages(corpus: Corpus, ids: Sequence[str]) -> dict[str, str]:
    """The texts of those of these documents that the corpus has and that are not blank."""
    if isinstance(corpus, Mapping):
        return {id: corpus[id] for id in ids if corpus.get(id, "").strip()}
    return {document.id: document.text for document in corpus.get(ids)}


def check_texts(texts: Any, what: str) -> None:
    """Refuse what is not a mapping of ids to texts."""
    if not isinstance(texts, Mapping):
        raise InvalidInputError(f"no {what} texts", found=type(texts).__name__, expected="a mapping of ids to texts")
    for id, text in texts.items():
        if not isinstance(id, str) or not isinstance(text, str):
            raise InvalidInputError(f"{what} {id!r:.60} is not a text", found=text, expected="str")


def check_corpus(corpus: Any) -> None:
    """Refuse what is neither texts nor an open collection; the texts themselves are looked at when they are read."""
    if not isinstance(corpus, Mapping) and not (hasattr(corpus, "store") and hasattr(corpus, "search_many")):
        raise InvalidInputError(
            "no corpus", found=type(corpus).__name__, expected="a mapping of ids to texts, or an open Retriever"
        )


def check_known(query: str, candidates: Sequence[str], texts: Mapping[str, str]) -> None:
    """Refuse a run of another corpus."""
    for id in candidates:
        if id not in texts:
            raise InvalidInputError(
                f"a candidate of query {query!r:.60} is not in the corpus",
                found=id,
                expected="a document with a text",
                remedy="Mine again: the corpus has changed.",
            )
