"""Reports as a run would make them, of made-up numbers."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from mlr_rag.evaluation.significance import detectable, interval, paired_bootstrap
from mlr_rag.specializing.report.data import (
    Budget,
    Comparison,
    Curve,
    Data,
    Example,
    Interpolated,
    LayerWeight,
    Metric,
    Point,
    Probe,
    QueryScore,
    Report,
    Run,
    ShownHit,
    SplitSizes,
    Stage,
    Step,
    Teacher,
    Trial,
)
from mlr_rag.specializing.split import Leaks

_TOPICS = ("rotate a log file", "merge two sorted lists", "read a CSV with a header", "retry a request after a timeout")
_PASSAGE = (
    "To {topic}, open the handle once and keep it: every call of close() flushes what is left, and the next one must "
    "wait for the disk. The recipe below shows it for Python 3.10 and later, with the errors that a full disk raises."
)


def accepted(queries: int = 120) -> Report:
    """A better model: interpolated, with every part of a report."""
    test = comparison(queries, gain=0.09)
    ndcg = test.metrics["ndcg@10"]
    return Report(
        verdict=f"The specialized model finds more: nDCG@10 {ndcg.base.mean:.3f} → {ndcg.specialized.mean:.3f}.",
        chosen="interpolated",
        alpha=0.7,
        adapter=0.5,
        reasons=(
            "Better on the test queries, and no accident: the whole interval of the difference is above zero.",
            "The general probe falls by less than the tolerance of 0.01 with 70% of the tuned weights.",
        ),
        advice=("Judge some queries of the kind that lost, and run again: scoring is cached.",),
        model="sentence-transformers/all-MiniLM-L6-v2",
        test=test,
        probe=Probe(base=0.5123, specialized=0.5061, tolerance=0.01, kept=True),
        interpolation=tuple(
            Interpolated(alpha=alpha, dev=0.612 + 0.16 * alpha - 0.07 * alpha**2, probe=0.5123 - 0.0127 * alpha**2)
            for alpha in (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
        ),
        trials=(
            Trial(
                name="contrastive",
                what="InfoNCE on the judgments, with mined negatives",
                steps=60,
                dev_before=0.6121,
                dev_after=0.6684,
                seconds=48.2,
                chosen=False,
            ),
            Trial(
                name="listwise + contrastive",
                what="the teacher's lists of 20, and 0.1 InfoNCE",
                steps=60,
                dev_before=0.6121,
                dev_after=0.6842,
                seconds=71.9,
                chosen=True,
            ),
            Trial(
                name="query adapter",
                what="a linear map of the query side alone",
                steps=60,
                dev_before=0.6121,
                dev_after=0.6097,
                seconds=9.4,
                chosen=False,
            ),
        ),
        curves=(_curve("trial: contrastive", 60, 0.055, 1), _curve("listwise + contrastive", 410, 0.1, 2)),
        layers=(
            LayerWeight(layer=2, before=0.0, after=0.0312),
            LayerWeight(layer=4, before=0.0, after=0.1187),
            LayerWeight(layer=5, before=0.0, after=0.2043),
            LayerWeight(layer=6, before=1.0, after=0.6458),
        ),
        teacher=Teacher(
            name="cross-encoder/ms-marco-MiniLM-L6-v2",
            ndcg=0.7312,
            student=0.6254,
            bm25=0.5871,
            verdict="The teacher beats the student and BM25 on held-out pairs: there is something to learn.",
            temperature=0.3,
            pairs=41_260,
            from_cache=12_400,
        ),
        data=_data(),
        stages=(
            Stage(name="read and split", seconds=4.1, reused=True),
            Stage(name="mine", seconds=38.0, reused=True),
            Stage(name="score", seconds=312.6),
            Stage(name="trials", seconds=129.5),
            Stage(name="train", seconds=401.3),
            Stage(name="evaluate and decide", seconds=41.7),
        ),
        budget=Budget(
            seconds=1200.0,
            spent=927.2,
            left_out=("1,204 of 3,604 generated queries were not scored", "the second epoch was not begun"),
        ),
        run=_run(),
    )


def refused(queries: int = 60) -> Report:
    """A candidate that was no better, and what it did."""
    return accepted().model_copy(
        update={
            "verdict": "Keep the base model: the candidate is no better on your test queries.",
            "chosen": "base",
            "alpha": 0.0,
            "reasons": ("The interval of the difference holds zero.", "The general probe falls beyond the tolerance."),
            "advice": ("More queries: with 60 queries only differences over 0.06 can be seen.",),
            "test": comparison(queries, gain=-0.01).model_copy(update={"groups": queries // 3, "looks": 2}),
            "probe": Probe(base=0.5123, specialized=0.4761, tolerance=0.01, kept=False),
        }
    )


def minimal() -> Report:
    """A run that ended early: no candidate, no teacher, no curves, no layers, no limit of time."""
    return Report(
        verdict="Keep the base model: no trial gained anything on the dev queries.",
        chosen="base",
        model="sentence-transformers/all-MiniLM-L6-v2",
        data=Data(
            corpus="notes/",
            documents=1,
            split=SplitSizes(train=2, dev=1, test=1, leaks=Leaks("given", 0, 0, 0, {}, {}, 0)),
            queries={"human": 4},
        ),
        budget=Budget(seconds=None, spent=12.0),
        run=_run(),
    )


def comparison(queries: int, gain: float, seed: int = 0) -> Comparison:
    """Both models on so many test queries, the second about `gain` better."""
    draw = np.random.default_rng(seed)
    base = np.clip(draw.normal(0.62, 0.3, queries), 0, 1)
    moved = draw.random(queries) < 0.7
    specialized = np.where(moved, np.clip(base + draw.normal(gain * 1.6, 0.2, queries), 0, 1), base)
    texts = [f"how do I {_TOPICS[place % len(_TOPICS)]}, case {place}?" for place in range(queries)]
    scores = tuple(
        QueryScore(id=f"q{place}", text=texts[place], base=float(base[place]), specialized=float(specialized[place]))
        for place in range(queries)
    )
    by_change = sorted(scores, key=lambda query: query.difference)
    return Comparison(
        metrics={
            "ndcg@10": _metric(base, specialized),
            "mrr@10": _metric(np.clip(base + 0.04, 0, 1), np.clip(specialized + 0.05, 0, 1)),
            "recall@100": _metric(np.clip(base + 0.25, 0, 1), np.clip(specialized + 0.22, 0, 1)),
        },
        per_query=scores,
        improved=tuple(_example(query) for query in by_change[:-11:-1] if query.difference > 0),
        hurt=tuple(_example(query) for query in by_change[:10] if query.difference < 0),
        detectable=detectable(queries, float(np.std(specialized - base))),
    )


def _metric(base: np.ndarray, specialized: np.ndarray) -> Metric:
    return Metric(
        base=interval(base, samples=1000),
        specialized=interval(specialized, samples=1000),
        difference=paired_bootstrap(specialized, base, samples=2000),
    )


def _example(query: QueryScore) -> Example:
    topic = query.text.removeprefix("how do I ").split(",")[0]
    found = _PASSAGE.format(topic=topic)
    other = "logging.handlers.RotatingFileHandler(filename, mode='a', maxBytes=0, backupCount=0, encoding=None)"
    hits = (
        ShownHit(rank=1, score=0.7312, text=other, relevant=False),
        ShownHit(rank=2, score=0.7008, text=found, relevant=True),
        ShownHit(rank=3, score=0.6431, text=f"See also: {other}", relevant=False),
    )
    better = (hits[1].model_copy(update={"rank": 1}), hits[0].model_copy(update={"rank": 2}), hits[2])
    before, after = (hits, better) if query.difference > 0 else (better, hits)
    return Example(**query.model_dump(exclude={"difference"}), relevant=(found,), before=before, after=after)


def _curve(name: str, steps: int, gain: float, seed: int) -> Curve:
    draw = np.random.default_rng(seed)
    at = np.linspace(0, steps, 9).astype(int)
    return Curve(
        name=name,
        points=tuple(
            Point(
                step=int(step),
                dev=0.6121 + gain * (1 - float(np.exp(-3 * step / steps))) + float(draw.normal(0, 0.002)),
                loss=None if step == 0 else 0.4 + 1.6 * float(np.exp(-3 * step / steps)) + float(draw.normal(0, 0.02)),
            )
            for step in at
        ),
    )


def _data() -> Data:
    return Data(
        corpus="docs/",
        documents=8_214,
        split=SplitSizes(
            train=2_400,
            dev=120,
            test=120,
            leaks=Leaks(
                by="parent",
                near_queries=31,
                judgments_dropped=212,
                queries_dropped=87,
                relevant={"dev": 164, "test": 171},
                shared={"dev": 0, "test": 0},
                near_duplicates=305,
            ),
        ),
        queries={"human": 412, "question": 1_310, "keywords": 918},
        generator="Qwen/Qwen2.5-1.5B-Instruct",
        lineage=(
            Step(
                name="read", unit="documents", before=8_390, after=8_214, left_out={"blank": 14, "the same text": 162}
            ),
            Step(
                name="generate",
                unit="queries",
                before=4_107,
                after=3_604,
                left_out={"twice": 288, "near-copy of the passage": 131, "no query": 84},
            ),
            Step(
                name="round trip", unit="queries", before=3_604, after=2_722, left_out={"source not in the top 20": 882}
            ),
            Step(
                name="teacher",
                unit="queries",
                before=2_722,
                after=2_400,
                left_out={"the teacher ranks another first": 322},
            ),
        ),
    )


def _run() -> Run:
    return Run(
        command="mlr-rag specialize docs/ --teacher cross-encoder/ms-marco-MiniLM-L6-v2 --budget 20min --output out",
        seed=7,
        machine="Linux x86_64, 2 cores, 24 GiB, no GPU",
        versions={"mlr-rag": "0.1.0", "sentence-transformers": "6.0.1", "torch": "2.9.0", "python": "3.11.9"},
        created=datetime(2026, 11, 22, 9, 30, tzinfo=timezone.utc),
    )
