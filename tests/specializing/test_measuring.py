"""Which dev queries measure models, over which documents."""

from __future__ import annotations

import pytest

from mlr_rag.specializing.measuring import Measuring
from tests.specializing.gathered import CORPUS, COUNT, DEV, FOUND, gathered


@pytest.fixture
def measuring() -> Measuring:
    return Measuring(gathered().searching)


@pytest.mark.parametrize("room", [350, 400])
def test_dev_queries_are_as_many_as_there_is_room_for_with_what_they_ask_for(measuring: Measuring, room: int) -> None:
    dev, pool = measuring.dev(room), measuring.pool(room)
    assert 50 < len(dev.queries) < COUNT
    assert len(pool) == room
    for query in dev.queries:
        assert {f"d{query[1:]}", *list(FOUND[query])[:5]} <= pool.keys()


def test_fifty_are_the_least_and_what_they_ask_for_is_known_before(measuring: Measuring) -> None:
    dev = measuring.dev(10)
    assert len(dev.queries) == 50
    assert measuring.least == len({id for query in dev.queries for id in (f"d{query[1:]}", *list(FOUND[query])[:5])})
    assert dev.queries.keys() <= measuring.dev(measuring.least).queries.keys()


def test_all_of_them_where_there_is_room(measuring: Measuring) -> None:
    assert measuring.dev(len(CORPUS)) == DEV
    assert measuring.pool(len(CORPUS)) == CORPUS
