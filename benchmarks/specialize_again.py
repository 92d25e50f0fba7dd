"""What a second run of `specialize` costs that changes nothing but the temperature of the teacher's scores.

python -m benchmarks.specialize_again nl2bash.zip --teacher all-mpnet-base-v2
python -m benchmarks.specialize_again ... --summarize
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, Row, parser, quiet, report, say
from benchmarks._timed_cells import add_options, finished, run
from mlr_rag import MLRModel, specialize
from mlr_rag.evaluation.collection import Collection
from mlr_rag.model.names import DEFAULT_MODEL, resolve

FOLDER = ROOT / "build" / "specialize_again"
BUDGET, SHARE = 15 * 60, 0.4
TEACHERS = ("cross-encoder", "embedder")
_QUERIES, _DEPTH = 1000, 20  # judged queries that the cross-encoder is trained on, and candidates of each


def trained(path: Path, seed: int) -> str:
    """The folder of a cross-encoder that was trained for a pass over some of the judgments."""
    from mlr_rag.training.mining.candidates import Dense, mine
    from mlr_rag.training.mining.vectors import VectorCache
    from mlr_rag.training.teachers.cross_encoder import train_cross_encoder

    collection = Collection.load(path, "train")
    ids = random.Random(seed).sample(sorted(collection.qrels), min(_QUERIES, len(collection.qrels)))
    queries, qrels = ({id: each[id] for id in ids} for each in (collection.queries, collection.qrels))
    corpus = {id: text for id, text in collection.texts() if text}
    known = {query: {id: grade for id, grade in grades.items() if id in corpus} for query, grades in qrels.items()}
    with VectorCache(FOLDER / "vectors.sqlite") as vectors:
        found = mine(queries, corpus, [Dense(MLRModel.from_pretrained(DEFAULT_MODEL), vectors)], _DEPTH)
    output = FOLDER / f"{path.stem}-teacher"
    train_cross_encoder(resolve(DEFAULT_MODEL), queries, known, corpus, found, output, epochs=1, seed=seed)
    return str(output)


def work(path: Path, kind: str, teacher: str, seed: int) -> dict[str, Any]:
    """Two runs on queries by rules, in one work folder."""
    if kind == "cross-encoder":
        teacher = trained(path, seed)
    place = FOLDER / f"{path.stem}-{kind}"
    shutil.rmtree(place, ignore_errors=True)
    facts: dict[str, Any] = {"seconds": [], "reused": [], "verdicts": []}
    temperature: float | None = None
    for _ in range(2):
        started = time.perf_counter()
        done = specialize(
            corpus=path,
            queries="generate",
            teacher=teacher,
            budget=BUDGET,
            teacher_temperature=temperature,
            output=place / "model",
            seed=seed,
        )
        facts["seconds"].append(time.perf_counter() - started)
        facts["reused"].append(sorted({stage.name for stage in done.report.stages if stage.reused}))
        facts["verdicts"].append(done.report.verdict)
        assert done.report.teacher is not None
        temperature = 2 * done.report.teacher.temperature
    shutil.rmtree(place)
    return facts


def summarize(args: argparse.Namespace, cells: Sequence[str]) -> None:
    """The section of BENCHMARKS.md, from the cells that are there."""
    rows, lines = [], []
    for cell in cells:
        found = finished(FOLDER, cell)
        if found is None:
            continue
        first, second = found["seconds"]
        measured = f"{second / first:.2f} ({second / 60:.1f} of {first / 60:.1f} minutes)"
        rows.append(Row(f"{cell}: second / first run", f"<= {SHARE}", measured, second <= SHARE * first))
        lines.append(f"Reused with {cell}: {', '.join(found['reused'][1])}.")
    report(
        "specialize_again",
        "A second run with another temperature",
        args,
        rows,
        f"`specialize` without judgments, {DEFAULT_MODEL}, a budget of {BUDGET // 60} minutes, then again with twice "
        "the temperature of the teacher's scores in the same work folder. The cross-encoder is MiniLM, trained for one "
        f"pass over {_QUERIES:,} judged queries, which is not counted; the embedder is "
        f"{Path(args.teacher).name if args.teacher else 'not there'}. What a second run cannot save is training and "
        "what is measured after it. " + " ".join(lines),
        "language models as teachers, which take longer still; a GPU.",
        ("sentence-transformers",),
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collections", type=Path, nargs="*", help="collections of BEIR's form with a train split")
    options.add_argument("--teacher", help="the embedder: a folder or name")
    add_options(options)
    args = options.parse_args()
    if not args.collections:
        say("skipped: pass BEIR's nl2bash.zip, which is not ours to ship")
        return
    quiet()
    cells = {
        f"{path.stem}-{kind}": partial(work, path, kind, args.teacher, args.seed)
        for path in args.collections
        for kind in TEACHERS
        if args.teacher or kind != "embedder"
    }
    words = [str(path.resolve()) for path in args.collections]
    words += ["--teacher", args.teacher] if args.teacher else []
    if run(args, FOLDER, "benchmarks.specialize_again", words, cells):
        summarize(args, list(cells))


if __name__ == "__main__":
    main()
