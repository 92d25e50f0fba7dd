"""What extractive queries teach a model: asked by people's queries, and by queries of their own kind.

python -m benchmarks.rules_queries nl2bash.zip wikiqa.zip --teacher all-mpnet-base-v2
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks._common import Row, parser, quiet, report, say
from mlr_rag import MLRModel
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.specializing.asking import as_judged
from mlr_rag.specializing.finding import find
from mlr_rag.specializing.gathering import ROUND_TRIP, SCORED
from mlr_rag.specializing.interpolation import interpolate
from mlr_rag.specializing.lists import Entries, make_entries
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.precision import HalfPrecision, HalfPrecisionTeacher, HalfPrecisionVectors
from mlr_rag.specializing.probe import Probe
from mlr_rag.specializing.queries.extractive import extract_queries
from mlr_rag.specializing.recipes import RECIPES
from mlr_rag.specializing.running import DevEvaluator, Pace, train
from mlr_rag.specializing.searching import FOUND
from mlr_rag.training.mining.bm25 import BM25
from mlr_rag.training.mining.candidates import Dense, Run, rrf
from mlr_rag.training.mining.consistency import confident, consistent, teacher_agrees
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import as_teacher

PEOPLE, DOCUMENTS, LISTS, HELD, LENGTH, STEPS, BATCH = 1000, 12_000, 1920, 300, 8, 60, 32
TEMPERATURE, RATE = 0.3, 1e-4
WAYS = ("contrastive", "distillation", "distillation, filtered")


@dataclass(frozen=True)
class Measured:
    """nDCG@10 of people's queries, of held-out queries by rules, and of the general probe."""

    people: float
    rules: float
    probe: float

    def __str__(self) -> str:
        return f"{self.people:.3f} | {self.rules:.3f} | {self.probe:.3f}"


class Setting:
    """A part of a collection's documents, people's train queries about them, and queries by rules.

    Args:
        path: The collection; its test queries are not read.
        base: The model.
        work: For vectors and runs.
        seed: Of every choice.
    """

    def __init__(self, path: Path, base: MLRModel, work: Path, seed: int) -> None:
        self.base, self.work, self.seed = base, work, seed
        draw, train = random.Random(seed), Collection.load(path, "train")
        texts = {id: text for id, text in train.texts() if text}
        people = sorted(id for id, grades in train.qrels.items() if grades.keys() & texts.keys())
        asked = draw.sample(people, min(PEOPLE, len(people)))
        judged = {id for query in asked for id in train.qrels[query] if id in texts}
        others = sorted(texts.keys() - judged)
        chosen = judged.union(draw.sample(others, min(DOCUMENTS - len(judged), len(others))))
        self.corpus = {id: texts[id] for id in sorted(chosen)}
        self.people = RetrievalEvaluator(
            {id: train.queries[id] for id in asked}, {id: train.qrels[id] for id in asked}, self.corpus
        )
        self.vectors = HalfPrecisionVectors(work / "vectors.sqlite")
        by_rules, passages, _ = as_judged(extract_queries(self.corpus, seed=seed))
        run = self._search(by_rules)
        sources = {query: next(iter(grades)) for query, grades in by_rules.qrels.items()}
        found = sorted(consistent(sources, run, ROUND_TRIP).ids)
        order = draw.sample(found, len(found))
        held, learned = by_rules.only(order[:HELD]), by_rules.only(order[HELD : HELD + LISTS])
        self.rules = DevEvaluator(RetrievalEvaluator(held.queries, held.qrels, self.corpus))
        self.entries = make_entries(learned, run, self.corpus, frozenset(sources[id] for id in held.queries), passages)

    def _search(self, asked: Judged) -> Run:
        dense = Dense(HalfPrecision(self.base), self.vectors)
        found = rrf([find(source, asked, self.corpus, FOUND) for source in (dense, BM25())])
        return {query: dict(islice(of_query.items(), FOUND)) for query, of_query in found.items()}

    def score(self, name: str) -> Run:
        """The teacher's scores of every entry's passage and candidates."""
        teacher = HalfPrecisionTeacher(as_teacher(name, vectors=self.vectors))
        with ScoreCache(self.work / "scores.sqlite") as cache:
            return self.entries.score(teacher, cache, sorted(self.entries.queries), SCORED)

    def measure(self, model: MLRModel, probe: Probe) -> Measured:
        """The three figures of a model."""
        half = HalfPrecision(model)
        values = self.people.per_query(half)
        return Measured(sum(values.values()) / len(values), self.rules.measure(model), probe.measure(half))

    def fine_tune(self, way: str, scores: Run) -> MLRModel:
        """The base after STEPS steps: of its checkpoints the best by held-out queries by rules."""
        name, _, filtered = way.partition(", ")
        entries = believed(self.entries, scores) if filtered else self.entries
        lists, _ = entries.lists(scores if name == "distillation" else {}, LENGTH)
        recipe = next(recipe for recipe in RECIPES if recipe.name == name)
        pace = Pace(STEPS, 1, BATCH, RATE, self.seed)
        model, result, seconds = train(
            self.base, lists, recipe.objective(TEMPERATURE), pace, self.rules, self.work / way.replace(", ", "-")
        )
        say(way, f"{len(lists):,} lists, {result.steps} steps, {seconds:.0f} s")
        return model


def believed(entries: Entries, scores: Mapping[str, Mapping[str, float]]) -> Entries:
    """Those whose passage the teacher prefers, and is sure of, as `specialize` keeps them."""
    sources = {entry: next(iter(entries.positives[entry])) for entry in scores}
    agreed = set(teacher_agrees(sources, scores, scored=2).ids)
    sure = confident({entry: scores[entry] for entry in agreed}).ids
    return entries.without(scores.keys() - set(sure))


def measure(path: Path, base: MLRModel, args: argparse.Namespace, probe: Probe) -> dict[str, Measured]:
    """Each way, whole and half of it."""
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(path, base, Path(scratch), args.seed)
        found = {"base": setting.measure(base, probe)}
        say(path.stem, len(setting.entries.queries), "entries,", found["base"])
        scores = setting.score(args.teacher)
        for way in WAYS:
            tuned = setting.fine_tune(way, scores)
            found[way] = setting.measure(tuned, probe)
            found[f"{way}; half of the weights"] = setting.measure(interpolate(base, tuned, 0.5), probe)
            say(path.stem, way, found[way])
        return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collections", type=Path, nargs="*", help="collections of BEIR's form with a train split")
    options.add_argument("--teacher", help="a folder or name")
    args = options.parse_args()
    if not args.collections or not args.teacher:
        say("skipped: pass BEIR's nl2bash.zip and others, which are not ours to ship, and a --teacher")
        return
    quiet()
    base, probe = MLRModel.from_pretrained(DEFAULT_MODEL), Probe.general()
    found = {path.stem: measure(path, base, args, probe) for path in args.collections}
    rows, table = (
        [],
        [
            "| collection | learned | people's queries | queries by rules | general probe |",
            "| --- | --- | --- | --- | --- |",
        ],
    )
    for name, ways in found.items():
        table += [f"| {name} | {way} | {values} |" for way, values in ways.items()]
        for way in WAYS:
            people, rules = (getattr(ways[way], kind) - getattr(ways["base"], kind) for kind in ("people", "rules"))
            rows.append(Row(f"{name}, {way}: people's / by rules", "", f"{people:+.3f} / {rules:+.3f}"))
    report(
        "rules_queries",
        "What queries by rules teach",
        args,
        rows,
        f"nDCG@10, computed in bfloat16, over at most {DOCUMENTS:,} documents, of {PEOPLE} of people's train queries "
        f"(no test query is read) and of {HELD} held-out queries by rules; {STEPS} steps of {BATCH} lists of {LENGTH}, "
        f"up to {LISTS:,} different ones of every kind of extractive query. {DEFAULT_MODEL}, taught by "
        f"{Path(args.teacher).name}. This is why `specialize` learns from such queries only what a teacher says of "
        "them, and asks none that are but words of a document where there is no teacher.",
        "other teachers, larger models, queries that a language model writes.",
        ("sentence-transformers",),
        "\n".join(table),
    )


if __name__ == "__main__":
    main()
