"""What a specialization measured and decided: the values of its report, and their JSON.

Nothing that the pages show is computed there: every number is one of these. Scores are nDCG@10 of queries' top ten
where nothing else is said, times are seconds, and intervals are 95% (see mlr_rag.evaluation.significance).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, computed_field

from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.significance import Difference, Interval
from mlr_rag.specializing.split import Leaks

CUT = 300  # characters of a passage that are shown
_EQUAL = 1e-9  # scores that differ by less are equal: sums of floats depend on their order


def excerpt(text: str) -> str:
    """A text on one line, cut to 300 characters at a word."""
    line = " ".join(text.split())
    if len(line) <= CUT:
        return line
    head = line[: CUT - 1]
    return f"{head.rsplit(' ', 1)[0]}…"


Excerpt = Annotated[str, AfterValidator(excerpt)]


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)  # NaN has no JSON


class Metric(_Values):
    """One metric of both models, and of specialized - base by query."""

    base: Interval
    specialized: Interval
    difference: Difference


class QueryScore(_Values):
    """A test query and its nDCG@10 by both models."""

    id: str
    text: Excerpt
    base: float
    specialized: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def difference(self) -> float:
        """Specialized - base."""
        return self.specialized - self.base


class ShownHit(_Values):
    """A hit of an example."""

    rank: int
    score: float
    text: Excerpt
    relevant: bool


class Example(QueryScore):
    """A query that gained or lost: what is relevant, and the top hits of both models."""

    relevant: tuple[Excerpt, ...]
    before: tuple[ShownHit, ...]
    after: tuple[ShownHit, ...]


class Comparison(_Values):
    """What was measured on the test queries, which no decision before this one had seen.

    Attributes:
        metrics: "ndcg@10", "mrr@10", "recall@100", in the order to show them.
        per_query: Every test query.
        improved, hurt: Those that gained and lost most, the largest first, up to ten each.
        detectable: The smallest true difference of nDCG@10 that so many queries show in four of five trials.
        groups: How many groups the queries are in where some are not independent of each other; intervals, p and
            `detectable` are of groups then. None where each is its own.
        looks: How many candidates these queries have been asked with, this one included (see decide).
    """

    metrics: dict[str, Metric]
    per_query: tuple[QueryScore, ...]
    improved: tuple[Example, ...] = ()
    hurt: tuple[Example, ...] = ()
    detectable: float | None = None
    groups: int | None = None
    looks: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def queries(self) -> int:
        """How many test queries there are."""
        return len(self.per_query)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def wins(self) -> int:
        """Queries whose nDCG@10 rose."""
        return sum(query.difference > _EQUAL for query in self.per_query)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ties(self) -> int:
        """Queries whose nDCG@10 is the same."""
        return self.queries - self.wins - self.losses

    @computed_field  # type: ignore[prop-decorator]
    @property
    def losses(self) -> int:
        """Queries whose nDCG@10 fell."""
        return sum(query.difference < -_EQUAL for query in self.per_query)


class Probe(_Values):
    """Whether the model still does what it did before, on general queries that have nothing to do with the corpus.

    Attributes:
        base, specialized: nDCG@10.
        tolerance: How far it may fall.
        kept: Whether it fell no further.
    """

    base: float
    specialized: float
    tolerance: float
    kept: bool

    @computed_field  # type: ignore[prop-decorator]
    @property
    def difference(self) -> float:
        """Specialized - base."""
        return self.specialized - self.base


class Interpolated(_Values):
    """The weights alpha * tuned + (1 - alpha) * base, on the dev queries and the general probe."""

    alpha: float
    dev: float
    probe: float


class Trial(_Values):
    """A short run of one candidate objective, judged by the dev queries' nDCG@10."""

    name: str
    what: str
    steps: int
    dev_before: float
    dev_after: float
    seconds: float
    chosen: bool


class Point(_Values):
    """A step of a learning curve: the dev queries' nDCG@10, the loss, or both."""

    step: int
    dev: float | None = None
    loss: float | None = None


class Curve(_Values):
    """How one run learned."""

    name: str
    points: tuple[Point, ...]


class LayerWeight(_Values):
    """The share of a layer in a document's vector, before and after; a layer counted from 1."""

    layer: int
    before: float
    after: float


class Teacher(_Values):
    """The teacher, and how it does on held-out pairs beside the student and BM25.

    Attributes:
        ndcg, student, bm25: nDCG@10 of the same lists in the order of each.
        verdict: What follows, in a sentence.
        temperature: Of its scores.
        proposed: Whether that was found from their spread, and not asked for.
        pairs: How many it scored, all told; `from_cache` of them cost nothing.
    """

    name: str
    ndcg: float
    student: float
    bm25: float
    verdict: str
    temperature: float
    proposed: bool = True
    pairs: int
    from_cache: int


class Step(_Values):
    """A step of the data's way: how many of what went in and came out, and why the others did not."""

    name: str
    unit: str  # "documents", "queries", "pairs"
    before: int
    after: int
    left_out: dict[str, int] = {}


class SplitSizes(_Values):
    """How many queries each part has, and what was done so that nothing leaks from one to another."""

    train: int
    dev: int
    test: int
    leaks: Leaks


class Data(_Values):
    """Where the training data came from.

    Attributes:
        corpus: Its name or path.
        documents: How many there are to find.
        queries: Kind ("human", "title", "question" ...) → how many.
        generator: What wrote the generated ones; None where none are.
        lineage: The steps from what was given to what was trained on, in order.
    """

    corpus: str
    documents: int
    split: SplitSizes
    queries: dict[str, int]
    generator: str | None = None
    lineage: tuple[Step, ...] = ()


class Stage(_Values):
    """A stage of the run; a reused one was read from an earlier run's work."""

    name: str
    seconds: float
    reused: bool = False


class Budget(_Values):
    """The wall clock: what was asked for (None: no limit), what was spent, and what was left out for it."""

    seconds: float | None
    spent: float
    left_out: tuple[str, ...] = ()


class Run(_Values):
    """What is needed to do it again.

    Attributes:
        command: As typed, or the Python call.
        versions: Package → version.
        created: When it ended.
    """

    command: str
    seed: int
    machine: str
    versions: dict[str, str]
    created: datetime


class Report(_Values):
    """What `specialize` measured and decided.

    Attributes:
        verdict: The decision in a sentence.
        chosen: What was handed back; "base" where every candidate was refused.
        alpha: The share of the tuned weights in it; 0 for the base.
        adapter: The share of a query adapter in it; 0 without one.
        reasons: Why, a sentence each.
        advice: What would help, a sentence each.
        model: The base model's name.
        test: What was handed back, or the candidate that was refused, beside the base; None where no candidate came
            so far.
        interpolation: In the order of alpha; empty where it was not searched.
    """

    version: int = 1
    verdict: str
    chosen: Literal["tuned", "interpolated", "query_adapter", "base"]
    alpha: float | None = None
    adapter: float = 0.0
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    model: str
    test: Comparison | None = None
    probe: Probe | None = None
    interpolation: tuple[Interpolated, ...] = ()
    trials: tuple[Trial, ...] = ()
    curves: tuple[Curve, ...] = ()
    layers: tuple[LayerWeight, ...] = ()
    teacher: Teacher | None = None
    data: Data
    stages: tuple[Stage, ...] = ()
    budget: Budget
    run: Run

    @computed_field  # type: ignore[prop-decorator]
    @property
    def accepted(self) -> bool:
        """Whether the base was beaten, and another model handed back."""
        return self.chosen != "base"


def read_report(path: str | Path) -> Report:
    """The report of a JSON file that `Report.model_dump_json` wrote.

    Raises:
        InvalidInputError: there is no such file, or it is no report.
    """
    place = Path(path)
    try:
        return Report.model_validate_json(place.read_bytes())
    except OSError as problem:
        raise InvalidInputError("no report to read", found=f"{place}: {problem.strerror}") from None
    except ValidationError as problem:
        first: Any = problem.errors(include_url=False)[0]
        where = "/".join(map(str, first["loc"])) or "the file"
        raise InvalidInputError(
            f"{place.name} is no report", found=f"{where}: {first['msg']}", expected="a report.json of specialize"
        ) from None
