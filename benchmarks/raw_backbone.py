"""The claim of arXiv 2509.23861 at a small scale: does self-contrastive pooling help a backbone that was never tuned?

python -m benchmarks.raw_backbone bert-tiny squad_nqg.zip
python -m benchmarks.raw_backbone bert-tiny squad_nqg.zip --summarize
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from benchmarks import _training as training
from benchmarks._cells import Cell, Values, finished, run
from benchmarks._common import ROOT, Row, parser, report, say
from benchmarks._tables import compare, over_seeds, table, tested, wins_of_lower_layers
from benchmarks._training import Similarity
from mlr_rag.evaluation.significance import Difference, holm
from mlr_rag.model.pooling import PoolingMode

SEEDS, STEPS, LISTS, LENGTH = 5, 160, 48, 2  # a relevant passage and a hard negative, as in the paper; its batch is 128
RATES = (1e-4, 3e-4, 1e-3)
FOLDER = ROOT / "build" / "raw_backbone"


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        title: How the table names it.
        pooling: The model's.
        objective: Makes it; None trains nothing.
        similarity: "dot" as in the paper.
        against: The method that it is compared with: DE in the same setting.
        untied: Whether queries have an encoder of their own, as in the paper.
    """

    title: str
    pooling: PoolingMode
    objective: Callable[[], Any] | None
    similarity: Similarity
    against: str
    untied: bool = False


def _methods() -> dict[str, Method]:
    from mlr_rag.training.objectives import InfoNCE, LastReg, MultiVector, SelfContrastive

    made: dict[str, Method] = {}
    settings: tuple[tuple[str, Similarity, float], ...] = (("", "dot", 1.0), ("-cosine", "cosine", 0.05))
    for kind, similarity, temperature in settings:
        nce = partial(InfoNCE, temperature)
        own = partial(SelfContrastive, temperature=temperature)
        rows: dict[str, tuple[str, PoolingMode, Callable[[], Any] | None]] = {
            "untrained": ("untrained", "last", None),
            "de": ("DE: the last layer", "last", nce),
            "multi-vector": ("multi-vector {2, 1}", "multi_vector", partial(MultiVector, temperature)),
            "mean": ("mean of the layers", "mean", nce),
            "scalar-mix": ("scalar mix", "scalar_mix", nce),
            "self-contrastive": ("self-contrastive, weight 1", "self_contrastive", partial(own, 1.0)),
            "self-contrastive-0.1": ("self-contrastive, weight 0.1", "self_contrastive", partial(own, 0.1)),
            "last-reg": ("last_reg, weight 1", "self_contrastive", partial(LastReg, 1.0, temperature)),
            "logsumexp": ("self-contrastive, log-sum-exp", "self_contrastive", partial(own, 1.0, reduce="logsumexp")),
            "scale": ("self-contrastive, learned scale", "self_contrastive", partial(own, 1.0, layer_scales=[4.0])),
        }
        for name, (title, pooling, objective) in rows.items():
            made[name + kind] = Method(title, pooling, objective, similarity, "de" + kind)
    for name in ("scale", "scalar-mix", "last-reg"):  # unit vectors have one scale; the others answer no question here
        del made[f"{name}-cosine"]
    for name in ("de", "self-contrastive"):
        made[f"{name}-untied"] = replace(made[name], against="de-untied", untied=True)
    return made


@lru_cache(maxsize=1)
def _data(archive: Path) -> training.Data:
    return training.load(archive, FOLDER, test_queries=2000)


def work(base: str, archive: Path, cell: Cell) -> tuple[dict[str, Any], Values]:
    """Train a method from the raw backbone, and search the whole corpus."""
    import torch

    from mlr_rag import MLRModel
    from mlr_rag.training.collator import ListCollator
    from mlr_rag.training.loss import ListLoss

    method, data = _methods()[cell.method], _data(archive)
    torch.manual_seed(cell.seed)
    untied = {"separate_query_encoder": True} if method.untied else {}
    model: Any = MLRModel.from_pretrained(base, (1, 2), method.pooling, "cls", "paper", **untied)
    model.max_seq_length = training.TOKENS
    facts: dict[str, Any] = {}
    if method.objective is not None:
        loss = ListLoss(model, method.objective(), similarity=method.similarity, gradient_cache=False)
        drawn = training.batches(data, cell.seed, STEPS, LISTS, LENGTH)
        made = ([training.as_list(data, *row) for row in rows] for rows in drawn)
        inputs = training.as_inputs(ListCollator(model), made)
        facts["loss"] = training.train(model, loss, inputs, STEPS, cell.rate)
        facts["wins"] = {str(layer): share for layer, share in loss.layer_wins().items()}
    found = training.search(model, data, cell.split, method.similarity)
    return facts, training.measure(data, cell.split, found)


def grid() -> list[Cell]:
    """DE in each setting with each learning rate, on held-out training queries."""
    return [
        Cell("squad_nqg", method, 0, rate, "held-out")
        for method in sorted({each.against for each in _methods().values()})
        for rate in RATES
    ]


def _seeds(method: Method) -> int:
    return 1 if method.objective is None else SEEDS


def cells(done: dict[Cell, dict[str, Any]]) -> list[Cell]:
    """Every method with every seed, at the learning rate that was best for DE in its setting."""
    best: dict[str, Cell] = {}
    for cell in grid():
        known = best.get(cell.method)
        if cell in done and (known is None or done[cell]["top-5"] > done[known]["top-5"]):
            best[cell.method] = cell
    return [
        Cell("squad_nqg", name, seed, best[method.against].rate if method.objective else 0.0)
        for seed in range(SEEDS)
        for name, method in _methods().items()
        if method.against in best and seed < _seeds(method)
    ]


_SETTINGS = (
    ("", "raw dot products, temperature 1, one encoder"),
    ("-cosine", "unit vectors, temperature 0.05, one encoder"),
    ("-untied", "raw dot products, temperature 1, two encoders, as in the paper"),
)


def summarize(args: argparse.Namespace) -> None:
    """The section, of the cells that are there."""
    done, methods = finished(FOLDER), _methods()
    found = {name: tested(done, "squad_nqg", name) for name in methods}
    compared = {
        name: compare(FOLDER, found[name], found[method.against], "top-5")
        for name, method in methods.items()
        if name != method.against and method.objective
    }
    there = {name: difference for name, difference in compared.items() if difference}
    p = dict(zip(there, holm([difference.p for difference in there.values()]), strict=True))
    parts = []
    for suffix, setting in _SETTINGS:
        rows = []
        for name, method in methods.items():
            if method.against != f"de{suffix}":
                continue
            accuracies = [over_seeds(done, found[name], f"top-{k}", 100, 1) for k in (5, 20, 100)]
            beside = _shown(there[name], p[name]) if name in there else ""
            wins = wins_of_lower_layers(done, found[name]).partition(": ")[2]
            rows.append([method.title, *accuracies, beside, wins, str(len(found[name]))])
        head = ["", "top-5", "top-20", "top-100", "top-5 less DE", "lower layer wins", "seeds"]
        rate = {
            cell.rate
            for name, each in methods.items()
            if each.against == f"de{suffix}"
            for cell in found[name]
            if cell.rate
        }
        shown = ", ".join(f"{each:g}" for each in sorted(rate)) or "not chosen yet"
        parts.append(f"With {setting} (learning rate {shown}):\n\n{table(head, rows)}")
    claims = [
        Row(
            f"{methods[name].title} less DE, top-5, {setting}", "> 0", _shown(there[name], p[name]), there[name].low > 0
        )
        for suffix, setting in _SETTINGS
        for name in (f"self-contrastive{suffix}", f"6-5{suffix}", f"6-4{suffix}")
        if name in there
    ]
    missing = sum(_seeds(method) - len(found[name]) for name, method in methods.items())
    report(
        "raw_backbone",
        "The paper's claim on a raw backbone",
        args,
        claims,
        "Xie and Lukasiewicz (arXiv 2509.23861) report +3.70 points of top-5 accuracy on SQuAD for "
        "self-contrastive pooling over DE, with BERT-base, layers 12 and 10, a batch of 128 and 40 epochs over 21 "
        "million passages. Here: bert-tiny (2 layers of 128, not tuned for retrieval as far as is known; "
        f"`untrained` is how it starts), [CLS], layers 1 and 2, {STEPS} steps of {LISTS} queries "
        f"({STEPS * LISTS / 10_029:.1f} epochs), each with a relevant passage and one drawn of BM25's best "
        f"{training.HARD} others, and everyone else's passages as negatives; AdamW, no dropout, a plain loop over "
        "ListLoss. All methods of a setting have DE's learning rate, chosen on 500 held-out training queries, and "
        "the same batches for a seed. Accuracy: whether a relevant passage is among the first k of all 13,447, "
        "for 2,000 test queries drawn once; ± is the standard error over seeds. Differences are between each "
        "query's mean over seeds, with the 95% interval and p of a paired bootstrap over queries, Holm-corrected "
        "over the tables' rows. A layer wins where it is a candidate's best one in training."
        + (f" **{missing} cells are missing.**" if missing else ""),
        "deeper backbones, for which there was no GPU; more than one epoch.",
        ("sentence-transformers", "torch", "transformers"),
        "\n\n".join(parts),
    )


def _shown(difference: Difference, p: float) -> str:
    """In points."""
    mean, low, high = (100 * each for each in (difference.mean, difference.low, difference.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}], p = {p:.2g}"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("base", nargs="?", help="bert-tiny: a folder that sentence-transformers opens")
    options.add_argument("collection", type=Path, nargs="?", help="the zip of squad_nqg")
    options.add_argument("--workers", type=int, default=2, help="processes, each of one thread")
    options.add_argument("--summarize", action="store_true", help="write the section from the cells that are there")
    args = options.parse_args()
    if args.base is None or args.collection is None:
        say("skipped: pass a backbone and squad_nqg.zip, as neither is ours to ship")
        return
    if not args.summarize:
        _data(args.collection)
        each = partial(work, args.base, args.collection)
        run(grid(), each, FOLDER, args.workers)
        run(cells(finished(FOLDER)), each, FOLDER, args.workers)
    summarize(args)


if __name__ == "__main__":
    main()
