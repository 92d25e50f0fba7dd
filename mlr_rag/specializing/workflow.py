"""`specialize`: from documents to a model that is proved to be better for them, or the base model."""

from __future__ import annotations

import logging
import shutil
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError
from mlr_rag.folders import check_space, lock_folder
from mlr_rag.model.model import MLRModel
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.model.sides import query_side
from mlr_rag.retriever import Retriever
from mlr_rag.specializing.asking import as_judged, make_queries
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.choosing import Choosing
from mlr_rag.specializing.comparing import compare
from mlr_rag.specializing.gathering import Gathering
from mlr_rag.specializing.ground import Ground, Origin
from mlr_rag.specializing.guard import Decision, decide
from mlr_rag.specializing.independent import LEAST_GROUPS
from mlr_rag.specializing.learning import Learning
from mlr_rag.specializing.material import Material, read_material
from mlr_rag.specializing.options import Options, check_apart, check_options
from mlr_rag.specializing.output import REPORT, replace_output
from mlr_rag.specializing.probe import TOLERANCE, Probe
from mlr_rag.specializing.queries.query import GeneratedQueries
from mlr_rag.specializing.report.data import Comparison
from mlr_rag.specializing.report.writing import check_extra, write_report
from mlr_rag.specializing.reporting import as_typed, make_report, model_card
from mlr_rag.specializing.result import Specialized
from mlr_rag.specializing.searching import Searching
from mlr_rag.specializing.split import Split, split
from mlr_rag.specializing.stages import Workspace
from mlr_rag.specializing.teaching import Teaching, possible_recipes
from mlr_rag.training.llm import LanguageModel, as_language_model
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.teachers.teacher import Teacher, as_teacher

logger = logging.getLogger(__name__)

_CHECKPOINTS, _BYTES = 3, 12  # of weights and AdamW's state, at once at the most


def specialize(
    model: Any = None,
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
        model: A name, folder, MLRModel or SentenceTransformer: candidate zero. By default an open Retriever's own, else
            sentence-transformers/all-MiniLM-L6-v2.
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
    given = dict(locals())
    if corpus is None:
        raise InvalidInputError(
            "no corpus to specialize for",
            found=f"specialize({model!r})" if isinstance(model, (str, Path)) else "None",
            expected="a folder, a collection, texts or an open Retriever",
            remedy="Pass corpus=...; the first argument is the model.",
        )
    options = check_options(output, work, budget, objective, teacher, teacher_temperature, seed)
    options = replace(options, call=as_typed(given))
    check_apart(corpus, options)
    check_extra()
    clock = Clock(options.budget)
    lock = lock_folder(options.work, ".lock", "Wait until it is done, or pass another work=.")
    try:
        with closing(Workspace(options.work, partial(_tell, clock))) as place:
            base = _open_model(model, corpus)
            check_space(options.work, _CHECKPOINTS * _BYTES * sum(each.numel() for each in base.parameters()))
            taught = None if teacher is None else _open_teacher(teacher, place.vectors)
            writer = None if llm is None else as_language_model(llm)
            measured = Probe.general() if probe is None else Probe(probe)
            material = read_material(corpus, queries, qrels, base)
            _check_use(writer, material)
            ground, generated = _prepare(base, material, writer, options, place, clock, taught is not None)
            choosing = _choosing(ground, options, place, clock, taught, measured)
            named = "extractive rules" if writer is None else writer.name
            called = Path(corpus).name if isinstance(corpus, (str, Path)) else type(corpus).__name__
            return _finish(choosing, material, generated, named, called)
    finally:
        lock.release()


def _open_model(model: Any, corpus: Any) -> Any:
    if model is None:
        model = corpus.model if isinstance(corpus, Retriever) else DEFAULT_MODEL
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


def _open_teacher(source: Any, vectors: VectorCache) -> Teacher:
    teacher = as_teacher(source, vectors=vectors)
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


def _check_test(parts: Split) -> None:
    queries, groups = len(parts.test.queries), len(set(parts.test_groups.values()))
    if groups < LEAST_GROUPS:
        within = f", in {groups} groups that ask for the same passages or in the same words" if groups < queries else ""
        wanted = f"{LEAST_GROUPS} groups" if within else f"{LEAST_GROUPS}"
        raise InvalidInputError(
            "too few held-out queries to prove anything",
            found=f"{queries} for the test{within}",
            expected=f"{wanted} or more: with fewer no difference can be significant",
            remedy="Judge queries about more documents (about 40 different ones are enough), pass a larger corpus, or "
            "have queries generated (queries='generate').",
        )


def _prepare(
    base: Any,
    material: Material,
    language_model: LanguageModel | None,
    options: Options,
    work: Workspace,
    clock: Clock,
    taught: bool,
) -> tuple[Ground, GeneratedQueries | None]:
    """The split of the user's queries, or of generated ones."""
    generated: GeneratedQueries | None = None
    judged, passages, bare, key = material.judged, dict[str, str](), frozenset[str](), material.fingerprint
    if not judged:
        made = make_queries(material, language_model, work, clock, options.seed, taught)
        generated, key = made.value, made.key
        of_all, passages, bare = as_judged(generated)
        judged = {"all": of_all}
    done = work.stage(
        "split", [key, options.seed], Split, lambda: split(judged, material.corpus, material.parents, options.seed)
    )
    _check_test(done.value)
    key = f"{done.key} {base.fingerprint}"
    origin: Origin = "people" if generated is None else "rules" if language_model is None else "model"
    return Ground(base, material.corpus, done.value, origin, bare, passages, key), generated


def _choosing(
    ground: Ground, options: Options, work: Workspace, clock: Clock, teacher: Teacher | None, probe: Probe
) -> Choosing:
    """The stages after the split, none of them done yet."""
    tried = len(possible_recipes(options.objective, teacher is None, ground.origin))
    searching = Searching(ground, options, work, clock, tried, lambda: teaching.reading)
    teaching = Teaching(searching, teacher, probe)
    return Choosing(Learning(Gathering(teaching)))


def _finish(
    choosing: Choosing, material: Material, generated: GeneratedQueries | None, writer: str, name: str
) -> Specialized:
    """Test what was chosen, and hand it back or not."""
    gathered, chosen, base = choosing.gathered, choosing.chosen, choosing.base
    options, parts, work = gathered.options, gathered.ground.split, gathered.work
    groups, searched = parts.test_groups, gathered.searched

    def compared() -> Comparison:
        earlier: list[Comparison] = work.kept("test", Comparison)
        return compare(base.model, chosen.model, parts.test, groups, searched, work.vectors, earlier)

    found = work.stage("test", [*gathered.basis, chosen.model.fingerprint, groups], Comparison, compared).value
    test = None if chosen is base else found  # nothing is decided by comparing the base with itself
    decision: Decision | None = None
    if test is not None:
        fall = base.probe - chosen.probe
        decision = decide(
            [query.base for query in test.per_query],
            [query.specialized for query in test.per_query],
            fall,
            TOLERANCE,
            [groups[query.id] for query in test.per_query],
            test.looks,
        )
    accepted = decision is not None and decision.accepted
    report = make_report(choosing, test, decision, material, generated, writer, name)
    made = options.work / f"{options.output.name}.made"
    shutil.rmtree(made, ignore_errors=True)
    if accepted:
        chosen.model.save(made)
        (made / "README.md").write_text(model_card(report), "utf-8")
    page = options.output / write_report(report, made / REPORT).relative_to(made)
    replace_output(options.output, made, options.work / f"{options.output.name}.old")
    metrics = {
        side: {metric: getattr(value, side).mean for metric, value in found.metrics.items()}
        for side in ("base", "specialized")
    }
    model = MLRModel.load(options.output) if accepted else base.model  # from where it can be opened again
    return Specialized(accepted, model, metrics, report, page, options.output)


def _tell(clock: Clock, stage: str) -> None:
    left = "" if clock.budget is None else f", {_minutes(clock.left)} left"
    logger.info("%-20s %s spent%s", stage, _minutes(clock.spent), left)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
