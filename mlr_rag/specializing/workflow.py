"""`specialize`: from documents to a model that is proved to be better for them, or the base model."""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.folders import lock_folder
from mlr_rag.model.model import MLRModel
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.model.sides import query_side
from mlr_rag.specializing.asking import as_judged, make_queries
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.comparing import compare
from mlr_rag.specializing.guard import Decision, decide
from mlr_rag.specializing.learning import Ground, Learning
from mlr_rag.specializing.material import Material, read_material
from mlr_rag.specializing.options import REPORT, Options, check_apart, check_options
from mlr_rag.specializing.probe import TOLERANCE, Probe
from mlr_rag.specializing.queries.query import GeneratedQueries
from mlr_rag.specializing.report.data import Comparison
from mlr_rag.specializing.report.writing import check_extra, write_report
from mlr_rag.specializing.reporting import make_report, model_card
from mlr_rag.specializing.result import Specialized
from mlr_rag.specializing.split import Split, split
from mlr_rag.specializing.stages import Workspace
from mlr_rag.training.llm import LanguageModel, as_language_model
from mlr_rag.training.teachers.teacher import Teacher, as_teacher

logger = logging.getLogger(__name__)

_CONTENTS = "contents.json"  # within the report: the names in the output that are the run's
_MODULES = "modules.json"  # what makes a folder a model: the first file to go, and the last to come
_LEAST = 6  # test queries: two of 2^n signs are as far from zero as the observed ones, and 2 / 2^5 is above 0.05


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
        llm: What writes queries where there are none (see as_language_model); None for extractive ones.
        budget: Wall-clock time, such as "20min"; None for as long as it takes.
        output: The folder for the model and its report: an earlier run's, or none yet; not within the corpus.
        objective: "contrastive", "distillation", "both", "queries" (an adapter for queries that leaves every stored
            vector as it is), or None to find out on the dev queries.
        teacher_temperature: Of the teacher's scores; by default as the doctor proposes.
        probe: A BEIR collection on which the model must not fall; by default the general one that comes with it.
        work: Where stages and caches are kept; by default `.mlr-rag` beside the output.
        seed: Of every choice.

    Raises:
        InvalidInputError: something cannot be worked with; before the long stages.
        MissingExtraError: `pip install 'mlr-rag[train,report]'`.
        ModelNotFoundError: no such model, teacher or language model.
        TeacherError, LanguageModelError: the teacher or the language model failed; what it gave is kept.
        StoreLockedError: another process works there.
    """
    options = check_options(output, work, budget, objective, teacher, teacher_temperature, seed)
    check_apart(corpus, options)
    check_extra()
    clock = Clock(options.budget)
    lock = lock_folder(options.work, f"{options.output.name}.lock", "Wait until it is done, or use another output.")
    try:
        base = _open_model(model)
        taught = None if teacher is None else _open_teacher(teacher)
        writer = None if llm is None else as_language_model(llm)
        measured = Probe.general() if probe is None else Probe(probe)
        material = read_material(corpus, queries, qrels, base)
        _check_use(writer, material)
        with closing(Workspace(options.work, partial(_tell, clock))) as place:
            ground, generated = _prepare(base, material, writer, options, place, clock)
            learning = Learning(ground, options, place, clock, taught, measured)
            named = "extractive rules" if writer is None else writer.name
            called = Path(corpus).name if isinstance(corpus, (str, Path)) else type(corpus).__name__
            return _finish(learning, material, generated, named, called)
    finally:
        lock.release()


def _open_model(model: Any) -> Any:
    if not isinstance(model, MLRModel):
        model = MLRModel.open(model) if isinstance(model, (str, Path)) else MLRModel.from_pretrained(model)
    if only_queries := [type(module).__name__ for module in query_side(model)]:
        raise InvalidInputError(
            "queries have a part of their own in this model already",
            found=", ".join(only_queries),
            expected="none",
            remedy="Pass model.without_query_adapter(), or the model that it was made from.",
        )
    return model


def _open_teacher(source: Any) -> Teacher:
    teacher = as_teacher(source)
    if not teacher.fingerprint:  # which a mean that does not know its members' scales refuses to tell
        raise InvalidInputError(
            "the teacher has no fingerprint", found=type(teacher).__name__, expected="one to keep its scores under"
        )
    return teacher


def _check_use(writer: LanguageModel | None, material: Material) -> None:
    if writer is not None and material.judged:
        raise InvalidInputError(
            "a language model, and nothing for it to write",
            found=f"{sum(len(judged.queries) for judged in material.judged.values()):,} judged queries",
            expected="a corpus without",
            remedy="Pass queries='generate' to have queries written in place of these, or leave llm out.",
        )


def _check_test(queries: int) -> None:
    if queries < _LEAST:
        raise InvalidInputError(
            "too few held-out queries to prove anything",
            found=f"{queries} for the test",
            expected=f"{_LEAST} or more: with fewer no difference can be significant",
            remedy="Judge more queries (about 40 in all are enough), or have them generated (queries='generate').",
        )


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
    _check_test(len(done.value.test.queries))
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
    made = options.work / f"{options.output.name}.made"
    shutil.rmtree(made, ignore_errors=True)
    if accepted:
        chosen.model.save(made)
        (made / "README.md").write_text(model_card(report), "utf-8")
    page = options.output / write_report(report, made / REPORT).relative_to(made)
    _replace(options.output, made, options.work / f"{options.output.name}.old")
    metrics = (
        {}
        if test is None
        else {
            side: {metric: getattr(value, side).mean for metric, value in test.metrics.items()}
            for side in ("base", "specialized")
        }
    )
    model = MLRModel.load(options.output) if accepted else base.model  # from where it can be opened again
    return Specialized(accepted, model, metrics, report, page, options.output)


def _replace(output: Path, made: Path, old: Path) -> None:
    """Put what was made in the place of what an earlier run left there, and leave the rest alone.

    Whenever the process is killed, there is no half of a model that loads, and the report says whose the folder is.
    """
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    report = output / REPORT
    report.mkdir(parents=True, exist_ok=True)
    names = {item.name for item in made.iterdir()} - {REPORT}
    listed = report / _CONTENTS
    earlier = set(json.loads(listed.read_text("utf-8"))) if listed.exists() else set[str]()
    for name in sorted(names | earlier, key=_MODULES.__ne__):
        if (output / name).exists():
            shutil.move(output / name, old / name)
    (made / REPORT / _CONTENTS).write_text(json.dumps(sorted(names)), "utf-8")
    for item in sorted((made / REPORT).iterdir()):
        shutil.move(item, report / item.name)
    for name in sorted(names, key=_MODULES.__eq__):
        shutil.move(made / name, output / name)
    shutil.rmtree(old)
    shutil.rmtree(made)


def _tell(clock: Clock, stage: str) -> None:
    left = "" if clock.budget is None else f", {_minutes(clock.left)} left"
    logger.info("%-20s %s spent%s", stage, _minutes(clock.spent), left)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
