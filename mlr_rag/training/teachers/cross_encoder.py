"""A cross-encoder teacher out of the user's own judgments, for where no suitable one exists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError, ModelError
from mlr_rag.evaluation.metrics import mean_metrics
from mlr_rag.folders import lock_folder
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.mining.building import Counts, build_lists
from mlr_rag.training.mining.candidates import Corpus
from mlr_rag.training.teachers.models import CrossEncoderTeacher
from mlr_rag.training.teachers.reranking import rerank
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.trainer.checkpoints import RunFolder

Judgments = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class TrainedTeacher:
    """What came of the training of a teacher.

    Attributes:
        teacher: The teacher; its folder opens by `CrossEncoderTeacher(folder)` as well.
        folder: Where it is.
        counts: What became of the queries (see build_lists).
        ndcg: nDCG@10 of the held-out queries' candidates in its order; None without held-out judgments.
        candidates_ndcg: nDCG@10 of the same candidates as they came: what it has to beat.
    """

    teacher: CrossEncoderTeacher
    folder: Path
    counts: Counts
    ndcg: float | None = None
    candidates_ndcg: float | None = None


def train_cross_encoder(
    base: str | Path,
    queries: Mapping[str, str],
    qrels: Judgments,
    corpus: Corpus,
    run: Mapping[str, Mapping[str, float]],
    output: str | Path,
    *,
    dev_qrels: Judgments | None = None,
    dev_depth: int = 20,
    length: int = 8,
    epochs: int = 2,
    batch_size: int = 8,
    learning_rate: float = 5e-5,
    max_length: int = 256,
    seed: int = 0,
    resume: bool = True,
    cache: ScoreCache | str | Path | None = None,
) -> TrainedTeacher:
    """Train a cross-encoder to rank each judged query's positives above its mined candidates.

    The loss is the cross-entropy between the judgments, as shares of their sum, and the softmax of the logits over a
    query's list. A run that was killed goes on from its last checkpoint; one at its end is only loaded. No file that
    is written holds a text.

    Args:
        base: A cross-encoder to go on from, or any encoder, which gets a new head.
        queries: Query id → text, the held-out ones' too.
        qrels: The judgments to learn from: query id → document id → grade.
        corpus: Document id → text, or an open Retriever.
        run: The candidates of all queries, from `mine`; those that are not relevant are the negatives.
        output: The folder for the teacher.
        dev_qrels: Judgments of held-out queries, which tell how good it is.
        dev_depth: How many of a held-out query's candidates it puts in order.
        length: Passages in a list.
        epochs: Passes over the lists.
        batch_size: Lists in a step.
        learning_rate: The highest; it warms up over a tenth of the steps and falls to 0.
        max_length: Tokens of a pair that are read.
        seed: Of the head, the order, dropout.
        resume: False deletes the run that is in `output` and begins anew.
        cache: Where its scores of the held-out candidates are kept: a ScoreCache, or the path of its file.

    Raises:
        InvalidInputError: nothing to learn from, held-out queries among those to learn from, or `output` holds
            something else.
        MissingExtraError: accelerate or datasets is not installed.
        StoreLockedError: another process trains there.
        ModelNotFoundError, UnsafeModelError, ModelError: see MLRModel.
    """
    both = sorted(qrels.keys() & (dev_qrels or {}).keys())
    if both:
        raise InvalidInputError(
            "held-out queries are among those to learn from", found=both[:5], expected="other queries"
        )
    learned = {id: text for id, text in queries.items() if id in qrels}
    lists, counts = build_lists(learned, corpus, qrels, run, length=length)
    if not lists:
        raise InvalidInputError(
            "nothing to learn from", found=asdict(counts), expected="queries with a relevant document, and candidates"
        )
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "seed": seed,
    }
    folder = Path(output)
    lock = lock_folder(folder, ".lock", "Wait until it is done, or use another folder.")
    try:
        teacher = _train(base, lists, folder, settings, resume)
    finally:
        lock.release()
    if dev_qrels is None:
        return TrainedTeacher(teacher, folder, counts)
    held_out = {id: run.get(id, {}) for id in dev_qrels}
    ranked = rerank(held_out, queries, corpus, teacher, cache, dev_depth)
    ndcg, before = (mean_metrics(dev_qrels, each)["ndcg@10"] for each in (ranked, held_out))
    return TrainedTeacher(teacher, folder, counts, ndcg, before)


def _train(
    base: str | Path, lists: Sequence[TrainingList], folder: Path, settings: dict[str, Any], resume: bool
) -> CrossEncoderTeacher:
    """The teacher in the folder, trained as far as it was not."""
    from mlr_rag.training.teachers.cross_encoder_trainer import fit, start

    model = start(base, settings["max_length"], settings["seed"])
    texts = hashlib.sha256(json.dumps([asdict(each) for each in lists]).encode())
    parts = {"lists": texts.hexdigest(), "base": CrossEncoderTeacher(model).fingerprint, "settings": settings}
    home = RunFolder(folder, parts)
    if (folder / "config.json").exists() and not (folder / "run.json").exists():
        raise InvalidInputError(
            f"{folder} holds a model that was not trained here", expected="an empty folder", remedy="Use another one."
        )
    home.claim(resume)
    known = home.result()
    if known is None:
        fit(model, lists, home, settings)
        home.finish({"fingerprint": CrossEncoderTeacher(model).fingerprint})
    home.delete(home.steps())
    teacher = CrossEncoderTeacher(folder)
    if known is not None and teacher.fingerprint != known["fingerprint"]:
        raise ModelError(
            f"the teacher in {folder} has changed since it was trained",
            found=teacher.fingerprint,
            expected=known["fingerprint"],
            remedy="Train it again with resume=False.",
        )
    return teacher
