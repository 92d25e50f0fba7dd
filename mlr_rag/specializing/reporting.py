"""The report of a run, out of what its stages gave; and the model card."""

from __future__ import annotations

import platform
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from mlr_rag.documents import beginning
from mlr_rag.specializing.choosing import Choosing
from mlr_rag.specializing.gathering import ROUND_TRIP, UNSCORED, Gathering
from mlr_rag.specializing.guard import Decision
from mlr_rag.specializing.learning import Learning
from mlr_rag.specializing.material import Material
from mlr_rag.specializing.probe import TOLERANCE
from mlr_rag.specializing.queries.query import GeneratedQueries
from mlr_rag.specializing.report import data

_WRITTEN = {
    "people": "",
    "model": " that a language model wrote",
    "rules": " that rules took out of the documents",
}
_MOVED = 0.001  # a layer's weight, at the least, for it to be worth a table
_NAME = 60  # characters of the teacher's
_PROGRAM, _LONGEST = "mlr-rag", 200
_NO_LIST = ("blank_queries", "without_positives", "too_short", UNSCORED)  # why an entry has none
_PACKAGES = ("mlr-rag", "sentence-transformers", "torch", "transformers", "ir-measures")


def make_report(
    choosing: Choosing,
    test: data.Comparison | None,
    decision: Decision | None,
    material: Material,
    generated: GeneratedQueries | None,
    writer: str,
    name: str,
) -> data.Report:
    """Everything that was measured and decided."""
    gathered, base, chosen = choosing.gathered, choosing.base, choosing.chosen
    accepted, split = decision is not None and decision.accepted, gathered.ground.split
    probe = (
        None
        if chosen is base
        else data.Probe(
            base=base.probe, specialized=chosen.probe, tolerance=TOLERANCE, kept=base.probe - chosen.probe <= TOLERANCE
        )
    )
    return data.Report(
        verdict=_verdict(choosing, test, decision),
        chosen=chosen.name if accepted else "base",
        alpha=chosen.share if accepted else 0.0,
        adapter=chosen.adapter if accepted else 0.0,
        reasons=_reasons(choosing, decision),
        advice=_advice(choosing, decision),
        model=base.model.name,
        test=test,
        probe=probe,
        interpolation=_interpolation(choosing),
        trials=_trials(choosing.learning),
        curves=_curves(choosing.learning),
        layers=_layers(base.model, chosen.model),
        teacher=_teacher(gathered),
        data=data.Data(
            corpus=name,
            documents=len(material.corpus),
            split=data.SplitSizes(
                train=len(split.train.queries),
                dev=len(split.dev.queries),
                test=len(split.test.queries),
                leaks=split.leaks,
            ),
            queries={"human": _human(material)} if generated is None else _kinds(generated),
            generator=None if generated is None else writer,
            lineage=_lineage(gathered, material, generated),
        ),
        stages=tuple(data.Stage(name=d.name, seconds=d.seconds, reused=d.reused) for d in gathered.work.done),
        budget=data.Budget(
            seconds=gathered.options.budget,
            spent=gathered.clock.spent,
            left_out=(*gathered.plan.left_out, *choosing.learning.schedule.left_out),
        ),
        run=data.Run(
            command=gathered.options.call,
            seed=gathered.options.seed,
            machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            versions={package: metadata.version(package) for package in _PACKAGES},
            created=datetime.now(timezone.utc),
        ),
    )


def as_typed(given: Mapping[str, Any]) -> str:
    """The command of a terminal, or the Python call with the arguments that are not as they are by default."""
    program = Path(sys.argv[0])
    if program.name == _PROGRAM or program.parts[-2:] == ("mlr_rag", "__main__.py"):
        return shlex.join([_PROGRAM, *sys.argv[1:]])
    shown = (f"{name}={_short(value)}" for name, value in given.items() if value is not None)
    return f"specialize({', '.join(shown)})"


def _short(value: Any) -> str:
    """A path or number as it is, and of anything else its type."""
    if isinstance(value, (str, Path, int, float)):
        return repr(value if isinstance(value, (int, float)) else beginning(str(value), _LONGEST))
    return f"<{type(value).__name__}>"


def _verdict(choosing: Choosing, test: data.Comparison | None, decision: Decision | None) -> str:
    if test is None or decision is None:
        if (forgetful := choosing.forgetful) is None:
            return "No candidate was better on the dev queries: keep the base model."
        return (
            f"What was better on the dev queries ({choosing.base.dev:.3f} -> {forgetful.dev:.3f}) had forgotten too "
            "much of the rest: keep the base model."
        )
    found = test.metrics["ndcg@10"]
    told = f"nDCG@10 {found.base.mean:.3f} -> {found.specialized.mean:.3f} on {test.queries:,} held-out queries"
    told += _WRITTEN[choosing.gathered.ground.origin]
    if decision.accepted:
        return f"The specialized model is better: {told}."
    return f"The specialized model is not surely better, so the base is kept: {told}."


def _reasons(choosing: Choosing, decision: Decision | None) -> tuple[str, ...]:
    reasons = [] if decision is None else list(decision.reasons)
    if decision is not None and choosing.gathered.ground.generated:
        reasons.append(
            "Nobody asked these queries: of people's expect less. A hundred of them, from a search log, would tell."
        )
    if choosing.learning.trials:
        recipe, count = choosing.learning.recipe, len(choosing.learning.trials)
        reasons.append(f"Of {count} objectives {recipe.name} did best in a short trial: {recipe.what}.")
    return tuple(reasons)


def _advice(choosing: Choosing, decision: Decision | None) -> tuple[str, ...]:
    gathered, forgetful = choosing.gathered, choosing.forgetful
    advice = [] if decision is None else list(decision.advice)
    if decision is None and forgetful is None:
        advice.append(_help(choosing))
    if forgetful is not None:
        fall = choosing.base.probe - forgetful.probe
        advice.append(
            f"A candidate came to {forgetful.dev:.3f} on the dev queries, but falls by {fall:.3f} on general ones, "
            f"beyond the tolerance of {TOLERANCE:.3f}. Pass a probe= of what your users ask beside these, or "
            "objective='queries', which leaves every document alone."
        )
    known = gathered.teaching.diagnosis
    if known is not None and (known.finding != "better" or known.words_better):
        advice.append(f"The teacher: {known.verdict}")
    return tuple(advice)


def _help(choosing: Choosing) -> str:
    """What would help where nothing was better on the dev queries."""
    gathered = choosing.gathered
    train, left_out = len(gathered.ground.split.train.queries), gathered.plan.left_out
    helps = [f"more training queries ({train:,} there were)"]
    if gathered.ground.origin == "rules":
        helps = ["queries of people (a search log)", "a language model that writes them (llm=)"]
    helps.append("a teacher that knows more than the model")
    if left_out or choosing.learning.schedule.left_out:
        helps.append("a longer budget")
    return (
        f"What may help: {', '.join(helps)}; or there is little to gain, as the base model is at "
        f"{choosing.base.dev:.3f} of 1 on the dev queries."
    )


def _interpolation(choosing: Choosing) -> tuple[data.Interpolated, ...]:
    if not choosing.tuned:
        return ()
    points = [(0.0, choosing.base.dev, choosing.base.probe)]
    points += [(each.share, each.dev, each.probe) for each in choosing.tuned]
    return tuple(data.Interpolated(alpha=alpha, dev=dev, probe=probe) for alpha, dev, probe in sorted(points))


def _trials(learning: Learning) -> tuple[data.Trial, ...]:
    return tuple(
        data.Trial(
            name=recipe.name,
            what=recipe.what,
            steps=done.value.steps,
            dev_before=done.value.before,
            dev_after=done.value.after,
            seconds=done.value.seconds,
            chosen=recipe is learning.recipe,
        )
        for recipe, done in zip(learning.gathered.recipes, learning.trials, strict=False)
    )


def _curves(learning: Learning) -> tuple[data.Curve, ...]:
    if not learning.gathered.recipes:
        return ()
    done, _ = learning.trained
    result = done.value
    points = [
        data.Point(step=int(entry["step"]), dev=entry.get(result.metric), loss=entry.get("loss"))
        for entry in result.history
        if result.metric in entry or "loss" in entry
    ]
    return (data.Curve(name=learning.recipe.name, points=tuple(points)),)


def _layers(base: Any, model: Any) -> tuple[data.LayerWeight, ...]:
    before, after = base[1].weights(), model[1].weights()
    if before is None or after is None or len(before) < 2:
        return ()
    weights = [*zip(base.layers, before.tolist(), after.tolist(), strict=True)]
    if max(abs(one - other) for _, one, other in weights) < _MOVED:
        return ()
    return tuple(data.LayerWeight(layer=layer, before=one, after=other) for layer, one, other in weights)


def _teacher(gathered: Gathering) -> data.Teacher | None:
    known, teacher = gathered.teaching.diagnosis, gathered.teaching.teacher
    if known is None or teacher is None:
        return None
    scored = {} if gathered.scored is None else gathered.scored.value
    pairs = known.pairs + sum(map(len, scored.values()))
    return data.Teacher(
        name=beginning(teacher.name, _NAME),
        ndcg=known.teacher,
        student=known.student,
        bm25=known.bm25,
        verdict=known.verdict,
        temperature=gathered.teaching.temperature,
        proposed=gathered.options.teacher_temperature is None,
        pairs=pairs,
        from_cache=max(0, pairs - gathered.work.scores.asked),
    )


def _human(material: Material) -> int:
    return sum(len(judged.queries) for judged in material.judged.values())


def _kinds(generated: GeneratedQueries) -> dict[str, int]:
    return dict(Counter(query.kind for query in generated.queries))


def _lineage(gathered: Gathering, material: Material, generated: GeneratedQueries | None) -> tuple[data.Step, ...]:
    lists, counts = gathered.lists
    split, entries = gathered.ground.split, len(gathered.entries.queries)
    parts = (split.train, gathered.searching.learnable, gathered.usable, gathered.trusted)
    train, learnable, usable, trusted = (len(part.queries) for part in parts)
    given = _human(material) if generated is None else len(generated.queries)
    of_queries = {reason: n for reason, n in material.notes.items() if "queries" in reason}  # others are of documents
    dropped = of_queries if generated is None else dict(generated.dropped)
    held = {
        "dev": len(split.dev.queries),
        "test": len(split.test.queries),
        "nearly the same as one of these": split.leaks.near_queries,
        "without a passage that is not held out": split.leaks.queries_dropped,
    }
    steps = [
        data.Step(name="queries", unit="queries", before=given + sum(dropped.values()), after=given, left_out=dropped),
        data.Step(name="for training", unit="queries", before=given, after=train, left_out=_counted(held)),
    ]
    if learnable < train:
        left = {"of documents that there is no time to search": train - learnable}
        steps.append(data.Step(name="time", unit="queries", before=train, after=learnable, left_out=left))
    if usable < learnable:
        left = {"but words of their document, which only a teacher knows how to grade": learnable - usable}
        steps.append(data.Step(name="kinds", unit="queries", before=learnable, after=usable, left_out=left))
    if generated is not None:
        left = {f"do not find their own document in the first {ROUND_TRIP}": usable - trusted}
        steps.append(data.Step(name="round trip", unit="queries", before=usable, after=trusted, left_out=left))
    steps.append(data.Step(name="relevant passages", unit="pairs", before=trusted, after=entries))
    if generated is not None and gathered.scored is not None:
        after = entries - len(gathered.doubted)
        left = {"the teacher prefers another passage, or finds none good": len(gathered.doubted)}
        steps.append(data.Step(name="teacher", unit="pairs", before=entries, after=after, left_out=left))
        entries = after
    reasons = {reason.replace("_", " "): n for reason, n in counts.items() if reason in _NO_LIST}
    steps.append(data.Step(name="lists", unit="lists", before=entries, after=len(lists), left_out=_counted(reasons)))
    return tuple(steps)


def _counted(reasons: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in reasons.items() if count}


def model_card(report: data.Report) -> str:
    """The README.md of the model: what it is and what was measured, and no text of what it was trained on."""
    test = report.test
    rows = (
        []
        if test is None
        else [
            f"| {name} | {m.base.mean:.3f} | {m.specialized.mean:.3f} | {m.difference.mean:+.3f} "
            f"[{m.difference.low:+.3f}, {m.difference.high:+.3f}] |"
            for name, m in test.metrics.items()
        ]
    )
    return _CARD.format(
        model=report.model,
        verdict=report.verdict,
        rows="\n".join(rows),
        version=report.run.versions["mlr-rag"],
        day=f"{report.run.created:%Y-%m-%d}",
    )


_CARD = """\
---
library_name: sentence-transformers
base_model: {model}
tags: [mlr-rag, retrieval]
---

# {model}, specialized

{verdict}

| held-out queries | base | specialized | difference |
| --- | --- | --- | --- |
{rows}

    from mlr_rag import MLRModel
    model = MLRModel.load("this folder")

Made by mlr-rag {version} on {day}; report/ holds the rest.
"""
