"""`specialize`: from documents to a model that is proved to be better for them, or the base model."""

from __future__ import annotations

import logging
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from mlr_rag.folders import lock_folder
from mlr_rag.model.model import MLRModel
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.specializing.asking import as_judged, make_queries
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.comparing import compare
from mlr_rag.specializing.guard import Decision, decide
from mlr_rag.specializing.learning import Ground, Learning
from mlr_rag.specializing.material import Material, read_material
from mlr_rag.specializing.options import REPORT, Options, check_options
from mlr_rag.specializing.probe import TOLERANCE, Probe
from mlr_rag.specializing.queries.query import GeneratedQueries
from mlr_rag.specializing.report.data import Comparison
from mlr_rag.specializing.report.writing import write_report
from mlr_rag.specializing.reporting import make_report, model_card
from mlr_rag.specializing.result import Specialized
from mlr_rag.specializing.split import Split, split
from mlr_rag.specializing.stages import Workspace
from mlr_rag.training.llm import LanguageModel, as_language_model
from mlr_rag.training.teachers.teacher import as_teacher

logger = logging.getLogger(__name__)


def specialize(
    model: Any = DEFAULT_MODEL,
    corpus: Any = None,
    queries: Any = None,
    qrels: Any = None,
    *,
    teacher: Any = None,
    llm: Any = None,
    budget: str | float | None = "20min",
    output: str | Path = "specialized",
    objective: str | None = None,
    teacher_temperature: float | None = None,
    probe: Any = None,
    work: str | Path | None = None,
    seed: int = 0,
) -> Specialized:
    """Train a model on your own documents, and hand it back only if held-out queries say that it is better.

    Every stage is kept: the same call goes on where it was killed, and another one does not do again what both need.

    Args:
        model: A name, folder, MLRModel or SentenceTransformer: candidate zero.
        corpus: A folder, a BEIR folder or zip, a JSON Lines file, texts, Documents or an open Retriever.
        queries: Pairs, a click log, or id → text with `qrels`; by default those of a BEIR collection, else queries are
            generated, as with "generate".
        qrels: Query id → document id → grade.
        teacher: Whatever `as_teacher` takes; None to learn from the judgments alone.
        llm: What writes queries where there are none (see LanguageModel); None for extractive ones.
        budget: Wall-clock time, such as "20min"; None for as long as it takes.
        output: The folder for the model and its report.
        objective: "contrastive", "distillation", "both", "queries" (an adapter for queries that leaves every stored
            vector as it is), or None to find out on the dev queries.
        teacher_temperature: Of the teacher's scores; by default as the doctor proposes.
        probe: A BEIR collection on which the model must not fall; by default the general one that comes with it.
        work: Where stages and caches are kept; by default `.mlr-rag` beside the output.
        seed: Of every choice.

    Raises:
        InvalidInputError: something cannot be worked with; before the long stages.
        MissingExtraError: `pip install 'mlr-rag[train,report]'`.
        TeacherError: the teacher failed; what it gave is kept.
        StoreLockedError: another process works there.
    """
    options = check_options(output, work, budget, objective, teacher, teacher_temperature, seed)
    clock = Clock(options.budget)
    options.work.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(options.work, f"{options.output.name}.lock", "Wait until it is done, or use another output.")
    try:
        base = _open_model(model)
        taught = None if teacher is None else as_teacher(teacher)
        writer = None if llm is None else as_language_model(llm)
        measured = Probe.general() if probe is None else Probe(probe)
        material = read_material(corpus, queries, qrels, base)
        with closing(Workspace(options.work, partial(_tell, clock))) as place:
            ground, generated = _prepare(base, material, writer, options, place, clock)
            learning = Learning(ground, options, place, clock, taught, measured)
            named = "extractive rules" if writer is None else writer.name
            called = Path(corpus).name if isinstance(corpus, (str, Path)) else type(corpus).__name__
            return _finish(learning, material, generated, named, called)
    finally:
        lock.release()


def _open_model(model: Any) -> Any:
    if isinstance(model, MLRModel):
        return model
    return MLRModel.open(model) if isinstance(model, (str, Path)) else MLRModel.from_pretrained(model)


def _prepare(
    base: Any, material: Material, language_model: LanguageModel | None, options: Options, work: Workspace, clock: Clock
) -> tuple[Ground, GeneratedQueries | None]:
    """The split of the user's queries, or of generated ones."""
    generated: GeneratedQueries | None = None
    judged, passages, key = material.judged, dict[str, str](), material.fingerprint
    if not judged:
        made = make_queries(material, language_model, work, clock, options.seed)
        generated, key = made.value, made.key
        of_all, passages = as_judged(generated)
        judged = {"all": of_all}
    done = work.stage(
        "split", [key, options.seed], Split, lambda: split(judged, material.corpus, material.parents, options.seed)
    )
    key = f"{done.key} {base.fingerprint}"
    return Ground(base, material.corpus, done.value, generated is not None, passages, key), generated


def _finish(
    learning: Learning, material: Material, generated: GeneratedQueries | None, writer: str, name: str
) -> Specialized:
    """Test what was chosen, and hand it back or not."""
    options, chosen, base = learning.options, learning.choose(), learning.base
    test: Comparison | None = None
    decision: Decision | None = None
    if chosen is not base:
        ground, work = learning.ground, learning.work

        def compared() -> Comparison:
            return compare(base.model, chosen.model, ground.split.test, learning.searched, work.vectors)

        test = work.stage("test", [learning.planned.key, chosen.model.fingerprint], Comparison, compared).value
        fall = base.probe - chosen.probe
        values = [(query.base, query.specialized) for query in test.per_query]
        decision = decide([one for one, _ in values], [other for _, other in values], fall, TOLERANCE)
    accepted = decision is not None and decision.accepted
    report = make_report(learning, chosen, test, decision, material, generated, writer, name)
    options.output.mkdir(parents=True, exist_ok=True)
    if accepted:
        chosen.model.save(options.output)
        (options.output / "README.md").write_text(model_card(report), "utf-8")
    page = write_report(report, options.output / REPORT)
    metrics = (
        {}
        if test is None
        else {
            side: {metric: getattr(value, side).mean for metric, value in test.metrics.items()}
            for side in ("base", "specialized")
        }
    )
    return Specialized(accepted, chosen.model if accepted else base.model, metrics, report, page, options.output)


def _tell(clock: Clock, stage: str) -> None:
    left = "" if clock.budget is None else f", {_minutes(clock.left)} left"
    logger.info("%-20s %s spent%s", stage, _minutes(clock.spent), left)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
