"""Every objective and representation against the others: same data, same steps, same seeds.

python -m benchmarks.objectives bert-tiny squad_nqg.zip nl2bash.zip nfcorpus.zip
python -m benchmarks.objectives bert-tiny squad_nqg.zip nl2bash.zip nfcorpus.zip --summarize
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from benchmarks import _training as training
from benchmarks._cells import Cell, Values, finished, run
from benchmarks._common import ROOT, Row, parser, report, say
from benchmarks._tables import compare, over_seeds, table, tested, wins_of_lower_layers
from mlr_rag.evaluation.significance import holm
from mlr_rag.model.names import DEFAULT_MODEL

SEEDS, STEPS, LENGTH = 3, 100, 8  # a relevant passage and seven of BM25's
DEEP_STEPS, DEEP_LENGTH = 50, 4  # of the deep backbone, whose steps take ten times as long
LISTS = {"nfcorpus": 8}  # in a batch, where texts are long; 16 elsewhere
RATES = {"": (1e-4, 3e-4, 1e-3), DEFAULT_MODEL: (1e-5, 3e-5, 1e-4)}
FOLDER = ROOT / "build" / "objectives"
TAUGHT = 2000  # training queries that the cross-encoder of the multi-level row learns from
_BY_LAYER = ("multi_vector", "self_contrastive")
DEEP = "nl2bash"  # the collection of short texts on which sets of several layers are tried


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        title: How the table names it.
        pooling: The model's, or "tokens" or "maxsim" for the baselines.
        objective: Makes it; None trains nothing.
        start: See MLRModel.from_pretrained.
        layers: The layer set, or the number of tokens.
        base: The backbone; by default the one that was passed.
    """

    title: str
    pooling: str
    objective: Callable[[], Any] | None = None
    start: str = "identity"
    layers: tuple[int, ...] = (1, 2)
    base: str = ""
    against: str = field(default="de", kw_only=True)


def methods() -> dict[str, Method]:
    """The rows, by the names that cells have."""
    from mlr_rag.training import objectives as o
    from mlr_rag.training.multilevel.loss import multi_level_objective

    return {
        "base": Method("untrained", "last"),
        "teacher": Method("the teacher, all-MiniLM-L6-v2", "last", layers=(6,), base=DEFAULT_MODEL),
        "de": Method("DE, InfoNCE", "last", o.InfoNCE),
        "me-bert-2": Method("ME-BERT, 2 tokens", "tokens", o.MultiVector, layers=(2,)),
        "me-bert-4": Method("ME-BERT, 4 tokens", "tokens", o.MultiVector, layers=(4,)),
        "colbert": Method("the paper's ColBERT, all tokens", "tokens", o.MultiVector, layers=(training.TOKENS,)),
        "maxsim": Method("full MaxSim (stock)", "maxsim", o.InfoNCE),
        "multi-vector": Method("MLR, multi-vector {2, 1}", "multi_vector", o.MultiVector),
        "mean": Method("MLR, mean", "mean", o.InfoNCE, "paper"),
        "scalar-mix": Method("MLR, scalar mix, identity start", "scalar_mix", o.InfoNCE),
        "scalar-mix-paper": Method("MLR, scalar mix, the paper's start", "scalar_mix", o.InfoNCE, "paper"),
        "self-contrastive": Method("MLR, self-contrastive", "self_contrastive", o.SelfContrastive),
        "last-reg": Method("MLR, last_reg", "self_contrastive", o.LastReg),
        "margin-mse": Method("DE, MarginMSE", "last", o.MarginMSE),
        "listwise": Method("DE, listwise KL", "last", o.ListwiseKL),
        "listwise-infonce": Method("DE, listwise KL + 0.1 InfoNCE", "last", o.default_objective),
        "wasserstein": Method("DE, Wasserstein", "last", o.Wasserstein),
        "auc": Method("DE, Mann-Whitney (AUC)", "last", o.MannWhitney),
        "multi-level": Method("DE, multi-level (our reading of MD2PR)", "multi-level", multi_level_objective),
    } | deep_methods()


def deep_methods() -> dict[str, Method]:
    """Layer sets of a backbone that has more than two layers."""
    from mlr_rag.training import objectives as o

    made = {"deep-de": Method("DE, InfoNCE", "last", o.InfoNCE, layers=(6,), base=DEFAULT_MODEL, against="deep-de")}
    for layers in ((6, 5), (6, 4), (6, 5, 4, 3)):
        shown = "{" + ", ".join(map(str, layers)) + "}"
        for pooling, objective in (
            ("multi_vector", o.MultiVector),
            ("scalar_mix", o.InfoNCE),
            ("self_contrastive", o.SelfContrastive),
        ):
            title = f"MLR, {pooling.replace('_', ' ')} {shown}"
            name = f"deep-{pooling}-{'-'.join(map(str, layers))}"
            made[name] = Method(title, pooling, objective, layers=layers, base=DEFAULT_MODEL, against="deep-de")
    return made


@lru_cache(maxsize=8)
def _data(archive: Path) -> training.Data:
    return training.load(archive, FOLDER, test_queries=1000)


@lru_cache(maxsize=8)
def _teacher(archive: Path) -> dict[tuple[str, str], Any]:
    """MiniLM's unit vectors, by task and text."""
    from mlr_rag.training.mining.vectors import VectorCache

    data, model = _data(archive), _model("", methods()["teacher"])
    cache = VectorCache(FOLDER / "vectors.sqlite")
    texts = {"query": list(data.train.texts.values()), "document": list(data.corpus.values())}
    vectors: dict[tuple[str, str], Any] = {}
    for task, of_task in texts.items():
        rows = cache.encode(model, of_task, task, False)
        vectors |= {(task, text): row for text, row in zip(of_task, rows, strict=True)}
    return vectors


def _model(base: str, method: Method) -> Any:
    from benchmarks import _baselines as baselines
    from mlr_rag import MLRModel

    if method.pooling == "tokens":
        return baselines.token_model(base, method.layers[0], training.TOKENS)
    if method.pooling == "maxsim":
        return baselines.maxsim_model(base, training.TOKENS)
    pooling = "last" if method.pooling == "multi-level" else method.pooling
    model = MLRModel.from_pretrained(method.base or base, method.layers, pooling, start=method.start)  # type: ignore[arg-type]
    model.max_seq_length = training.TOKENS
    return model


def _lists(archive: Path, batches: Iterator[list[tuple[str, list[str]]]]) -> Iterator[list[Any]]:
    """The batches with the teacher's cosines as scores."""
    data, vectors = _data(archive), _teacher(archive)
    for rows in batches:
        batch = []
        for query, documents in rows:
            asked = vectors["query", data.train.texts[query]]
            scores = [float(asked @ vectors["document", data.corpus[id]]) for id in documents]
            batch.append(training.as_list(data, query, documents, scores))
        yield batch


def _loss(model: Any, method: Method, archive: Path) -> Any:
    from benchmarks import _baselines as baselines
    from mlr_rag.training.loss import ListLoss
    from mlr_rag.training.multilevel.loss import MultiLevelLoss
    from mlr_rag.training.teachers.models import CrossEncoderTeacher

    if method.objective is None:
        raise ValueError(method.title)
    if method.pooling == "maxsim":
        return baselines.maxsim_loss(model)
    if method.pooling == "multi-level":
        teacher = CrossEncoderTeacher(_cross_encoder_folder(archive)).model
        return MultiLevelLoss(model, teacher, method.objective(), gradient_cache=False)
    return ListLoss(model, method.objective(), gradient_cache=False)


def work(base: str, archives: Sequence[Path], cell: Cell) -> tuple[dict[str, Any], Values]:
    """Train a method, and search the whole corpus."""
    import torch

    from benchmarks import _baselines as baselines
    from mlr_rag.training.collator import ListCollator

    archive, deep = next(each for each in archives if each.stem == cell.collection), cell.method.startswith("deep-")
    method, data = methods()[cell.method], _data(archive)
    torch.manual_seed(cell.seed)
    model = _model(base, method)
    facts: dict[str, Any] = {}
    if method.objective is not None:
        loss = _loss(model, method, archive)
        steps, length = (DEEP_STEPS, DEEP_LENGTH) if deep else (STEPS, LENGTH)
        drawn = training.batches(data, cell.seed, steps, LISTS.get(data.name, 16), length)
        if method.pooling == "maxsim":
            inputs = baselines.maxsim_batches(model, data, drawn)
        else:
            inputs = training.as_inputs(ListCollator(model), _lists(archive, drawn))
        with training.in_half(model, deep):
            facts["loss"] = training.train(model, loss, inputs, steps, cell.rate)
        wins: dict[int, float] = loss.layer_wins() if method.pooling in _BY_LAYER else {}
        facts["wins"] = {str(layer): share for layer, share in wins.items()}
    search = baselines.maxsim_search if method.pooling == "maxsim" else partial(training.search, similarity="cosine")
    with training.in_half(model, deep):
        found = search(model, data, cell.split)
    return facts, training.measure(data, cell.split, found)


def _cross_encoder_folder(archive: Path) -> Path:
    return FOLDER / f"cross-encoder-{archive.stem}"


def prepare(base: str, archives: Sequence[Path]) -> None:
    """What all cells share: hard negatives, the teacher's vectors, and a cross-encoder a collection."""
    from mlr_rag.training.teachers.cross_encoder import train_cross_encoder

    for archive in archives:
        data = _data(archive)
        say(f"{data.name}: {len(data.corpus):,} documents, {len(data.train.texts):,} queries to train on")
        _teacher(archive)
        say("the cross-encoder whose attention the multi-level row learns from")
        chosen = list(data.train.texts)[:TAUGHT]
        train_cross_encoder(
            base,
            {id: data.train.texts[id] for id in chosen},
            {id: data.train.qrels[id] for id in chosen},
            data.corpus,
            {id: {document: -float(rank) for rank, document in enumerate(data.hard[id])} for id in chosen},
            _cross_encoder_folder(archive),
            length=4,
            epochs=1,
            batch_size=16,
            max_length=training.TOKENS,
        )


def grid(collections: Sequence[str]) -> list[Cell]:
    """DE with each learning rate, on held-out training queries."""
    cells = [Cell(name, "de", 0, rate, "held-out") for name in collections for rate in RATES[""]]
    if DEEP in collections:
        cells += [Cell(DEEP, "deep-de", 0, rate, "held-out") for rate in RATES[DEFAULT_MODEL]]
    return cells


def cells(collections: Sequence[str], done: dict[Cell, dict[str, Any]]) -> list[Cell]:
    """Every method with every seed, at the learning rate that was best for DE; the deep ones last."""
    best: dict[tuple[str, str], Cell] = {}
    for cell in grid(collections):
        key = cell.collection, cell.method
        if cell in done and (key not in best or done[cell]["ndcg@10"] > done[best[key]]["ndcg@10"]):
            best[key] = cell
    made = [Cell(name, method, 0, 0.0) for name in collections for method in ("base", "teacher")]
    for deep in (False, True):
        made += [
            Cell(name, method, seed, best[name, each.against].rate)
            for seed in range(SEEDS)
            for name in collections
            for method, each in methods().items()
            if each.objective and method.startswith("deep-") == deep and (name, each.against) in best
        ]
    return made


def summarize(args: argparse.Namespace, collections: Sequence[str]) -> None:
    """The section, of the cells that are there."""
    done, rows_of = finished(FOLDER), methods()
    shallow = {name: each for name, each in rows_of.items() if not name.startswith("deep-")}
    deep = {name: each for name, each in rows_of.items() if name.startswith("deep-")}
    parts = [
        "nDCG@10 on test queries, from bert-tiny:\n\n" + _table(done, shallow, collections),
        f"nDCG@10 on {DEEP}, from all-MiniLM-L6-v2, which has six layers and was tuned before ({DEEP_STEPS} steps "
        f"of lists of {DEEP_LENGTH}, in bfloat16):\n\n" + _table(done, deep, [DEEP]),
    ]
    rates = [
        f"{cell.collection} {'MiniLM ' if cell.method == 'deep-de' else ''}{cell.rate:g}"
        for cell in dict.fromkeys(cell for cell in done if cell.method in ("de", "deep-de") and cell.split == "test")
        if cell.seed == 0
    ]
    expected, there = 0, 0
    for rows, columns in ((shallow, collections), (deep, [DEEP])):
        for name, each in rows.items():
            expected += (SEEDS if each.objective else 1) * len(columns)
            there += sum(len(tested(done, collection, name)) for collection in columns)
    report(
        "objectives",
        "Objectives and representations on the same data",
        args,
        [Row("trained and searched", f"{expected} cells", f"{there}", there == expected)],
        f"{STEPS} steps of 16 lists (nfcorpus: 8), each of a relevant document and seven drawn of BM25's best "
        f"{training.HARD} others, {training.TOKENS} tokens; the other lists' documents are candidates too, where "
        "the objective has any. AdamW, no dropout, cosine at temperature 0.05 where there is one, a plain loop "
        "over ListLoss (full MaxSim: the stock loss as it comes). All rows have DE's learning rate, chosen on 500 "
        f"held-out training queries ({', '.join(rates) or 'not chosen yet'}), and the same lists for a seed. [CLS] "
        "of bert-tiny, mean of MiniLM; teacher scores are cosines of all-MiniLM-L6-v2; training judgments are "
        "binary, those of nfcorpus's test graded. The multi-level row has the same teacher for the sentence "
        "level, and for the word level the attention of a cross-encoder that was trained from bert-tiny on "
        f"{TAUGHT:,} of the training queries. At most 1,000 test queries, drawn once, and the whole corpus; ± is "
        "the standard error over seeds. ▲ and ▼: better and worse than DE with InfoNCE, p < 0.05 by a paired "
        "bootstrap over each query's mean over seeds, Holm-corrected over the column. Layer 1's or the lower "
        "layers' share of wins in training is in parentheses.",
        "longer training, other learning rates than DE's best, larger backbones.",
        ("sentence-transformers", "torch", "transformers"),
        "\n\n".join(parts),
    )


def _table(done: dict[Cell, dict[str, Any]], rows: dict[str, Method], collections: Sequence[str]) -> str:
    columns = []
    for collection in collections:
        found = {name: tested(done, collection, name) for name in rows}
        compared = {
            name: compare(FOLDER, found[name], found[each.against], "ndcg@10")
            for name, each in rows.items()
            if name != each.against and each.objective
        }
        there = {name: difference for name, difference in compared.items() if difference}
        p = dict(zip(there, holm([difference.p for difference in there.values()]), strict=True))
        signs = {name: " ▲" if there[name].mean > 0 else " ▼" for name in there if p[name] < 0.05}
        wins = {name: wins_of_lower_layers(done, cells) for name, cells in found.items()}
        columns.append(
            [
                over_seeds(done, found[name], "ndcg@10")
                + signs.get(name, "")
                + (f" ({wins[name]})" if wins[name] else "")
                for name in rows
            ]
        )
    lines = [[each.title, *cells] for each, *cells in zip(rows.values(), *columns, strict=True)]
    return table(["", *collections], lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("base", nargs="?", help="bert-tiny: a folder that sentence-transformers opens")
    options.add_argument("collections", type=Path, nargs="*", help="zips of collections with a training split")
    options.add_argument("--workers", type=int, default=2, help="processes, each of one thread")
    options.add_argument("--summarize", action="store_true", help="write the section from the cells that are there")
    args = options.parse_args()
    if not args.collections:
        say("skipped: pass a backbone and collections, as none of them are ours to ship")
        return
    names = [archive.stem for archive in args.collections]
    if not args.summarize:
        prepare(args.base, args.collections)
        each = partial(work, args.base, args.collections)
        run(grid(names), each, FOLDER, args.workers)
        run(cells(names, finished(FOLDER)), each, FOLDER, args.workers)
    summarize(args, names)


if __name__ == "__main__":
    main()
