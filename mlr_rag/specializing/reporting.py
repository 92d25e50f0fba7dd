"""The report of a run, out of what its stages gave; and the model card."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from mlr_rag.specializing.guard import Decision
from mlr_rag.specializing.learning import ROUND_TRIP, Candidate, Learning
from mlr_rag.specializing.material import Material
from mlr_rag.specializing.probe import TOLERANCE
from mlr_rag.specializing.queries.query import GeneratedQueries
from mlr_rag.specializing.report import data
from mlr_rag.training.lists import beginning

_PACKAGES = ("mlr-rag", "sentence-transformers", "torch", "transformers", "ir-measures")


def make_report(
    learning: Learning,
    chosen: Candidate,
    test: data.Comparison | None,
    decision: Decision | None,
    material: Material,
    generated: GeneratedQueries | None,
    writer: str,
    name: str,
) -> data.Report:
    """Everything that was measured and decided."""
    base, accepted = learning.base, decision is not None and decision.accepted
    split = learning.ground.split
    probe = (
        None
        if chosen is base
        else data.Probe(
            base=base.probe, specialized=chosen.probe, tolerance=TOLERANCE, kept=base.probe - chosen.probe <= TOLERANCE
        )
    )
    return data.Report(
        verdict=_verdict(chosen, test, decision),
        chosen=chosen.name if accepted else "base",
        alpha=chosen.share if accepted else 0.0,
        reasons=_reasons(learning, decision),
        advice=_advice(learning, decision),
        model=base.model.name,
        test=test,
        probe=probe,
        interpolation=_interpolation(learning),
        trials=_trials(learning),
        curves=_curves(learning),
        layers=_layers(base.model, chosen.model),
        teacher=_teacher(learning),
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
            lineage=_lineage(learning, material, generated),
        ),
        stages=tuple(data.Stage(name=d.name, seconds=d.seconds, reused=d.reused) for d in learning.work.done),
        budget=data.Budget(
            seconds=learning.options.budget, spent=learning.clock.spent, left_out=learning.plan.left_out
        ),
        run=data.Run(
            command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            seed=learning.options.seed,
            machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            versions={package: metadata.version(package) for package in _PACKAGES},
            created=datetime.now(timezone.utc),
        ),
    )


def _verdict(chosen: Candidate, test: data.Comparison | None, decision: Decision | None) -> str:
    if test is None or decision is None:
        return "No candidate was better on the dev queries: keep the base model."
    found = test.metrics["ndcg@10"]
    told = f"nDCG@10 {found.base.mean:.3f} -> {found.specialized.mean:.3f} on {test.queries:,} held-out queries"
    if decision.accepted:
        return f"The specialized model is better: {told}."
    return f"The specialized model is not surely better, so the base is kept: {told}."


def _reasons(learning: Learning, decision: Decision | None) -> tuple[str, ...]:
    reasons = [] if decision is None else list(decision.reasons)
    if learning.trials:
        recipe = learning.recipe
        reasons.append(f"Of {len(learning.trials)} objectives {recipe.name} did best in a short trial: {recipe.what}.")
    return tuple(reasons)


def _advice(learning: Learning, decision: Decision | None) -> tuple[str, ...]:
    advice = [] if decision is None else list(decision.advice)
    known = learning.diagnosis
    if known is not None and known.finding != "better":
        advice.append(f"The teacher: {known.verdict}")
    return tuple(advice)


def _interpolation(learning: Learning) -> tuple[data.Interpolated, ...]:
    if learning.options.objective == "queries":
        return ()
    points = [(0.0, learning.base.dev, learning.base.probe)]
    points += [(each.share or 0.0, each.dev, each.probe) for each in learning.tuned]
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
        for recipe, done in zip(learning.recipes, learning.trials, strict=False)
    )


def _curves(learning: Learning) -> tuple[data.Curve, ...]:
    if learning.options.objective == "queries":
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
    return tuple(
        data.LayerWeight(layer=layer, before=float(one), after=float(other))
        for layer, one, other in zip(base.layers, before.tolist(), after.tolist(), strict=True)
    )


def _teacher(learning: Learning) -> data.Teacher | None:
    known, teacher, scores = learning.diagnosis, learning.teacher, learning.work.scores
    if known is None or teacher is None:
        return None
    return data.Teacher(
        name=beginning(teacher.name),
        ndcg=known.teacher,
        student=known.student,
        bm25=known.bm25,
        verdict=known.verdict,
        temperature=known.temperature,
        pairs=scores.asked + scores.hits,
        from_cache=scores.hits,
    )


def _human(material: Material) -> int:
    return sum(len(judged.queries) for judged in material.judged.values())


def _kinds(generated: GeneratedQueries) -> dict[str, int]:
    return dict(Counter(query.kind for query in generated.queries))


def _lineage(learning: Learning, material: Material, generated: GeneratedQueries | None) -> tuple[data.Step, ...]:
    lists, counts = learning.lists
    split, entries = learning.ground.split, len(learning.entries.queries)
    train, trusted = len(split.train.queries), len(learning.trusted.queries)
    given = _human(material) if generated is None else len(generated.queries)
    of_queries = {reason: n for reason, n in material.notes.items() if "queries" in reason}  # others are of documents
    dropped = of_queries if generated is None else dict(generated.dropped)
    reasons = ((reason, n) for reason, n in counts.items() if n and reason not in ("queries", "lists"))
    steps = [
        data.Step(name="queries", unit="queries", before=given + sum(dropped.values()), after=given, left_out=dropped),
        data.Step(
            name="for training",
            unit="queries",
            before=given,
            after=train,
            left_out={"dev": len(split.dev.queries), "test": len(split.test.queries)},
        ),
    ]
    learnable = len(learning.learnable.queries)
    if learnable < train:
        left = {"of documents that there is no time to search": train - learnable}
        steps.append(data.Step(name="time", unit="queries", before=train, after=learnable, left_out=left))
    if generated is not None:
        left = {f"do not find their own document in the first {ROUND_TRIP}": learnable - trusted}
        steps.append(data.Step(name="round trip", unit="queries", before=learnable, after=trusted, left_out=left))
    return (
        *steps,
        data.Step(name="relevant passages", unit="pairs", before=trusted, after=entries),
        data.Step(
            name="lists",
            unit="lists",
            before=entries,
            after=len(lists),
            left_out={reason.replace("_", " "): n for reason, n in reasons},
        ),
    )


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
