"""Drawing queries to hold out, so that those that share passages are held out together."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

from mlr_rag.specializing.material import Judged

LEAST, _MOST, _PART = 3, 300, 0.15  # queries of dev, and of test

Apart: TypeAlias = Literal["parent", "passage", "query"]
Bonds: TypeAlias = dict[str, tuple[str, ...]]  # document → its bonds; documents that share one are kept on one side


def size_of(queries: int) -> int:
    """How many of so many queries dev or test should get."""
    return min(_MOST, max(LEAST, round(_PART * queries)))


def bonds_between(by: Apart, same: Mapping[str, str], parents: Mapping[str, str]) -> Bonds:
    """What is to be kept together: near-duplicates, and passages of one parent or those that follow on each other.

    Args:
        by: "parent"; "passage", where only neighbors are bound; "query", where nothing is.
        same: Document id → its group of near-duplicates.
        parents: Document id → parent. Its passages follow on each other by the numbers in their ids.
    """
    if by == "query":
        return dict.fromkeys(same, ())
    if by == "parent":
        return {id: (f"same {group}", f"parent {parents[id]}") for id, group in same.items()}
    bonds: Bonds = {id: (f"same {group}",) for id, group in same.items()}
    passages: dict[str, list[str]] = {}
    for id in sorted(same, key=_natural):
        passages.setdefault(parents[id], []).append(id)
    for of_parent in passages.values():
        for before, after in pairwise(of_parent):
            bond = f"before {after}"
            bonds[before] += (bond,)
            bonds[after] += (bond,)
    return bonds


def bound_to(documents: Iterable[str], bonds: Bonds) -> frozenset[str]:
    """The documents that share a bond with one of these, and these if they have any bonds."""
    held = {bond for document in documents for bond in bonds[document]}
    return frozenset(document for document, of_document in bonds.items() if not held.isdisjoint(of_document))


def draw(
    pool: Judged, alike: Mapping[str, str], bonds: Bonds, sides: Sequence[str], size: int, largest: int, seed: int
) -> dict[str, Judged]:
    """Queries for each side, `size` of them or a few less, the sides filled evenly.

    Near-duplicate queries stay together. So do those whose relevant documents are bound to each other, directly or
    through others, up to `largest`.

    Args:
        pool: Where they are drawn from.
        alike: Query id → its group of near-duplicates.
        bonds: See bonds_between.
        sides: Their names.
        size: Queries of a side.
        largest: Queries that are drawn at once because of their documents.
        seed: Of the order in which groups are drawn, which depends on their ids alone.
    """
    units: dict[str, list[str]] = {}
    bonds_of: dict[str, set[str]] = {}
    bound: dict[str, list[str]] = {}  # bond → its units
    for query in sorted(alike):
        units.setdefault(alike[query], []).append(query)
        bonds_of.setdefault(alike[query], set()).update(
            bond for document in pool.relevant(query) for bond in bonds[document]
        )
    for unit in units:
        for bond in bonds_of[unit]:
            bound.setdefault(bond, []).append(unit)
    drawn: dict[str, list[str]] = {side: [] for side in sides}
    seen: set[str] = set()
    for unit in sorted(units, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest()):
        if unit in seen:
            continue
        family = list(_family(unit, units, bonds_of, bound, seen, largest))
        taken = [query for member in family for query in units[member]]
        side = min(drawn, key=lambda name: len(drawn[name]))
        if len(taken) <= (size if len(drawn[side]) < LEAST else size - len(drawn[side])):
            drawn[side] += taken
        seen.update(family)
    return {side: pool.only(queries) for side, queries in drawn.items()}


def _family(
    unit: str,
    units: Mapping[str, Sequence[str]],
    bonds_of: Mapping[str, Iterable[str]],
    bound: Mapping[str, Sequence[str]],
    seen: Container[str],
    largest: int,
) -> Iterator[str]:
    """The unit, and those that bonds lead to from it, nearest first, as long as they are not too many queries."""
    yield unit
    count, met, followed, waiting = len(units[unit]), {unit}, set[str](), deque([unit])
    while waiting:
        for bond in sorted(set(bonds_of[waiting.popleft()]) - followed):
            followed.add(bond)
            for other in bound[bond]:
                if other in met or other in seen:
                    continue
                count += len(units[other])
                if count > largest:
                    return
                met.add(other)
                waiting.append(other)
                yield other


def _natural(id: str) -> list[str | int]:
    """So that passage 10 comes after passage 9."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", id))]
