"""What an adapter for queries gains on collections whose stored vectors stay as they are.

python -m benchmarks.query_only nl2bash.zip scifact.zip wikiqa.zip
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks._common import ROOT, Row, parser, quiet, report, say, spread
from mlr_rag import MLRModel, Retriever
from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.metrics import query_metrics, search_all
from mlr_rag.evaluation.significance import Difference, paired_bootstrap
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.stores import VectorStore
from mlr_rag.training.mining.building import build_lists
from mlr_rag.training.mining.candidates import Dense, mine
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.query_side import train_query_adapter

RANK, SEEDS, LEVEL, ENOUGH = 64, 3, 0.05, 2
_DEPTH, _LENGTH = 20, 200  # candidates; passages in a list, so many that every positive has room
_FOLDER = ROOT / "build" / "query_only"  # vectors, so that a run that was cut off goes on where it was

Judged = tuple[dict[str, str], Mapping[str, Mapping[str, int]]]


@dataclass(frozen=True)
class Outcome:
    """One collection: nDCG@10 of the test queries before and after, one value a seed."""

    name: str
    queries: int
    before: float
    after: list[float]
    difference: Difference
    seconds: list[float]
    untouched: bool


def split(path: Path) -> tuple[dict[str, str], Judged, Judged, Collection]:
    """Corpus, and the train, dev and test queries; where there is no dev split, a fifth of the train queries is one."""
    train, test = Collection.load(path, "train"), Collection.load(path, "test")
    corpus = {id: text for id, text in train.texts() if text}
    try:
        dev = Collection.load(path, "dev")
        return corpus, (train.queries, train.qrels), (dev.queries, dev.qrels), test
    except InvalidInputError:
        ids = sorted(train.queries)
        random.Random(0).shuffle(ids)
        held = set(ids[: len(ids) // 5])
        parts = [
            (
                {id: text for id, text in train.queries.items() if (id in held) == wanted},
                {id: grades for id, grades in train.qrels.items() if (id in held) == wanted},
            )
            for wanted in (False, True)
        ]
        return corpus, parts[0], parts[1], test


def stored(store: VectorStore) -> str:
    """A hash of every id and vector."""
    records = (record for part in store.scan(with_vectors=True) for record in part)
    found = sorted((record.document.id, np.asarray(record.vector, np.float32).tobytes()) for record in records)
    return hashlib.sha256(b"".join(id.encode() + vector for id, vector in found)).hexdigest()


def measure(path: Path, base: MLRModel, cache: VectorCache, seed: int) -> Outcome:
    """Index with the base, train adapters, and search the same store with each."""
    corpus, (queries, qrels), dev, test = split(path)
    vectors = cache.encode(base, list(corpus.values()), "document")
    run = mine(queries, corpus, [Dense(base, cache)], _DEPTH)
    lists, _ = build_lists(queries, corpus, qrels, run, length=_LENGTH)
    with tempfile.TemporaryDirectory() as scratch:
        with Retriever.open(f"edge:{scratch}/kb", base) as kb:
            kb.add_vectors(test.documents(), vectors)
            hashed = stored(kb.store)
            before = ndcg(kb, test)
        say(path.stem, f"{len(lists):,} lists, {len(dev[0]):,} dev queries, before {mean(before):.4f}")
        after, seconds, untouched = [], [], True
        for number in range(seed, seed + SEEDS):
            model = base.add_query_adapter(RANK, seed=number)
            started = time.perf_counter()
            done = train_query_adapter(model, lists, corpus, dev=dev, cache=cache, seed=number)
            seconds.append(time.perf_counter() - started)
            with Retriever.open(f"edge:{scratch}/kb", model) as kb:
                after.append(ndcg(kb, test))
                untouched = untouched and stored(kb.store) == hashed
            dev_scores = f"dev {done.history[0]:.4f} -> {done.history[done.best]:.4f} in epoch {done.best}"
            say(path.stem, f"seed {number}: {dev_scores}, after {mean(after[-1]):.4f}, {seconds[-1]:.0f} s")
    difference = paired_bootstrap(np.mean(after, axis=0), before)
    return Outcome(path.stem, len(before), mean(before), [mean(each) for each in after], difference, seconds, untouched)


def ndcg(kb: Retriever, test: Collection) -> list[float]:
    """nDCG@10 of each test query, in their order."""
    values = query_metrics(test.qrels, search_all(kb, test.queries, test.qrels))["ndcg@10"]
    return [values[id] for id in sorted(values)]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collections", type=Path, nargs="*", help="collections of BEIR's form with a train split")
    args = options.parse_args()
    if not args.collections:
        say("skipped: pass the paths of BEIR's nl2bash.zip and others, as the collections are not ours to ship")
        return
    quiet()
    _FOLDER.mkdir(parents=True, exist_ok=True)
    base = MLRModel.from_pretrained(DEFAULT_MODEL)
    with VectorCache(_FOLDER / "vectors.db") as cache:
        found = [measure(path, base, cache, args.seed) for path in args.collections]
    better = [each.name for each in found if each.difference.mean > 0 and each.difference.p < LEVEL]
    rows = [
        Row(
            f"nDCG@10, {each.name} ({each.queries:,} test queries):",
            "",
            f"{each.before:.4f} → {spread(each.after, 4)}, {each.difference.mean:+.4f} "
            f"[{each.difference.low:+.4f}, {each.difference.high:+.4f}], p {each.difference.p:.4f}",
        )
        for each in found
    ]
    rows += [
        Row(
            f"collections where it is better at p < {LEVEL}",
            f">= {ENOUGH}",
            f"{len(better)} of {len(found)}: {', '.join(better) or 'none'}",
            len(better) >= ENOUGH,
        ),
        Row(
            "stored vectors, before and after",
            "the same bytes",
            "the same" if all(each.untouched for each in found) else "changed",
            all(each.untouched for each in found),
        ),
        Row(
            "seconds to train, once the texts are encoded",
            "",
            ", ".join(f"{each.name} {spread(each.seconds, 0)}" for each in found),
        ),
    ]
    report(
        "query_only",
        "An adapter for queries alone",
        args,
        rows,
        f"{DEFAULT_MODEL} with `add_query_adapter({RANK})`, trained by `train_query_adapter` as it comes on the train "
        "split with every document as a negative; the epoch is chosen on the dev split, or on a fifth of the train "
        f"queries that is left out of training. Documents are indexed once, by the base. {SEEDS} seeds: the median and "
        "range of their means; the difference is of each query's mean over seeds, with a paired bootstrap's 95% "
        "interval and p.",
        "other models, other ranks, fewer train queries, and queries of another kind than the train split's.",
        ("sentence-transformers", "ir-measures", "qdrant-edge-py"),
    )


if __name__ == "__main__":
    main()
