"""Which held-out queries measure models, and over which documents: as many as there is room for."""

from __future__ import annotations

import random
from functools import cached_property
from itertools import islice

from mlr_rag.specializing.finding import pooled
from mlr_rag.specializing.material import Judged, documents_of
from mlr_rag.specializing.searching import FOUND, Searching

_NEAR, _LEAST = 5, 50  # candidates that a dev query should search at the least, and dev queries


class Measuring:
    """What models are measured by.

    Args:
        searching: What the base finds.
    """

    def __init__(self, searching: Searching) -> None:
        self.searching, self.ground, self.seed = searching, searching.ground, searching.options.seed

    @cached_property
    def held(self) -> set[str]:
        """The documents that dev and test queries judge, which have to be searched."""
        split = self.ground.split
        return documents_of(split.dev, split.test) & self.ground.corpus.keys()

    @cached_property
    def least(self) -> int:
        """How many documents the fewest dev queries ask for that tell anything."""
        return len(set[str]().union(*(self._wanted(query) for query in self._order[:_LEAST])))

    def dev(self, room: int) -> Judged:
        """The dev queries that models are measured by: as many as there is room for with what they ask for."""
        ids, chosen = set[str](), list[str]()
        for query in self._order:
            ids |= self._wanted(query)
            if len(ids) > room and len(chosen) >= _LEAST:
                break
            chosen.append(query)
        return self.ground.split.dev.only(chosen)

    def pool(self, room: int) -> dict[str, str]:
        """The documents that these search whenever a model is measured."""
        dev, searching = self.dev(room), self.searching
        judged = {id for query in dev.queries for id in dev.relevant(query)}
        found = {query: searching.candidates[query] for query in dev.queries}
        depth = next((depth for depth in range(FOUND, 0, -1) if len(judged | {*pooled(found, depth)}) <= room), 1)
        ids = judged | set(pooled(found, depth))
        others = sorted(searching.sought.keys() - ids)
        more = random.Random(self.seed).sample(others, max(0, min(room - len(ids), len(others))))  # noqa: S311
        return {id: self.ground.corpus[id] for id in sorted(ids.union(more))}

    def searched(self, room: int) -> dict[str, str]:
        """The documents that test queries search, and an adapter of a tuned model: all that there is room for."""
        count = max(room, len(self.held))
        return {id: self.ground.corpus[id] for id in sorted(self.searching.order[:count])}

    @cached_property
    def _order(self) -> list[str]:
        dev = sorted(self.ground.split.dev.queries)
        return random.Random(self.seed).sample(dev, len(dev))  # noqa: S311

    def _wanted(self, query: str) -> set[str]:
        """What a dev query should search at the least."""
        return {*self.ground.split.dev.relevant(query), *islice(self.searching.candidates[query], _NEAR)}
