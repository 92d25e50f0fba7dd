"""Training, dev and test queries that share as little as their judgments allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.drawing import LEAST, Apart, Bonds, bonds_between, bound_to, draw, size_of
from mlr_rag.specializing.duplicates import near_duplicates
from mlr_rag.specializing.independent import LEAST_GROUPS, independent_groups
from mlr_rag.specializing.material import Judged

By: TypeAlias = Apart | Literal["given", "test"]
_ALIKE = 0.25  # of the test passages are trained on, too: so it is asked again, and dev should tell how that goes
_SIDES = ("test", "dev")
_FORMS = '{"all": ...}, or {"train": ...} and what there is of "dev" and "test"'
_TOLD = {
    "parent": "Training shares no file or page with the drawn queries' passages, nor near-duplicates of these",
    "passage": "Training shares no passage with the drawn queries, nor near-duplicates or neighbors of these",
    "query": "The judgments connect most passages, so that only queries could be held out, not their passages",
    "given": "The splits are your own",
    "test": "Dev queries were drawn so that they share passages with training, as your own test queries do",
}


@dataclass(frozen=True)
class Leaks:
    """What was done against leaks, and what is left of them.

    Attributes:
        by: What training does not share with the queries that were drawn: "parent", the files or pages of their
            relevant passages, nor near-duplicates of these; "passage", these passages, their near-duplicates and their
            neighbors in the file; "query", the queries only; "test", these as well, as the user's own test shares
            passages with training; "given" where nothing was drawn.
        near_queries: Training queries that were dropped because a dev or test query of the user's says nearly the same,
            and dev queries because a test query does.
        judgments_dropped: Relevant documents of training queries that were dropped because they are held.
        queries_dropped: Training queries that were dropped with the last of these.
        relevant: "dev" and "test" → the documents that are relevant to its queries.
        shared: "dev" and "test" → those of them that are relevant to a training query, or nearly the same as one that
            is.
        near_duplicates: Documents of the corpus that are nearly the same as another.
    """

    by: By
    near_queries: int
    judgments_dropped: int
    queries_dropped: int
    relevant: dict[str, int]
    shared: dict[str, int]
    near_duplicates: int

    def __str__(self) -> str:
        counts = [f"{self.shared[side]:,} of {self.relevant[side]:,} {side} passages" for side in _SIDES]
        dropped = [
            f"{count:,} {what}"
            for count, what in (
                (self.near_queries, "queries that say nearly what a dev or test query says"),
                (self.judgments_dropped, "training judgments of passages that are held out"),
                (self.queries_dropped, "training queries that were left without a passage"),
            )
            if count
        ]
        after = f"; dropped: {', '.join(dropped)}" if dropped else ""
        return f"{_TOLD[self.by]}. In training are {' and '.join(counts)}{after}."


@dataclass(frozen=True)
class Split:
    """Queries to train on, dev queries, which decide, and test queries, which are reported.

    Attributes:
        held_documents: What must be in no training list, neither as a positive nor as a negative.
        leaks: What the report says about it.
        test_groups: Test query → the number of its group; those of one group are not independent of each other (see
            independent_groups).
    """

    train: Judged
    dev: Judged
    test: Judged
    held_documents: frozenset[str]
    leaks: Leaks
    test_groups: dict[str, int]


def split(judged: Mapping[str, Judged], corpus: Mapping[str, str], parents: Mapping[str, str], seed: int = 0) -> Split:
    """Respect the splits that are given, and draw dev and test, where they lack, so that nothing of them is trained on.

    Drawn queries are about 15% for dev and as many for test, 3 at the least and 300 at the most; half of the
    queries, or more, stay in training. Near-duplicate queries are never on two sides. What is relevant to a drawn
    query is held: it, its near-duplicates and what has the same parent are in no training list. Where that leaves less
    than half of the training judgments or queries, only the neighbors in the parent are held; where this does too,
    nothing is, and the passages that both sides share are counted. Nor is anything held where a quarter of what the
    user's own test asks for is trained on: dev is to tell how such queries fare.

    Of the user's own dev and test queries no documents are held; training queries that say nearly the same are dropped,
    and dev queries that say nearly the same as a test query.

    Args:
        judged: "all", or "train" and what there is of "dev" and "test", each with judgments of the corpus alone.
        corpus: Document id → text.
        parents: Document id → what it is a passage of.
        seed: Of the draw, which does not depend on the order of anything.

    Raises:
        InvalidInputError: other splits, or fewer than 3 queries for one of the three.
        MissingExtraError: see near_duplicates.
    """
    pool = _source(judged)
    given = {side: judged[side] for side in _SIDES if side in judged}
    if len(given) > 1:
        given["dev"] = _unlike(given["dev"], [given["test"]])
    missing = [side for side in _SIDES if side not in judged]
    unlike = _unlike(pool, given.values())
    same = near_duplicates(corpus)
    done = _Cut("given", unlike)
    if missing:
        alike = near_duplicates(unlike.queries)
        size = size_of(len(alike))
        trained = {same[document] for document in _relevant(unlike)}
        asked = [same[document] in trained for document in _relevant(given["test"])] if "test" in given else []
        shares = bool(asked) and sum(asked) >= _ALIKE * len(asked)
        least = max(LEAST, min(len(alike) // 2, len(alike) - size * len(missing)))
        for by, largest, price, fewest in [_by_query(size)] if shares else _attempts(size, parents):
            bonds = bonds_between(by, same, parents)
            done = _cut(by, unlike, draw(unlike, alike, bonds, missing, size, largest, seed), bonds)
            cheap = done.lost <= price * (done.lost + _judgments(done.train))
            proves = "test" in given or len({*independent_groups(done.drawn["test"], same).values()}) >= fewest
            if len(done.train.queries) >= least and cheap and proves:
                break
        if shares:
            done = replace(done, by="test")
    sides = {"train": done.train, **given, **done.drawn}
    _check_least(sides)
    relevant = {side: _relevant(sides[side]) for side in sides}
    trained = {same[document] for document in relevant["train"]}
    leaks = Leaks(
        done.by,
        near_queries=_lost(pool, unlike) + sum(_lost(judged[side], given[side]) for side in given),
        judgments_dropped=done.lost,
        queries_dropped=done.queries_lost,
        relevant={side: len(relevant[side]) for side in _SIDES},
        shared={side: sum(same[document] in trained for document in relevant[side]) for side in _SIDES},
        near_duplicates=_in_company(same),
    )
    groups = independent_groups(sides["test"], same)
    return Split(done.train, sides["dev"], sides["test"], done.held, leaks, groups)


@dataclass(frozen=True)
class _Cut:
    """Queries that were drawn, and what is left to train on: `lost` judgments and `queries_lost` queries less."""

    by: By
    train: Judged
    drawn: dict[str, Judged] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    lost: int = 0
    queries_lost: int = 0


def _attempts(size: int, parents: Mapping[str, str]) -> Iterator[tuple[Apart, int, float, int]]:
    """What to keep apart, how many queries to hold out at once for that, what it may cost, and the groups it must give.

    Many small families of queries tell more than one large one, and are worth some training judgments; they are worth
    half of these where the test would have too few groups to prove anything.
    """
    levels: tuple[Apart, ...] = ("parent", "passage") if len(set(parents.values())) < len(parents) else ("passage",)
    for by in levels:
        yield by, size // 3, 0.2, LEAST_GROUPS
        for families in range(4, LEAST_GROUPS + 1):  # no smaller ones than it takes
            yield by, size // families, 0.5, LEAST_GROUPS
        yield by, size, 0.5, 0
    yield _by_query(size)


def _by_query(size: int) -> tuple[Apart, int, float, int]:
    return "query", size, 0.5, 0


def _cut(by: By, pool: Judged, drawn: dict[str, Judged], bonds: Bonds) -> _Cut:
    held = bound_to({document for side in drawn.values() for document in _relevant(side)}, bonds)
    taken = {query for side in drawn.values() for query in side.queries}
    rest = pool.only(query for query in pool.queries if query not in taken)
    qrels = {
        query: {document: grade for document, grade in grades.items() if document not in held}
        for query, grades in rest.qrels.items()
    }
    apart = Judged(rest.queries, qrels)
    train = apart.only(query for query in apart.queries if apart.relevant(query))
    return _Cut(by, train, drawn, held, _judgments(rest) - _judgments(train), len(rest.queries) - len(train.queries))


def _source(judged: Mapping[str, Judged]) -> Judged:
    """What training queries come from."""
    if set(judged) == {"all"}:
        return judged["all"]
    if "train" in judged and set(judged) <= {"train", *_SIDES}:
        return judged["train"]
    raise InvalidInputError(
        "no queries to train on",
        found=", ".join(sorted(judged)) or "no judgments",
        expected=_FORMS,
        remedy="Have queries generated for training (queries='generate').",
    )


def _unlike(train: Judged, held_out: Iterable[Judged]) -> Judged:
    """The queries that none of the held-out ones is nearly the same as."""
    others = {f"held {place} {id}": text for place, side in enumerate(held_out) for id, text in side.queries.items()}
    if not others:
        return train
    groups = near_duplicates(others | {f"train {id}": text for id, text in train.queries.items()})
    taken = {groups[id] for id in others}
    return train.only(id for id in train.queries if groups[f"train {id}"] not in taken)


def _check_least(sides: Mapping[str, Judged]) -> None:
    counts = {side: len(judged.queries) for side, judged in sides.items()}
    if min(counts.values()) < LEAST:
        raise InvalidInputError(
            "too few different queries for training, dev and test",
            found=", ".join(f"{count} for {side}" for side, count in counts.items()),
            expected=f"{LEAST} for each, with a relevant passage",
            remedy="Judge more queries, or have them generated (queries='generate').",
        )


def _lost(before: Judged, after: Judged) -> int:
    return len(before.queries) - len(after.queries)


def _relevant(judged: Judged) -> set[str]:
    return {document for query in judged.queries for document in judged.relevant(query)}


def _judgments(judged: Judged) -> int:
    return sum(len(judged.relevant(query)) for query in judged.queries)


def _in_company(groups: Mapping[str, str]) -> int:
    sizes = Counter(groups.values())
    return sum(size for size in sizes.values() if size > 1)
