"""Which held-out queries measure models, and over which documents: as many as there is time for."""

from __future__ import annotations

import random
from functools import cached_property
from itertools import islice

from mlr_rag.specializing.finding import pooled
from mlr_rag.specializing.gathering import Gathering
from mlr_rag.specializing.material import Judged, documents_of
from mlr_rag.specializing.searching import FOUND

_NEAR, _LEAST = 5, 50  # candidates that a dev query should search at the least, and dev queries


class Measuring:
    """What models are measured by.

    Args:
        gathered: The plan, and what the base finds.
    """

    def __init__(self, gathered: Gathering) -> None:
        self.gathered, self.searching = gathered, gathered.searching
        self.ground, self.seed = gathered.ground, gathered.options.seed

    @cached_property
    def dev(self) -> Judged:
        """The dev queries that models are measured by: as many as there is room for with what they ask for."""
        dev, ids, chosen = self.ground.split.dev, set[str](), list[str]()
        order = random.Random(self.seed).sample(sorted(dev.queries), len(dev.queries))  # noqa: S311
        for query in order:
            ids.update(dev.relevant(query), islice(self.searching.candidates[query], _NEAR))
            if len(ids) > self.gathered.plan.dev_documents and len(chosen) >= _LEAST:
                break
            chosen.append(query)
        return dev.only(chosen)

    @cached_property
    def pool(self) -> dict[str, str]:
        """The documents that these search whenever a model is measured."""
        dev, room, searching = self.dev, self.gathered.plan.dev_documents, self.searching
        judged = {id for query in dev.queries for id in dev.relevant(query)}
        found = {query: searching.candidates[query] for query in dev.queries}
        depth = next((depth for depth in range(FOUND, 0, -1) if len(judged | {*pooled(found, depth)}) <= room), 1)
        ids = judged | set(pooled(found, depth))
        others = sorted(searching.sought.keys() - ids)
        more = random.Random(self.seed).sample(others, max(0, min(room - len(ids), len(others))))  # noqa: S311
        return {id: self.ground.corpus[id] for id in sorted(ids.union(more))}

    @cached_property
    def searched(self) -> dict[str, str]:
        """The documents that test queries search, and an adapter of a tuned model: all that there is time for."""
        split, corpus = self.ground.split, self.ground.corpus
        held = documents_of(split.dev, split.test) & corpus.keys()
        count = max(self.gathered.plan.test_documents, len(held))
        return {id: corpus[id] for id in sorted(self.searching.order[:count])}
