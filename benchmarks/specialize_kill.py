"""Whether `specialize` ends with the same model when it is killed at random moments and run again.

python -m benchmarks.specialize_kill nl2bash.zip [--trials 30] [--queries 200]
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, Row, parser, quiet, report, say
from mlr_rag.evaluation.collection import Collection
from mlr_rag.model.names import DEFAULT_MODEL

BATCH, OTHERS = 64, 300  # pairs that the teacher is asked for at once; passages that answer no query
_PATIENCE, _TRIES = 1800, 2  # seconds for a run; times as many kills are tried, as some come too late
_ENOUGH = 0.5  # of the kills must come in time


def specialized(args: argparse.Namespace) -> None:
    """The run, in this process; says which stage begins, and leaves its outcome beside its work."""
    import torch

    from mlr_rag import specialize
    from mlr_rag.training.teachers.teacher import CallableTeacher

    torch.set_num_threads(1)  # sums do not depend on how many processors are free
    stages = logging.getLogger("mlr_rag.specializing.workflow")
    stages.setLevel(logging.INFO)
    stages.addHandler(_Telling())
    collection, draw = Collection.load(args.collection, "train"), random.Random(args.seed)
    chosen = draw.sample(sorted(collection.queries), args.queries)
    queries = {id: collection.queries[id] for id in chosen}
    qrels = {id: collection.qrels[id] for id in chosen}
    texts = dict(collection.texts())
    judged = {id for grades in qrels.values() for id in grades if id in texts}
    corpus = {id: texts[id] for id in sorted(judged.union(draw.sample(sorted(texts), min(OTHERS, len(texts)))))}
    right = {(queries[query], texts[id]) for query, grades in qrels.items() for id in grades if id in texts}

    def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        with (args.work / "asked.jsonl").open("a") as log:
            log.writelines(f"{json.dumps(pair)}\n" for pair in pairs)
        return [(pair in right) + len(_words(pair[0]) & _words(pair[1])) / 100 for pair in pairs]

    teacher: Any = CallableTeacher(score, "knows what is right")
    teacher.batch = BATCH
    found = specialize(
        args.model, corpus, queries, qrels, teacher=teacher, budget=None, output=args.work / "model", seed=args.seed
    )
    outcome = [found.accepted, found.report.verdict, found.report.chosen, found.metrics, found.model.fingerprint]
    (args.work / "outcome.json").write_text(json.dumps(outcome))
    print("done", flush=True)


class _Telling(logging.Handler):
    """Prints the names of stages as they begin."""

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple):
            print(record.args[0], flush=True)


def _words(text: str) -> set[str]:
    return set(text.lower().split())


@dataclass
class Found:
    """What the kills did.

    Attributes:
        stages: Stage → kills in it.
        again: Finished stages that were done again.
        ended: Runs that came to their end after kills, and how many of them ended `differently`.
        twice: Pairs that the teacher was asked for again, of `pairs` in all.
        failed: Runs that failed.
    """

    stages: Counter[str] = field(default_factory=Counter)
    again: int = 0
    ended: int = 0
    differently: int = 0
    twice: int = 0
    pairs: int = 0
    failed: int = 0


def trials(folder: Path, seconds: float, truth: str, args: argparse.Namespace) -> Found:
    """Kill runs, each of which goes on from what the one before it left, until it comes to its end."""
    moments, found, number = random.Random(args.seed), Found(), 0
    for _ in range(_TRIES * args.trials):
        last = found.stages.total() >= args.trials
        place = folder / f"run-{number}"
        told, status, known = _run(args, place, None if last else moments.uniform(0, seconds / 3))
        done = _stages(place)
        found.again += sum(done.get(name) != value for name, value in known.items())
        if status == 0:
            pairs = (place / "asked.jsonl").read_text().splitlines()
            found.ended += 1
            found.differently += (place / "outcome.json").read_text() != truth
            found.pairs += len(pairs)
            found.twice += len(pairs) - len(set(pairs))
            number += 1
        elif status > 0:
            found.failed += 1
            number += 1
        else:
            found.stages[told[-1] if told else "start"] += 1
        kills = found.stages.total()
        say(f"{kills}/{args.trials}: {told[-1:]}, status {status}, {len(done)} stages are done, {found}")
        if last:
            break
    return found


def _run(args: argparse.Namespace, place: Path, after: float | None) -> tuple[list[str], int, dict[str, str]]:
    """Start a run and kill it so many seconds after its first stage: the stages that it named, and how it ended."""
    place.mkdir(exist_ok=True)
    known = _stages(place)
    words = [sys.executable, "-m", "benchmarks.specialize_kill", str(args.collection.resolve()), "--work", str(place)]
    words += ["--queries", str(args.queries), "--model", args.model, "--seed", str(args.seed)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        told = [process.stdout.readline()] if process.stdout else []
        try:
            rest, _ = process.communicate(timeout=_PATIENCE if after is None else after)
        except subprocess.TimeoutExpired:
            process.kill()
            rest, _ = process.communicate()
    return [line.strip() for line in [*told, *rest.splitlines()] if line.strip()], process.returncode, known


def _stages(place: Path) -> dict[str, str]:
    """What the stages that are done gave."""
    return {file.name: file.read_text() for file in (place / ".mlr-rag" / "stages").glob("*.json")}


def rows(found: Found, wanted: int) -> Iterator[Row]:
    """The figures."""
    kills = found.stages.total()
    enough = kills >= _ENOUGH * wanted
    ended = f"{found.differently} of {found.ended}, after {kills} kills, {found.failed} failed"
    yield Row(
        "runs that ended with another model, verdict or figures, or failed",
        "0",
        ended,
        found.ended > 0 and enough and not found.differently and not found.failed,
    )
    yield Row("finished stages that were done again", "0", str(found.again), enough and not found.again)
    yield Row(
        f"pairs that the teacher was asked for twice, of {found.pairs:,}",
        f"<= {BATCH} a kill",
        str(found.twice),
        enough and found.twice <= BATCH * kills,
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collection", type=Path, nargs="?", help="a collection with training judgments")
    options.add_argument("--trials", type=int, default=30)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--model", default=DEFAULT_MODEL)
    options.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    quiet()
    if args.collection is None:
        say("skipped: pass the path of a collection, as none is ours to ship")
        return
    if args.work:
        specialized(args)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        started = time.perf_counter()
        told, status, _ = _run(args, folder / "whole", None)
        if status:
            raise SystemExit(f"the run that nothing stops failed after {told}")
        seconds = time.perf_counter() - started
        say(f"the run that nothing stops took {seconds:.0f} s")
        found = trials(folder, seconds, (folder / "whole" / "outcome.json").read_text(), args)
    made = list(rows(found, args.trials))
    hit = ", ".join(f"{stage} {count}" for stage, count in found.stages.most_common())
    report(
        "specialize_kill",
        "A specialization that is killed",
        args,
        made,
        f"`specialize` on {args.queries} queries of {args.collection.stem} train and their passages, with a teacher "
        f"and all objectives, {Path(args.model).name}, one thread, no budget; {seconds:.0f} s where nothing stops it. "
        "SIGKILL at random moments up to a third of that after the first stage began, and the same command again, "
        "until it came to its end; then the next one. Each had to end as the run that nothing stopped: verdict, "
        f"figures, and the model to the last bit. Kills by stage: {hit}.",
        "a power failure, a run with a budget, whose plan depends on the clock when it is made.",
        ("sentence-transformers", "torch"),
    )
    if any(row.met is False for row in made):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
