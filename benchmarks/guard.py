"""Whether `specialize` accepts what was sabotaged, and what is honestly better.

python -m benchmarks.guard nl2bash.zip medquad.zip
python -m benchmarks.guard nl2bash.zip medquad.zip --summarize
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks._common import ROOT, Row, parser, quiet, report, say
from benchmarks._timed_cells import add_options, finished, run
from benchmarks.specialize import ndcg
from mlr_rag.errors import InvalidInputError, TrainingError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.significance import paired_bootstrap
from mlr_rag.model.names import DEFAULT_MODEL

FOLDER = ROOT / "build" / "guard"
BUDGET = 150  # seconds
QUERIES, FRESH, OTHERS = 800, 200, 500  # given to specialize; kept from it; passages that answer none of them
REAL, HONEST, LEAST = 0.03, 10, 9
_RATE = 100  # times too high

Labels = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Part:
    """A part of a collection; `fresh` queries are what nothing in a run sees."""

    corpus: dict[str, str]
    queries: dict[str, str]
    splits: dict[str, Labels]  # "train", "dev", "test"
    fresh: Labels
    options: Mapping[str, Any]


Sabotage = Callable[[Part, random.Random], Part]


def part_of(path: Path, seed: int) -> Part:
    """Queries, what is relevant to them, and other passages, all drawn."""
    collection, draw = Collection.load(path, "train"), random.Random(f"{path.stem} {seed}")
    texts = dict(collection.texts())
    usable = sorted(id for id, grades in collection.qrels.items() if any(texts.get(each) for each in grades))
    chosen = draw.sample(usable, QUERIES + FRESH)
    qrels = {
        id: {document: int(grade) for document, grade in collection.qrels[id].items() if texts.get(document)}
        for id in chosen
    }
    judged = {document for grades in qrels.values() for document in grades}
    others = draw.sample(sorted(texts.keys() - judged), min(OTHERS, len(texts) - len(judged)))
    at = QUERIES * 7 // 10, QUERIES * 17 // 20, QUERIES
    sides = {"train": chosen[: at[0]], "dev": chosen[at[0] : at[1]], "test": chosen[at[1] : at[2]]}
    return Part(
        {id: texts[id] for id in sorted(judged.union(others)) if texts[id].strip()},
        {id: collection.queries[id] for id in chosen},
        {side: {id: qrels[id] for id in ids} for side, ids in sides.items()},
        {id: qrels[id] for id in chosen[QUERIES:]},
        {},
    )


def shuffled(*sides: str) -> Sabotage:
    """The labels of these sides belong to other queries of them."""

    def sabotage(part: Part, draw: random.Random) -> Part:
        changed = dict(part.splits)
        for side in sides:
            labels = list(part.splits[side].values())
            draw.shuffle(labels)
            changed[side] = dict(zip(part.splits[side], labels, strict=True))
        return replace(part, splits=changed)

    return sabotage


def _taught(part: Part, draw: random.Random, score: Callable[[str, str], float], name: str) -> Part:
    """The training labels are the choices of a teacher, among a few passages, and it is learned from as well."""
    from mlr_rag.training.teachers.teacher import CallableTeacher

    documents = sorted(part.corpus)
    train = {}
    for query, grades in part.splits["train"].items():
        shown = [*draw.sample(documents, 9), *grades]
        train[query] = {max(shown, key=lambda one: score(part.queries[query], part.corpus[one])): 1}
    teacher = CallableTeacher(lambda pairs: [score(*pair) for pair in pairs], name)
    options = {"teacher": teacher, "objective": "distillation"}
    return replace(part, splits={**part.splits, "train": train}, options=options)


def noisy_teacher(part: Part, draw: random.Random) -> Part:
    """A teacher that returns noise."""
    return _taught(part, draw, lambda query, text: random.Random(f"{query}\t{text}").random(), "noise")


def wrong_teacher(part: Part, draw: random.Random) -> Part:
    """A teacher that prefers whatever has least to do with the query."""
    right = {
        (part.queries[query], part.corpus[id])
        for labels in part.splits.values()
        for query, grades in labels.items()
        for id in grades
    }

    def score(query: str, text: str) -> float:
        return -10.0 * ((query, text) in right) - len(set(query.lower().split()) & set(text.lower().split()))

    return _taught(part, draw, score, "wrong")


def leaked(part: Part, draw: random.Random) -> Part:
    """Every dev and test query is in training as well, said nearly the same; the other labels are shuffled."""
    part = shuffled("train")(part, draw)
    queries, train = dict(part.queries), dict(part.splits["train"])
    for side in ("dev", "test"):
        for query, grades in part.splits[side].items():
            queries[f"leaked {query}"] = f"{part.queries[query].upper()} ?"
            train[f"leaked {query}"] = grades
    return replace(part, queries=queries, splits={**part.splits, "train": train})


def five_queries(part: Part, draw: random.Random) -> Part:
    """Five test queries."""
    return replace(part, splits={**part.splits, "test": dict(list(part.splits["test"].items())[:5])})


def too_fast(part: Part, draw: random.Random) -> Part:
    """Learning rates that are a hundred times too high (see `faster`)."""
    return part


def all_alike(part: Part, draw: random.Random) -> Part:
    """Every passage says the same but for its number."""
    first = next(iter(part.corpus.values()))[:300]
    return replace(part, corpus={id: f"{first} ({number})" for number, id in enumerate(part.corpus)})


def one_answer(part: Part, draw: random.Random) -> Part:
    """In training, one passage answers everything."""
    answer = {max(part.corpus, key=lambda one: len(part.corpus[one])): 1}
    return replace(part, splits={**part.splits, "train": dict.fromkeys(part.splits["train"], answer)})


SABOTAGES: dict[str, Sabotage] = {
    "training labels shuffled": shuffled("train"),
    "all labels shuffled": shuffled("train", "dev", "test"),
    "dev and test labels shuffled": shuffled("dev", "test"),
    "a teacher of noise": noisy_teacher,
    "a teacher of the wrong passage": wrong_teacher,
    "dev and test leaked into training": leaked,
    "5 test queries": five_queries,
    "learning rates 100 times too high": too_fast,
    "all passages alike": all_alike,
    "one answer to everything": one_answer,
}


@dataclass(frozen=True)
class Cell:
    """A run: what was done to it, or "honest"."""

    collection: str
    what: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.collection}-{self.what.replace(' ', '-')}-{self.seed}"


def cells(collections: Sequence[str]) -> Iterator[Cell]:
    """The sabotaged runs, and as many honest ones, over the collections in turn."""
    for number, what in enumerate(SABOTAGES):
        yield Cell(collections[number % len(collections)], what, number)
    for number in range(HONEST):
        yield Cell(collections[number % len(collections)], "honest", number)


def work(cell: Cell, path: Path) -> dict[str, Any]:
    """Specialize, and measure the candidate on the fresh queries, whether it was accepted or not."""
    from mlr_rag import specialize
    from mlr_rag.specializing import choosing, learning, workflow

    part, place = part_of(path, cell.seed), FOLDER / cell.name
    if cell.what != "honest":
        part = SABOTAGES[cell.what](part, random.Random(cell.seed))
    shutil.rmtree(place, ignore_errors=True)
    _write(place / "collection", part)
    tested: list[Any] = []

    def compare(base: Any, model: Any, *rest: Any) -> Any:
        tested[:] = [base, model]
        return original(base, model, *rest)

    original = workflow.compare
    too_fast = cell.what == "learning rates 100 times too high"
    adapting = partial(choosing.train_query_adapter, learning_rate=3e-3 * _RATE)
    with (
        mock.patch.object(workflow, "compare", compare),
        mock.patch.dict(vars(learning), {"_RATE": learning._RATE * _RATE} if too_fast else {}),
        mock.patch.dict(vars(choosing), {"train_query_adapter": adapting} if too_fast else {}),
    ):
        try:
            found = specialize(
                DEFAULT_MODEL, place / "collection", budget=BUDGET, output=place / "out", seed=cell.seed, **part.options
            )
        except (InvalidInputError, TrainingError) as problem:
            return {"accepted": False, "told": f"{type(problem).__name__}: {problem}"}
    facts: dict[str, Any] = {"accepted": found.accepted, "told": found.report.verdict, "chosen": found.report.chosen}
    facts["leaks"] = str(found.report.data.split.leaks)
    if tested:
        values = [_fresh(model, place / "fresh", part) for model in tested]
        facts["fresh"] = paired_bootstrap(values[1], values[0]).mean
    shutil.rmtree(place)
    return facts


def _fresh(model: Any, folder: Path, part: Part) -> list[float]:
    """nDCG@10 of each fresh query over the same passages."""
    if not folder.exists():
        _write(folder, replace(part, splits={"test": part.fresh}))
    return ndcg(model, folder)


def _write(folder: Path, part: Part) -> None:
    """A BEIR folder."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", part.corpus), ("queries", part.queries)):
        lines = (json.dumps({"_id": id, "text": text}) for id, text in texts.items())
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    for split, labels in part.splits.items():
        judged = (f"{query}\t{id}\t{grade}\n" for query, grades in labels.items() for id, grade in grades.items())
        (folder / "qrels" / f"{split}.tsv").write_text("".join(judged), "utf-8")


def rows(done: Mapping[Cell, Mapping[str, Any]]) -> Iterator[Row]:
    """The figures, of the cells that are there."""
    sabotaged = [found for cell, found in done.items() if cell.what != "honest"]
    real = [found for cell, found in done.items() if cell.what == "honest" and found.get("fresh", 0) >= REAL]
    wrongly, rightly = (sum(found["accepted"] for found in each) for each in (sabotaged, real))
    met = None if len(sabotaged) < len(SABOTAGES) else not wrongly
    yield Row("sabotaged runs that were accepted", f"0 of {len(SABOTAGES)}", f"{wrongly} of {len(sabotaged)}", met)
    missed = len(real) - rightly
    met = False if missed > HONEST - LEAST else rightly >= LEAST or None  # too few had such a gain to tell
    measured = f"{rightly} of {len(real)}"
    yield Row(f"honest runs with a gain >= {REAL} that were accepted", f">= {LEAST} of {HONEST}", measured, met)


def summarize(args: argparse.Namespace, wanted: Sequence[Cell]) -> bool:
    """The section of BENCHMARKS.md, from the cells that are there; whether all figures are as they should be."""
    done = {cell: found for cell in wanted if (found := finished(FOLDER, cell.name)) is not None}
    made = list(rows(done))
    table = [
        "| run | collection | accepted | gain on fresh queries | what it said |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cell, found in done.items():
        gain = f"{found['fresh']:+.3f}" if "fresh" in found else ""
        told = str(found["told"]).replace("|", "\\|")
        table.append(f"| {cell.what} | {cell.collection} | {'yes' if found['accepted'] else 'no'} | {gain} | {told} |")
    missing = len(wanted) - len(done)
    report(
        "guard",
        "The guard of `specialize`",
        args,
        made,
        f"`specialize` on parts of collections, as many runs on each: {QUERIES} queries (560 train, 120 dev, 120 test) "
        f"and their passages, with {OTHERS} others; {Path(DEFAULT_MODEL).name}, a budget of {BUDGET} seconds. A gain "
        f"is the candidate's, accepted or not, in nDCG@10 on {FRESH} more queries with right labels, which nothing in "
        "the run saw." + (f" **{missing} of {len(wanted)} runs are not there yet.**" if missing else ""),
        "other models, runs without judgments, gains that are smaller.",
        ("sentence-transformers",),
        "\n".join(table),
    )
    return all(row.met is not False for row in made)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collections", type=Path, nargs="*", help="collections with 1,000 training queries or more")
    add_options(options)
    args = options.parse_args()
    if not args.collections:
        say("skipped: pass the paths of collections, as they are not ours to ship")
        return
    quiet()
    wanted = list(cells([path.stem for path in args.collections]))
    paths = {path.stem: path for path in args.collections}
    words = [str(path.resolve()) for path in args.collections]
    todo = {cell.name: partial(work, cell, paths[cell.collection]) for cell in wanted}
    if run(args, FOLDER, "benchmarks.guard", words, todo) and not summarize(args, wanted):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
