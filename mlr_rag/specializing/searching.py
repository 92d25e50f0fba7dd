"""What the base model and BM25 find, among as many documents as there is time for."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.finding import find
from mlr_rag.specializing.ground import Ground
from mlr_rag.specializing.material import Judged, documents_of
from mlr_rag.specializing.options import Options
from mlr_rag.specializing.plan import room
from mlr_rag.specializing.precision import HalfPrecision
from mlr_rag.specializing.speed import Speed, measure_speed
from mlr_rag.specializing.stages import Done, Workspace
from mlr_rag.training.mining.bm25 import BM25
from mlr_rag.training.mining.candidates import Dense, Run, rrf

FOUND = 30  # candidates of a query


@dataclass(frozen=True)
class Found:
    """What the base and BM25 find for the train and dev queries."""

    dense: Run
    words: Run


class Searching:
    """The stages from the first look at the machine's speed to candidates; each is done once (see Workspace).

    Args:
        ground: The model, the documents and the split queries.
        options: What was asked for.
        work: Keeps what the stages give.
        clock: How much time is left.
        tried: Objectives that time is to be left for.
        reading: Gives the seconds that a teacher takes for each of the documents, which it is to read as well.
    """

    def __init__(
        self,
        ground: Ground,
        options: Options,
        work: Workspace,
        clock: Clock,
        tried: int,
        reading: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.ground, self.options, self.work, self.clock = ground, options, work, clock
        self.tried, self._reading = tried, reading

    @cached_property
    def speed(self) -> Speed:
        """How fast the machine is."""
        ground, device = self.ground, self.ground.base.device.type

        def work() -> Speed:
            return measure_speed(ground.base, ground.corpus, list(ground.split.train.queries.values()))

        return self.work.stage("speed", [ground.key, device, self.options.budget], Speed, work).value

    @cached_property
    def order(self) -> list[str]:
        """The documents, those first that are needed most: for held-out queries, then for training."""
        split, corpus = self.ground.split, self.ground.corpus
        draw = random.Random(self.options.seed)  # noqa: S311
        order: dict[str, None] = {}
        for part in (documents_of(split.dev, split.test), documents_of(split.train), set(corpus)):
            ids = sorted(part & corpus.keys() - order.keys())
            order.update(dict.fromkeys(draw.sample(ids, len(ids))))
        return list(order)

    @cached_property
    def sought(self) -> Mapping[str, str]:
        """The documents among which candidates are sought: all that there is time for."""
        ground, split, speed, reading = self.ground, self.ground.split, self.speed, self._reading()

        def work() -> int:
            held = len(documents_of(split.dev, split.test) & ground.corpus.keys())
            lists, clock = len(split.train.queries), self.clock
            try:
                return room(clock.left, speed, len(ground.corpus), held, lists, self.tried, reading, clock.spent)
            except InvalidInputError:
                self.work.forget("speed")
                raise

        needs = [ground.key, self.options.budget, asdict(speed), self.tried, reading]
        count = self.work.stage("room", needs, int, work).value
        return {id: ground.corpus[id] for id in sorted(self.order[:count])}

    @cached_property
    def learnable(self) -> Judged:
        """The training queries with a relevant document among these."""
        train, sought = self.ground.split.train, self.sought
        known = {
            query
            for query, grades in train.qrels.items()
            if any(grade > 0 and id in sought for id, grade in grades.items())
        }
        return train.only(known)

    @cached_property
    def found(self) -> Done[Found]:
        """What the base and BM25 find for the train and dev queries."""
        train, dev, sought = self.learnable, self.ground.split.dev, self.sought
        asked = Judged({**train.queries, **dev.queries}, {**train.qrels, **dev.qrels})
        needs = [self.ground.key, FOUND, self.options.seed, len(sought)]
        return self.work.stage("search", needs, Found, lambda: self.find(asked, sought, FOUND))

    def find(self, asked: Judged, corpus: Mapping[str, str], depth: int) -> Found:
        """What they find for these queries among these documents."""
        dense = Dense(HalfPrecision(self.ground.base), self.work.vectors)
        return Found(
            find(dense, asked, corpus, depth, "Searching by vectors"),
            find(BM25(), asked, corpus, depth, "Searching by words"),
        )

    @cached_property
    def candidates(self) -> Run:
        """The two, fused by rank."""
        fused = rrf([self.found.value.dense, self.found.value.words])
        return {query: dict(islice(of_query.items(), FOUND)) for query, of_query in fused.items()}
