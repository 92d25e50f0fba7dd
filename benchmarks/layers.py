"""Whether the last layer is the best one, and which layers are dead, before any training.

python -m benchmarks.layers nl2bash.zip scifact.zip --model all-MiniLM-L6-v2 --model /models/bert-tiny
"""

from __future__ import annotations

from pathlib import Path

from benchmarks._common import Row, parser, quiet, report, say
from mlr_rag.evaluation.layer_report import LayerReport, Measured, describe, is_pooling
from mlr_rag.evaluation.layers import QUERIES, load_split, measure_layers
from mlr_rag.model.names import DEFAULT_MODEL

HEAD = ("model", "collection", "similarity", "last layer", "best pooling", "best of the rest", "wins", "dead")


def cells(each: LayerReport) -> list[str]:
    poolings = [other for other in each.systems[1:] if is_pooling(other.system, each.num_layers)]
    rest = [other for other in each.systems[1:] if other not in poolings]
    last = each.last.ndcg
    wins = [
        " / ".join(f"{100 * each.share(layer, each.num_layers, name):.2f}" for name in each.populations)
        for layer in range(each.num_layers - 1, 0, -1)
    ]
    return [
        Path(each.model).name,
        f"{each.collection} {each.split}",
        each.similarity,
        f"{last.mean:.3f} ({last.low:.3f} to {last.high:.3f})",
        told(max(poolings, key=lambda other: other.ndcg.mean)),
        told(max(rest, key=lambda other: other.ndcg.mean)),
        "<br>".join(wins),
        ", ".join(str(layer) for layer, _ in each.dead) or "none",
    ]


def told(each: Measured) -> str:
    assert each.difference is not None  # only the last layer has none
    low, high = each.difference.low, each.difference.high
    return f"{describe(each.system)}: {each.difference.mean:+.3f} ({low:+.3f} to {high:+.3f}), p {each.corrected:.2g}"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collections", type=Path, nargs="*", help="collections in the BEIR layout, zips or folders")
    options.add_argument("--model", action="append", help="a base model; give it again for more")
    options.add_argument("--queries", type=int, default=QUERIES)
    args = options.parse_args()
    if not args.collections:
        say("skipped: pass the paths of collections in the BEIR layout, as they are not ours to ship")
        return
    quiet()
    found: list[LayerReport] = []
    for collection in map(load_split, args.collections):
        for model in args.model or [DEFAULT_MODEL]:
            for similarity in ("cosine", "dot"):
                found.append(measure_layers(model, collection, similarity, args.queries, args.seed))
                say(Path(model).name, collection.name, similarity, found[-1].recommendation)
    better = sum(any(other.is_better for other in each.systems) for each in found)
    dead, pairs = sum(len(each.dead) for each in found), sum(each.num_layers - 1 for each in found)
    rows = [
        Row("cells where something surely beats the last layer", "", f"{better} of {len(found)}"),
        Row("pairs with the last layer where one of both is dead", "", f"{dead} of {pairs}"),
    ]
    table = [HEAD, ["---"] * len(HEAD), *map(cells, found)]
    sizes = {f"{each.collection} {each.queries:,} of {each.documents:,}": None for each in found}
    report(
        "layers",
        "What layers are worth before any training",
        args,
        rows,
        "`mlr-rag layers`: nDCG@10, its 95% interval, and paired differences to the last layer, with p of a "
        "randomization test, corrected for all systems (Holm). A pooling is the maximum or the mean of the last layer "
        "and another; the rest are layers alone, layers on both sides, and pairs without the last. Wins: how often "
        "layers L-1 to 1 score above the last, in % of all documents / the last layer's 20 best / the relevant; dead: "
        f"less than 1% of the last two. Queries of documents: {', '.join(sizes)}.",
        "training; other models; sets of three layers or more.",
        ("sentence-transformers", "torch", "ir-measures"),
        "\n".join(f"| {' | '.join(row)} |" for row in table),
    )


if __name__ == "__main__":
    main()
