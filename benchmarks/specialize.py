"""`specialize` against what sentence-transformers' documentation has people do: same data, same wall clock.

python -m benchmarks.specialize scifact.zip nfcorpus.zip medquad.zip nl2bash.zip wikiqa.zip cranfield.zip
python -m benchmarks.specialize ... --summarize
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks._common import ROOT, Row, parser, quiet, report, say
from benchmarks._timed_cells import add_options, finished, run
from mlr_rag import MLRModel
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.evaluation.significance import paired_bootstrap
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.specializing.precision import HalfPrecision

FOLDER = ROOT / "build" / "specialize"
BUDGET = 15 * 60
UNLABELLED = ("cranfield",)  # without training judgments
SEEDS = {"scifact": 3, "nl2bash": 3}  # 1 elsewhere
FORGETTING = "msmarco_5k"
WAYS = ("judged", "stock", "unjudged")
JUDGED, UNJUDGED, FORGOTTEN, LEVEL = 0.06, 0.015, 0.010, 0.05


@dataclass(frozen=True)
class Cell:
    """One model: a collection, a way of making it, and a seed."""

    collection: str
    way: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.collection}-{self.way}-{self.seed}"


def cells(collections: Sequence[str]) -> Iterator[Cell]:
    """Base models first, then one seed of everything, then the other seeds."""
    for name in collections:
        yield Cell(name, "base", 0)
    for seed in range(max(SEEDS.values())):
        for name in collections:
            if seed < SEEDS.get(name, 1):
                for way in WAYS if name not in UNLABELLED else ("unjudged",):
                    yield Cell(name, way, seed)


def work(cell: Cell, archives: Mapping[str, Path], teacher: str | None) -> dict[str, Any]:
    """Make the model within the budget, and measure it, which is not part of the budget."""
    path = archives[cell.collection]
    started, facts = time.perf_counter(), dict[str, Any](cell=asdict(cell))
    if cell.way == "base":
        model: Any = MLRModel.from_pretrained(DEFAULT_MODEL)
    elif cell.way == "stock":
        from benchmarks._stock import fine_tune

        model = MLRModel.from_pretrained(fine_tune(path, BUDGET, cell.seed), pooling="last")
    else:
        model, found = _specialized(cell, path, teacher)
        facts |= found
    facts["seconds"] = round(time.perf_counter() - started, 1)
    facts["ndcg"] = ndcg(model, path)
    if cell.way != "stock" and FORGETTING in archives:
        facts["forgetting"] = ndcg(model, archives[FORGETTING])
    return facts


def _specialized(cell: Cell, path: Path, teacher: str | None) -> tuple[Any, dict[str, Any]]:
    from mlr_rag import specialize

    folder = FOLDER / cell.name
    shutil.rmtree(folder, ignore_errors=True)  # nothing of an earlier cell may save time
    unjudged = cell.way == "unjudged"
    done = specialize(
        corpus=path,
        queries="generate" if unjudged else None,
        teacher=teacher if unjudged else None,
        budget=BUDGET,
        output=folder / "model",
        seed=cell.seed,
    )
    shutil.rmtree(folder / ".mlr-rag")
    facts = {"accepted": done.accepted, "chosen": done.report.chosen, "alpha": done.report.alpha}
    return done.model, {**facts, "verdict": done.report.verdict}


def ndcg(model: Any, path: Path) -> list[float]:
    """nDCG@10 of each test query over the whole corpus, in the order of their ids."""
    test = Collection.load(path, "test")
    evaluator = RetrievalEvaluator(test.queries, test.qrels, {id: text for id, text in test.texts() if text})
    values = evaluator.per_query(HalfPrecision(model))
    return [values[id] for id in sorted(values)]


def summarize(args: argparse.Namespace, archives: Mapping[str, Path]) -> None:
    """The section of BENCHMARKS.md, from the cells that are there."""
    names = [name for name in archives if name != FORGETTING]
    rows, table = [], ["| collection | base | judged | stock | unjudged |", "| --- | --- | --- | --- | --- |"]
    gains: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    worse, lost = [], []
    for name in names:
        base = finished(FOLDER, Cell(name, "base", 0).name)
        if base is None:
            continue
        shown = [name, f"{mean(base['ndcg']):.3f}"]
        for way in WAYS:
            found = [
                value for seed in range(SEEDS.get(name, 1)) if (value := finished(FOLDER, Cell(name, way, seed).name))
            ]
            if not found:
                shown.append("")
                continue
            each = np.mean([value["ndcg"] for value in found], axis=0)
            difference = paired_bootstrap(each, base["ndcg"])
            gains[way][name] = difference.mean
            if way != "stock" and difference.mean < 0 and difference.p < LEVEL:
                worse.append(f"{name} {way}")
            lost += [
                mean(base["forgetting"]) - mean(value["forgetting"])
                for value in found
                if value.get("accepted") and "forgetting" in value
            ]
            kept = "" if way == "stock" else f", {sum(value['accepted'] for value in found)} of {len(found)} accepted"
            minutes = mean(value["seconds"] for value in found) / 60
            shown.append(
                f"{each.mean():.3f} ({difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]{kept}, "
                f"{minutes:.0f} min)"
            )
        table.append(f"| {' | '.join(shown)} |")
    judged, stock, unjudged = (gains[way] for way in WAYS)
    both = judged.keys() & stock.keys()
    if judged:
        value = mean(judged.values())
        rows.append(Row("mean gain with judgments", f">= {JUDGED:.3f}", f"{value:+.3f}", value >= JUDGED))
    if both:
        ahead = sum(judged[name] > stock[name] for name in both)
        of_stock = mean(stock[name] for name in both)
        rows.append(Row("mean gain of the stock way", "less", f"{of_stock:+.3f}", of_stock < mean(judged.values())))
        rows.append(Row("collections ahead of the stock way", ">= 4 of 5", f"{ahead} of {len(both)}", ahead >= 4))
    if unjudged:
        value = mean(unjudged.values())
        rows.append(Row("mean gain without judgments", f">= {UNJUDGED:.3f}", f"{value:+.3f}", value >= UNJUDGED))
    rows.append(Row("worse than the base at p < 0.05", "none", ", ".join(worse) or "none", not worse))
    if lost:
        value = mean(lost)
        rows.append(Row(f"accepted models lose on {FORGETTING}", "<= 0.010", f"{value:.3f}", value <= FORGOTTEN))
    missing = [cell.name for cell in cells(names) if finished(FOLDER, cell.name) is None]
    report(
        "specialize",
        "A model for your documents",
        args,
        rows,
        "nDCG@10 of the test queries over the whole corpus, with vectors computed in bfloat16, the base's too; "
        f"{DEFAULT_MODEL}; a budget of {BUDGET // 60} "
        "minutes with everything in it but this measurement; the difference from the base is of each query's mean over "
        "seeds, with a paired bootstrap's 95% interval. Judged: `specialize(corpus=zip)`, the collection's own splits. "
        "Stock: `mine_hard_negatives` and MultipleNegativesRankingLoss with the documentation's settings, on the same "
        "judgments and in the same time. Unjudged: extractive queries and "
        f"{Path(args.teacher).name if args.teacher else 'no teacher'}."
        + (f" **Not there yet: {', '.join(missing)}.**" if missing else ""),
        "a GPU, larger models, queries by a language model.",
        ("sentence-transformers", "ir-measures"),
        "\n".join(table),
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collections", type=Path, nargs="*", help="collections of BEIR's form")
    options.add_argument("--teacher", help="of the runs without judgments: a folder or name")
    add_options(options)
    args = options.parse_args()
    if not args.collections:
        say("skipped: pass the paths of BEIR's scifact.zip and others, as the collections are not ours to ship")
        return
    quiet()
    archives = {path.stem: path for path in args.collections}
    wanted = list(cells([name for name in archives if name != FORGETTING]))
    words = [str(path.resolve()) for path in args.collections]
    words += ["--teacher", args.teacher] if args.teacher else []
    todo = {cell.name: partial(work, cell, archives, args.teacher) for cell in wanted}
    if run(args, FOLDER, "benchmarks.specialize", words, todo):
        summarize(args, archives)


if __name__ == "__main__":
    main()
