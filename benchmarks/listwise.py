"""Our listwise step against DistillKLDivLoss in the stock trainer: lists per second, and the nDCG@10 they end with.

python -m benchmarks.listwise scifact.zip nl2bash.zip
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss
from sentence_transformers.util import pairwise_cos_sim
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from benchmarks._common import Row, parser, quiet, report, say, spread
from mlr_rag import MLRModel
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.metrics import mean_metrics
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.training.collator import ListCollator
from mlr_rag.training.lists import TrainingList, to_dataset
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.objectives import ListwiseKL
from mlr_rag.training.sampler import LengthBucketSampler
from mlr_rag.training.trainer.arguments import has_bfloat16
from mlr_rag.training.trainer.attention import plain_attention

TARGET = 1.5
STUDENT, TEACHER = 0.05, 0.3  # temperatures
SKIP = 0.1
STOCK, CALM, CALM_HALF = "stock as it comes (dropout 0.1)", "stock with dropout 0", "stock with dropout 0 in bfloat16"
CACHED, PLAIN, SKIPPING = "ours cached", "ours plain", f"ours cached, skip {SKIP}"
HALF = "ours plain in bfloat16"
OURS: dict[str, dict[str, Any]] = {
    CACHED: {"gradient_cache": True},
    PLAIN: {"gradient_cache": False},
    SKIPPING: {"skip_gradient": SKIP},
} | ({HALF: {"gradient_cache": False}} if has_bfloat16("cpu") else {})
VARIANTS = (STOCK, CALM, *([CALM_HALF] if has_bfloat16("cpu") else []), *OURS)
JUDGED, OTHERS = 100, 150  # held-out queries, and documents beside those that a judgment names


@dataclass(frozen=True)
class Task:
    """Lists of a collection, and a pool of documents with held-out queries."""

    name: str
    lists: list[TrainingList]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    pool: dict[str, str]


class Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self.ends.append(time.perf_counter())


class Stock(DistillKLDivLoss):
    """Without its factor T^2, which at 0.05 leaves its gradients 400 times smaller than ours, and unclipped."""

    def forward(self, *args: Any) -> Any:
        """Called by the trainer."""
        return super().forward(*args) / STUDENT**2


class Bucketed(SentenceTransformerTrainer):
    """The stock trainer with our batches."""

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> Any:
        """Called by the trainer."""
        return LengthBucketSampler(dataset, batch_size, drop_last, model=self.model, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As MLRTrainer's."""
        with plain_attention(self.model, bool(self.args.bf16)):
            return super().training_step(*args, **kwargs)


def prepare(path: Path, options: Any) -> Task:
    """Dense hard negatives of the base model; its cosines, raised by 0.5 for what is relevant, are the teacher's."""
    rng = random.Random(options.seed)
    count, passages = options.batch * options.steps, options.passages
    train, test = Collection.load(path, "train"), Collection.load(path, "test")
    asked = rng.sample(sorted(set(train.queries) - set(test.queries)), min(count, len(train.queries)))
    held_out = rng.sample(sorted(test.queries), min(JUDGED, len(test.queries)))
    texts = {id: text for id, text in train.texts() if text}
    judged = {id for query in asked for id in train.qrels[query]} | {id for q in held_out for id in test.qrels[q]}
    others = rng.sample(sorted(set(texts) - judged), min(OTHERS, len(texts) - len(judged)))
    pool = {id: texts[id] for id in sorted((judged & set(texts)) | set(others))}
    base, ids = MLRModel.from_pretrained(options.model, pooling="last"), list(pool)
    documents = base.encode_document(list(pool.values()), return_cut=True, show_progress_bar=False)[0]
    cosines = base.encode_query([train.queries[query] for query in asked], show_progress_bar=False) @ documents.T
    made = []
    for query, row in zip(asked, cosines, strict=True):
        relevant = [n for n, id in enumerate(ids) if train.qrels[query].get(id, 0) > 0][:1]
        chosen = list(dict.fromkeys(pool[ids[n]] for n in [*relevant, *np.argsort(-row)[: passages + 5].tolist()]))
        if relevant and len(chosen) >= passages:
            of_text = {pool[id]: float(row[n]) + 0.5 * (n in relevant) for n, id in enumerate(ids)}
            scores = np.array([of_text[text] for text in chosen[:passages]])
            scores = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-9)
            made.append(TrainingList(train.queries[query], tuple(chosen[:passages]), tuple(scores.tolist())))
    say(path.stem, len(made), "lists,", len(pool), "documents in the pool")
    return Task(
        path.stem, made, {q: test.queries[q] for q in held_out}, {q: test.qrels[q] for q in held_out}, pool
    )  # fmt: skip


def ndcg(model: MLRModel, task: Task) -> float:
    documents = model.encode_document(list(task.pool.values()), return_cut=True, show_progress_bar=False)[0]
    scores = model.encode_query(list(task.queries.values()), show_progress_bar=False) @ documents.T
    run = {q: dict(zip(task.pool, map(float, row), strict=True)) for q, row in zip(task.queries, scores, strict=True)}
    return mean_metrics(task.qrels, run)["ndcg@10"]


def train(task: Task, variant: str, options: Any, seed: int) -> tuple[float, float]:
    """Lists per second, the first step left out, and the nDCG@10 after the last."""
    torch.manual_seed(seed)
    model = MLRModel.from_pretrained(options.model, pooling="last")
    model.model_card_data.widget = [{"text": ""}]  # looking for examples would show a bar
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            per_device_train_batch_size=options.batch,
            max_steps=options.steps,
            learning_rate=options.rate,
            warmup_steps=2,
            seed=seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            bf16=variant in (HALF, CALM_HALF),
        )
        made: Callable[..., Any] = Bucketed if variant in OURS else SentenceTransformerTrainer
        trainer = made(model=model, args=arguments, callbacks=[clock], **_setting(model, task, variant))
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.train()
    speed = options.batch * (len(clock.ends) - 1) / (clock.ends[-1] - clock.ends[0])
    return speed, ndcg(model.eval(), task)


def _setting(model: MLRModel, task: Task, variant: str) -> dict[str, Any]:
    if variant in OURS:
        loss = ListLoss(model, ListwiseKL(STUDENT, TEACHER, normalize="none"), **OURS[variant])
        return {"train_dataset": to_dataset(task.lists), "loss": loss, "data_collator": ListCollator(model)}
    if variant in (CALM, CALM_HALF):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    width = len(task.lists[0].passages)
    columns: dict[str, Any] = {"query": [each.query for each in task.lists]}
    columns |= {f"passage_{n}": [each.passages[n] for each in task.lists] for n in range(width)}
    columns["label"] = [each.scores for each in task.lists]
    loss = Stock(model, pairwise_cos_sim, student_temperature=STUDENT, teacher_temperature=TEACHER)
    return {"train_dataset": Dataset.from_dict(columns), "loss": loss}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collections", type=Path, nargs="*", help="collections of BEIR with a train split")
    options.add_argument("--model", default=DEFAULT_MODEL)
    options.add_argument("--batch", type=int, default=4, help="lists in a step")
    options.add_argument("--passages", type=int, default=8, help="passages in a list")
    options.add_argument("--steps", type=int, default=12, help="steps of a run, 2 or more")
    options.add_argument("--rounds", type=int, default=2, help="runs of each, interleaved, each with its seed")
    options.add_argument("--rate", type=float, default=1e-4, help="learning rate")
    args = options.parse_args()
    if not args.collections:
        say("skipped: pass the paths of BEIR's scifact.zip and others, as the collections are not ours to ship")
        return
    if args.steps < 2:
        options.error("--steps must be 2 or more: the first one is not timed")
    quiet()
    disable_progress_bars()
    rows: list[Row] = []
    for path in args.collections:
        rows += measure(prepare(path, args), args)
    report(
        "listwise",
        "Speed of listwise training",
        args,
        rows,
        f"{args.model}, {torch.get_num_threads()} threads, AdamW, {args.steps} steps of {args.batch} lists of "
        f"{args.passages} passages, cut at 256 tokens; the same lists, targets and temperatures for all, in "
        f"sentence-transformers' own trainer. {args.rounds} interleaved rounds, each with its seed; a ratio is of "
        "one round. Stock: DistillKLDivLoss. Ours: ListLoss, always without dropout; plain holds all activations and "
        "reads texts once, which is the default for a batch as small as these, cached is that for larger ones, and "
        f"skip has the cache and skip_gradient={SKIP}; in bfloat16 attention is computed plainly, as by MLRTrainer. "
        f"nDCG@10 is that of {JUDGED} held-out queries over a pool of judged and random documents, and hence higher "
        "than over the whole corpus.",
        "GPUs; long training, where the quality of the variants could part.",
        ("sentence-transformers", "transformers", "torch"),
    )


def measure(task: Task, args: Any) -> list[Row]:
    """The rows of one collection."""
    speeds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    after: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    start = ndcg(MLRModel.from_pretrained(args.model, pooling="last"), task)
    for number in range(args.rounds):
        for variant in VARIANTS:
            speed, found = train(task, variant, args, args.seed + number)
            speeds[variant].append(speed)
            after[variant].append(found)
            say(task.name, f"{variant}: {speed:.2f} lists a second, nDCG@10 {start:.4f} to {found:.4f}")
    rows = [
        Row(f"{task.name}: {variant}, lists a second", "", spread(speeds[variant]))
        for variant in VARIANTS
    ]  # fmt: skip
    others = {STOCK: "differ in dropout too", CALM: "both without dropout", CALM_HALF: "both without dropout"}
    for other, differs in others.items():
        if other not in speeds:
            continue
        for variant in OURS:
            ratios = [ours / stock for ours, stock in zip(speeds[variant], speeds[other], strict=True)]
            target, met = (f">= {TARGET}", statistics.median(ratios) >= TARGET) if other == STOCK else ("", None)
            rows.append(Row(f"{task.name}: {variant} / {other}, {differs}", target, spread(ratios), met))
    return [*rows, *quality_rows(task.name, start, after)]


def quality_rows(name: str, start: float, found: dict[str, list[float]]) -> list[Row]:
    """Whether ours end where stock without dropout ends, as far as its own rounds agree with each other.

    Nothing can be told where training moved stock no further than that.
    """
    rows = [Row(f"{name}: nDCG@10 before", "", f"{start:.4f}")]
    rows += [Row(f"{name}: nDCG@10 after, {variant}", "", spread(found[variant], 4)) for variant in VARIANTS]
    noise = max(found[CALM]) - min(found[CALM])
    moved = abs(statistics.mean(found[CALM]) - start) > noise
    for variant in OURS:
        less = [ours - stock for ours, stock in zip(found[variant], found[CALM], strict=True)]
        met = abs(statistics.mean(less)) <= noise if moved else None
        rows.append(Row(f"{name}: {variant} less {CALM}", f"within {noise:.4f}, its spread", spread(less, 4), met))
    return rows


if __name__ == "__main__":
    main()
