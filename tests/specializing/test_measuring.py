"""Which dev queries measure models, over which documents."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlr_rag.specializing.measuring import Measuring
from tests.specializing.gathered import CORPUS, COUNT, DEV, FOUND, gathered


def _with_room(room: int) -> Measuring:
    return Measuring(gathered(plan=SimpleNamespace(dev_documents=room)))


@pytest.mark.parametrize("room", [350, 400])
def test_dev_queries_are_as_many_as_there_is_room_for_with_what_they_ask_for(room: int) -> None:
    measuring = _with_room(room)
    assert 50 < len(measuring.dev.queries) < COUNT
    assert len(measuring.pool) == room
    for query in measuring.dev.queries:
        assert {f"d{query[1:]}", *list(FOUND[query])[:5]} <= measuring.pool.keys()


def test_fifty_are_the_least() -> None:
    measuring = _with_room(10)
    assert len(measuring.dev.queries) == 50
    assert len(measuring.pool) <= 100, "each asks for its own, and one more"


def test_all_of_them_where_there_is_room() -> None:
    measuring = _with_room(len(CORPUS))
    assert measuring.dev == DEV
    assert measuring.pool == CORPUS
