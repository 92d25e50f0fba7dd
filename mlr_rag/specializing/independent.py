"""Which held-out queries are evidence of their own, and which only repeat what another one says."""

from __future__ import annotations

from collections.abc import Mapping

from mlr_rag.specializing.duplicates import near_duplicates
from mlr_rag.specializing.groups import Groups
from mlr_rag.specializing.material import Judged

LEAST_GROUPS = 6  # two of 2^n signs are as far from zero as the observed ones, and 2 / 2^5 is above 0.05
_SHARED = 0.5  # of the relevant passages, of which nDCG is made


def independent_groups(judged: Judged, same: Mapping[str, str]) -> dict[str, int]:
    """The group of each query, numbered from 0: queries of two groups ask for other passages, and in other words.

    In one group are near-duplicate queries, those that share half of their relevant passages, or more, and whatever
    either leads to; near-duplicate passages are one. To share any passage is not enough: where queries have dozens that
    would make nearly all of them one group (318 of 323 of NFCorpus; by half of them the largest has 12). Nor is it to
    share a file: its passages answer different questions, which a model learns to find one by one.

    Args:
        judged: The queries; of judgments those count that call a passage relevant.
        same: Document id → its group of near-duplicates.

    Raises:
        MissingExtraError: see near_duplicates.
    """
    groups = Groups(judged.queries)
    for query, alike in near_duplicates(judged.queries).items():
        groups.join(query, alike)
    asking: dict[frozenset[str], str] = {}  # what is asked for → one of the queries
    for query in sorted(judged.queries):
        sought = frozenset(same[document] for document in judged.relevant(query))
        groups.join(query, asking.setdefault(sought, query))
    about: dict[str, list[frozenset[str]]] = {}
    for sought in asking:
        for passage in sought:
            for other in about.setdefault(passage, []):
                if len(sought & other) >= _SHARED * max(len(sought), len(other)):
                    groups.join(asking[sought], asking[other])
            about[passage].append(sought)
    names = groups.names()
    numbers = {name: number for number, name in enumerate(sorted(set(names.values())))}
    return {query: numbers[names[query]] for query in sorted(names)}
