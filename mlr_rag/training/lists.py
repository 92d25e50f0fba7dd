"""TrainingList: a query, its passages, and what is known of them; and the checks of many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mlr_rag.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor


@dataclass(frozen=True)
class TrainingList:
    """A query with two or more distinct passages, a teacher's scores of them, grades, or both.

    Attributes:
        query: The query, without a prompt.
        passages: The passages, in any order.
        scores: The teacher's, one a passage; finite, higher is better, on any scale.
        labels: Grades, one a passage; above 0 is relevant. Without them the teacher's top passage is the positive.

    Raises:
        InvalidInputError: something does not fit; names the query and the place.
    """

    query: str
    passages: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    labels: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        place = f"the list of {beginning(self.query)}"
        _check_text(self.query, f"{place}: its query")
        object.__setattr__(self, "passages", _sequence(self.passages, place))
        if len(self.passages) < 2:
            raise InvalidInputError(
                f"{place}: nothing to choose between", found=f"{len(self.passages)} passages", expected="two or more"
            )
        first: dict[str, int] = {}
        for number, passage in enumerate(self.passages):
            _check_text(passage, f"{place}: passage {number}")
            if first.setdefault(passage, number) != number:
                raise InvalidInputError(
                    f"{place}: passage {number} is passage {first[passage]} again", found=beginning(passage)
                )
        if self.scores is None and self.labels is None:
            raise InvalidInputError(f"{place}: nothing is known of its passages", expected="scores, labels or both")
        for name in ("scores", "labels"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _numbers(values, len(self.passages), f"{place}: {name}"))

    @property
    def relevance(self) -> tuple[float, ...]:
        """The labels; without them, 1 for the teacher's top passage (the first of equals) and 0 for the others."""
        if self.labels is not None:
            return self.labels
        scores = self.scores or ()
        top = scores.index(max(scores))
        return tuple(float(number == top) for number in range(len(scores)))


@dataclass(frozen=True)
class Dropped:
    """How many lists were left out, and why; the first reason that holds is the one that counts.

    Attributes:
        short: Fewer than two distinct passages are left once repetitions are taken out.
        no_positives: No passage is relevant.
        no_scores: A teacher is needed, and did not score it.
        equal_scores: A teacher is needed, and scored all passages alike.
    """

    short: int = 0
    no_positives: int = 0
    no_scores: int = 0
    equal_scores: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class ListBatch:
    """What an objective sees beside the scores of a batch of B lists, whose distinct passages are P columns.

    Attributes:
        index: `(B, n)` long: the column of each list's passages; -1 is padding.
        teacher: `(B, n)` float: the teacher's scores; -inf is padding, and all there is where it gave none.
        labels: `(B, n)` float: grades; 0 is not relevant, or padding.
        queries: The queries, for messages.
        best_layer: Whether a document's score is the largest of its layers', as with `multi_vector` pooling, and not
            its last layer's.
        whole: The batch that these rows were taken from; None where it is whole.
    """

    index: Tensor
    teacher: Tensor
    labels: Tensor
    queries: tuple[str, ...] = ()
    best_layer: bool = False
    whole: ListBatch | None = None

    def rows(self, rows: Sequence[int]) -> ListBatch:
        """Some of the lists, over the same columns."""
        index, teacher, labels = (table[list(rows)] for table in (self.index, self.teacher, self.labels))
        queries = tuple(self.queries[row] for row in rows) if self.queries else ()
        return ListBatch(index, teacher, labels, queries, self.best_layer, self.whole or self)

    @property
    def padding(self) -> Tensor:
        """`(B, n)` bool: True where there is no passage."""
        return self.index < 0

    @property
    def positives_in_list(self) -> Tensor:
        """`(B,)` long: the place in its list of each list's positive; -1 where nothing is relevant.

        It is the passage of the highest grade; among equals the teacher's best, then the first.
        """
        best = (self.labels > 0) & (self.labels == self.labels.amax(1, keepdim=True))
        liked = self.teacher.masked_fill(~best, -math.inf)
        best = best & (liked == liked.amax(1, keepdim=True))
        return best.long().argmax(1).where(best.any(1), -1)

    @property
    def positives(self) -> Tensor:
        """`(B,)` long: the column of each list's positive; -1 where nothing is relevant."""
        places = self.positives_in_list
        return self.index.gather(1, places.clamp(min=0)[:, None]).squeeze(1).where(places >= 0, -1)

    def of_documents(self, scores: Tensor) -> Tensor:
        """`(B, P)`: the scores that documents have in retrieval, from those of their layers `(B, P, m)`."""
        return scores.amax(-1) if self.best_layer else scores[..., 0]

    def of_lists(self, scores: Tensor) -> Tensor:
        """`(B, n)`: each list's own scores out of `(B, P)`; what stands where there is padding means nothing."""
        return scores.gather(1, self.index.clamp(min=0))

    def over_columns(self, values: Tensor, columns: int, fill: float = 0) -> Tensor:
        """`(B, P)` from values `(B, n)` of each list's own passages; `fill` for the passages of others."""
        spread = values.new_full((len(values), columns + 1), fill)  # the last column takes the padding
        return spread.scatter(1, self.index.masked_fill(self.padding, columns), values)[:, :columns]


def check_lists(
    lists: Iterable[TrainingList | dict[str, Any]], positives: bool = True, teacher: bool = False
) -> tuple[list[TrainingList], Dropped]:
    """The lists that a run can learn from, and counts of those that it leaves out.

    Lists may be given as dicts with the attributes of TrainingList; of those, repeated passages are taken out first
    (the first one stays). A list that is broken in any other way is an error, as a count would hide it.

    Args:
        lists: What was built or read.
        positives: Leave out lists without a relevant passage: contrastive objectives need one.
        teacher: Leave out lists that the teacher did not score, or scored all alike: they teach a distilling
            objective nothing but to score them alike. Contrastive objectives can use them.

    Raises:
        InvalidInputError: a list is broken; says which and where.
    """
    kept, counts = [], dict.fromkeys((field.name for field in fields(Dropped)), 0)
    for number, each in enumerate(lists):
        made = each if isinstance(each, TrainingList) else _from_dict(each, f"list {number:,}")
        reason = "short" if made is None else _reason(made, positives, teacher)
        if made is None or reason:
            counts[reason] += 1
        else:
            kept.append(made)
    return kept, Dropped(**counts)


def to_dataset(lists: Sequence[TrainingList]) -> Dataset:
    """The lists as a `datasets.Dataset` with the columns query, passages, scores and labels.

    Raises:
        InvalidInputError: there are none.
        MissingExtraError: `datasets` is not installed.
    """
    if not lists:
        raise InvalidInputError("no lists to train on", expected="one or more")
    try:
        from datasets import Dataset, Features, Value
    except ImportError as problem:
        raise MissingExtraError(
            "training needs a package that is not installed",
            found=f"no {problem.name}",
            remedy="pip install 'mlr-rag[train]'",
        ) from problem
    types = {"passages": [Value("string")], "scores": [Value("float64")], "labels": [Value("float64")]}
    columns = {name: [getattr(each, name) for each in lists] for name in ("query", *types)}
    return Dataset.from_dict(columns, features=Features({"query": Value("string"), **types}))


def beginning(text: Any) -> str:
    """How a text is named in messages."""
    return repr(text[:60] + "…" if isinstance(text, str) and len(text) > 60 else text)


def _reason(each: TrainingList, positives: bool, teacher: bool) -> str:
    if positives and max(each.relevance) <= 0:
        return "no_positives"
    if teacher and each.scores is None:
        return "no_scores"
    if teacher and len(set(each.scores or ())) == 1:
        return "equal_scores"
    return ""


def _from_dict(values: Any, place: str) -> TrainingList | None:
    """The list without its repeated passages; None where fewer than two are left."""
    if not isinstance(values, dict) or not {"query", "passages"} <= values.keys():
        raise InvalidInputError(f"{place} is no list", found=values, expected="a TrainingList, or its attributes")
    passages = _sequence(values["passages"], place)
    for name in ("scores", "labels"):
        if values.get(name) is not None:
            _numbers(values[name], len(passages), f"{place}: {name}")
    places = {passage: number for number, passage in reversed(list(enumerate(passages)))}
    stays = sorted(places.values())
    if len(stays) < 2:
        return None
    columns = {name: tuple(column[i] for i in stays) for name, column in values.items() if _is_column(name, column)}
    try:
        return TrainingList(values["query"], **columns)
    except InvalidInputError as error:
        raise error.at(place) from None


def _is_column(name: str, values: Any) -> bool:
    return name in ("passages", "scores", "labels") and values is not None


def _sequence(passages: Any, place: str) -> tuple[Any, ...]:
    if isinstance(passages, (str, bytes)) or not isinstance(passages, Sequence):
        raise InvalidInputError(f"{place}: no passages", found=type(passages).__name__, expected="a sequence")
    return tuple(passages)


def _check_text(text: Any, place: str) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(f"{place} is not a text", found=type(text).__name__, expected="str")
    if not text.strip():
        raise InvalidInputError(f"{place} is blank", found=text)


def _numbers(values: Any, count: int, place: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{place} are not numbers", found=values, expected="one number a passage") from None
    if len(numbers) != count:
        raise InvalidInputError(f"{place} do not fit the passages", found=len(numbers), expected=count)
    for number, value in enumerate(numbers):
        if not math.isfinite(value):
            raise InvalidInputError(f"{place}: number {number} is not finite", found=value, expected="a finite number")
    return numbers
