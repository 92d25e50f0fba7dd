"""Whether a teacher's scores survive kill -9, are asked for once only, and what keeping them costs.

python -m benchmarks.score_cache nl2bash.zip [--trials 20] [--queries 100]
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import ROOT, Row, parser, quiet, report, say
from mlr_rag import MLRModel
from mlr_rag.evaluation.collection import Collection
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.training.mining.bm25 import BM25
from mlr_rag.training.mining.building import build_lists
from mlr_rag.training.mining.candidates import mine, score_candidates
from mlr_rag.training.teachers.models import CrossEncoderTeacher
from mlr_rag.training.teachers.scores import ScoreCache

DEPTH, BATCH, LENGTH = 20, 32, 128  # candidates a query, pairs a batch of the teacher, tokens of a pair
COSTED = 20_000  # pairs
_TRIES = 3  # as some kills come too late
_ENOUGH = 0.5  # of the kills must come in time


class Telling:
    """A teacher that says, at each batch, how many pairs before it are acknowledged."""

    batch = BATCH

    def __init__(self, teacher: Any) -> None:
        self._teacher, self._told = teacher, 0
        self.fingerprint, self.truncation = teacher.fingerprint, teacher.truncation

    def score(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """See Teacher."""
        print(self._told, flush=True)
        self._told += len(pairs)
        return self._teacher.score(pairs)


class Free:
    """A teacher that takes no time."""

    fingerprint, truncation = "free", "none"

    def score(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """See Teacher."""
        return np.zeros(len(pairs))


class Flow:
    """A training: candidates by BM25, scored by a cross-encoder, made into lists, distilled in a few steps."""

    def __init__(self, args: argparse.Namespace) -> None:
        from mlr_rag.training.teachers.cross_encoder_trainer import start

        collection = Collection.load(args.collection, "train")
        corpus = {document.id: document.text for document in collection.documents()}
        chosen = random.Random(args.seed).sample(sorted(collection.queries), args.queries)
        self.queries = {id: collection.queries[id] for id in chosen}
        self.qrels = {id: collection.qrels[id] for id in chosen}
        self.corpus, self._student = corpus, args.student
        self.run = mine(self.queries, corpus, [BM25()], depth=DEPTH)
        self.teacher: Any = CrossEncoderTeacher(start(args.teacher, LENGTH, args.seed))
        self.teacher.batch = BATCH  # also where the truth is computed: in equal batches the scores are equal
        candidates = ((query, id) for query, found in self.run.items() for id in found)
        self.pairs = [(self.queries[query], corpus[id]) for query, id in candidates]

    def score(self, cache: ScoreCache, tell: bool = False) -> Any:
        """The teacher's scores of the candidates and of the relevant passages."""
        teacher = Telling(self.teacher) if tell else self.teacher
        return score_candidates(teacher, self.queries, self.corpus, self.run, cache, qrels=self.qrels)

    def train(self, cache: ScoreCache, folder: Path) -> int:
        """How many pairs the teacher was asked for."""
        from mlr_rag.training.trainer.arguments import MLRTrainingArguments
        from mlr_rag.training.trainer.trainer import MLRTrainer

        lists, _ = build_lists(self.queries, self.corpus, self.qrels, self.run, self.score(cache), length=8)
        arguments = MLRTrainingArguments(str(folder), max_steps=3, per_device_train_batch_size=8)
        MLRTrainer(MLRModel.from_pretrained(self._student), lists, args=arguments).train()
        return cache.asked


def faults(flow: Flow, file: Path, truth: dict[tuple[str, str], float], acknowledged: int) -> list[str]:
    """What must not be in the file, or is missing from it."""
    pairs = list(truth)
    with ScoreCache(file) as cache:
        known = [pair for pair, is_known in zip(pairs, cache.known(flow.teacher, pairs), strict=True) if is_known]
        scores = cache.score(flow.teacher, known)
        found = [f"{cache.asked} asked for that are known"] if cache.asked else []
        found += [f"{cache.count() - len(known)} scores of no pair"] if cache.count() != len(known) else []
    found += [f"{len(known)} kept, {acknowledged} acknowledged"] if len(known) < acknowledged else []
    wrong = scores != [truth[pair] for pair in known]
    return [*found, f"{wrong.sum()} wrong scores"] if wrong.any() else found


def trials(flow: Flow, truth: dict[tuple[str, str], float], seconds: float, file: Path, args: Any) -> list[list[str]]:
    """The faults after each kill that came in time; a run goes on from what the one before it left."""
    moments, done = random.Random(args.seed), []
    for _ in range(_TRIES * args.trials):
        if len(done) == args.trials:
            break
        with ScoreCache(file) as cache:
            before = cache.count()
        words = [sys.executable, "-m", "benchmarks.score_cache", *sys.argv[1:], "--work", str(file)]
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        told = process.stdout.readline().split() if process.stdout else []
        time.sleep(moments.uniform(0, 2 * seconds / args.trials))
        process.kill()
        told += (process.communicate()[0] or "").split()
        if "done" in told or not told:  # too late: begin anew
            for part in file.parent.glob(f"{file.name}*"):
                part.unlink()
            continue
        acknowledged = before + max(int(line) for line in told)
        done.append(faults(flow, file, truth, acknowledged))
        say(f"{len(done)}/{args.trials}: {acknowledged} of {len(truth)} acknowledged, {done[-1] or 'no fault'}")
    return done


def survived(found: Sequence[list[str]], trials: int) -> Row:
    """What the kills that came in time did; too few of them show nothing."""
    bad, late = sum(map(bool, found)), len(found) < trials
    measured = f"{bad} of {len(found)}" + (f"; only {len(found)} of {trials} kills came in time" if late else "")
    is_met = not bad and len(found) >= _ENOUGH * trials
    return Row("kills after which a score was wrong, torn, lost or of no pair", "0", measured, is_met)


def costs(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of processor time to keep a score and to look one up, several times."""
    kept, known = [], []
    for number in range(5):
        pairs = [(f"query {n // 20}", f"passage {n} of {number}, which is as long as most are") for n in range(COSTED)]
        with ScoreCache(folder / f"cost-{number}.db") as cache:
            for times in (kept, known):
                started = time.process_time()
                cache.score(Free(), pairs, show_progress=False)
                times.append((time.process_time() - started) / COSTED)
    return kept, known


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collection", type=Path, nargs="?", help="a collection with training judgments")
    options.add_argument("--trials", type=int, default=20)
    options.add_argument("--queries", type=int, default=100)
    options.add_argument("--teacher", default=DEFAULT_MODEL, help="a cross-encoder, or an encoder for a new head")
    options.add_argument("--student", default=DEFAULT_MODEL)
    options.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    quiet()
    if args.collection is None:
        say("skipped: pass the path of a collection, as none is ours to ship")
        return
    args.collection = args.collection.resolve()
    flow = Flow(args)
    if args.work:
        with ScoreCache(args.work) as cache:
            flow.score(cache, tell=True)
        print("done", flush=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        started, spent = time.perf_counter(), time.process_time()
        with ScoreCache() as cache:
            flow.score(cache)
            pairs = cache.asked
            judged = ((q, d) for q, grades in flow.qrels.items() for d, grade in grades.items() if grade > 0)
            relevant = [(flow.queries[q], flow.corpus[d]) for q, d in judged if d in flow.corpus]
            every = list(dict.fromkeys(flow.pairs + relevant))
            truth = dict(zip(every, cache.score(flow.teacher, every), strict=True))
            if cache.asked != pairs:
                raise SystemExit("the truth was not computed in the same batches")
        seconds, each = time.perf_counter() - started, (time.process_time() - spent) / pairs
        found = trials(flow, truth, seconds, folder / "scores.db", args)
        asked = []
        for number in range(2):
            with ScoreCache(folder / "scores.db") as cache:
                asked.append(flow.train(cache, folder / f"training-{number}"))
        kept, known = costs(folder)
    share = [f"{statistics.median(times) / each:.4%}" for times in (kept, known)]
    rows = [
        survived(found, args.trials),
        Row("pairs that a second run of the training asks the teacher for", "0", f"{asked[1]}", asked[1] == 0),
        Row(f"pairs that the first run after the kills still asked for, of {len(truth):,}", "", f"{asked[0]:,}"),
        Row("keeping a score, of the time to compute it", "<= 1%", share[0], statistics.median(kept) <= each / 100),
        Row("looking a score up, of the time to compute it", "<= 1%", share[1], statistics.median(known) <= each / 100),
        Row("pairs a second of processor time: teacher, kept, looked up", "", _rates(each, kept, known)),
    ]
    report(
        "score_cache",
        "The cache of a teacher's scores",
        args,
        rows,
        f"{len(flow.queries)} queries of {args.collection.stem} train, {DEPTH} candidates each by BM25, scored by a "
        f"cross-encoder ({Path(args.teacher).name}; an encoder gets a new head) that reads {LENGTH} tokens, in batches "
        f"of {BATCH}. The scoring process was killed with SIGKILL at uniformly random moments and started again on the "
        "same file. After each kill every score in it had to equal, to the last bit, one computed apart, and those "
        "that were acknowledged had to be there. Then the whole training ran twice: candidates, scores, lists, three "
        "steps of MLRTrainer. The costs are "
        f"processor time with a teacher that takes none, {COSTED:,} pairs, five times.",
        "a power failure, network file systems, teachers on a GPU.",
        ("sentence-transformers", "bm25s"),
    )
    if any(row.met is False for row in rows):
        raise SystemExit(1)


def _rates(each: float, *costs: Sequence[float]) -> str:
    return ", ".join(f"{1 / value:,.0f}" for value in (each, *(statistics.median(times) for times in costs)))


if __name__ == "__main__":
    main()
