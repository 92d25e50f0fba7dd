from __future__ import annotations

import numpy as np
import pytest

from mlr_rag import Document, InvalidInputError, Retriever
from mlr_rag.diversity import diversify
from mlr_rag.memory import MemoryStore
from mlr_rag.stores import Match, Record
from mlr_rag.testing import HashEncoder


def match(id: str, vector: list[float], query: tuple[float, ...] = (1, 0)) -> Match:
    row = np.array(vector, np.float32)
    return Match(Record(Document("text", id), row), float(row @ np.array(query)))


# a and b are twins; c is farther from the query (1, 0), on the other side.
TWINS = [match("a", [0.96, 0.28]), match("b", [0.936, 0.352]), match("c", [0.8, -0.6])]


@pytest.mark.parametrize(("diversity", "order"), [(0.0, "abc"), (0.1, "abc"), (0.5, "acb"), (1.0, "acb")])
def test_by_hand(diversity: float, order: str) -> None:
    # After a, b scores .936 (1 - x) - .997 x and c .8 (1 - x) - .6 x: they change places at x = .255.
    assert "".join(each.record.document.id for each in diversify(TWINS, 3, diversity)) == order


def test_fewer_than_asked_for() -> None:
    assert diversify([], 3, 0.5) == []
    assert diversify(TWINS[:1], 3, 0.5) == TWINS[:1]
    assert len(diversify(TWINS, 2, 0.5)) == 2


def test_of_several_vectors_the_nearest_count() -> None:
    def several(id: str, score: float, *rows: list[float]) -> Match:
        return Match(Record(Document("text", id), np.array(rows, np.float32)), score)

    one = several("one", 0.9, [1, 0], [0, 1])
    near = several("near", 0.8, [-1, 0], [0, 1])  # its second row is one's second row
    far = several("far", 0.7, [-1, 0], [0, -1])
    assert [each.record.document.id for each in diversify([one, near, far], 2, 1.0)] == ["one", "far"]


@pytest.mark.parametrize("diversity", [-0.1, 1.1, "0.5", True, float("nan")])
def test_out_of_range(diversity: object) -> None:
    with Retriever(HashEncoder(), MemoryStore(16)) as kb, pytest.raises(InvalidInputError, match="diversity"):
        kb.search("x", diversity=diversity)  # type: ignore[arg-type]


def test_modes_that_are_not_there() -> None:
    with Retriever(HashEncoder(), MemoryStore(16)) as kb, pytest.raises(InvalidInputError, match="no such mode"):
        kb.search("x", mode="hybrid")


def test_candidates() -> None:
    with Retriever(HashEncoder(), MemoryStore(16)) as kb:
        kb.add([f"text {i}" for i in range(50)])
        plain = kb.search("x", 50)
        chosen = kb.search("x", 5, diversity=1, candidates=5)
        assert {hit.document.id for hit in chosen} == {hit.document.id for hit in plain[:5]}
        assert kb.search("x", 5, diversity=1, candidates=1) == kb.search("x", 5, diversity=1, candidates=5)
        for wrong in ({"diversity": 1, "candidates": 0}, {"candidates": 50}):
            with pytest.raises(InvalidInputError, match="candidates"):
                kb.search("x", 5, **wrong)


def test_a_threshold_comes_before_the_choice() -> None:
    with Retriever(HashEncoder(), MemoryStore(16)) as kb:
        kb.add([f"text {i}" for i in range(50)])
        plain = kb.search("x", 20)
        chosen = kb.search("x", 5, diversity=1, candidates=20, min_score=plain[5].score)
        assert {hit.document.id for hit in chosen} < {hit.document.id for hit in plain[:6]}
        assert len(chosen) == 5
