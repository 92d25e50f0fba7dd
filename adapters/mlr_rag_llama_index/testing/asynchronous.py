"""The async twins: the same store, the same answers, and an event loop that goes on turning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from llama_index.core.vector_stores.types import BasePydanticVectorStore

from mlr_rag_llama_index.testing.base import Suite, ids_of, node, passages
from mlr_rag_llama_index.testing.removing import SMALL, TWO_OR_TWELVE


class Asynchronous(Suite):
    """Each test runs its own event loop, so that no plugin is needed."""

    def test_async_add(self, store: BasePydanticVectorStore) -> None:
        nodes = self.embedded(passages(5))
        assert asyncio.run(store.async_add(nodes)) == [node.node_id for node in nodes]
        assert set(self.held(store)) == ids_of(nodes)

    def test_aquery(self, store: BasePydanticVectorStore) -> None:
        self.filled(store, passages(20))
        assert asyncio.run(store.aquery(self.question(5, filters=SMALL))) == store.query(
            self.question(5, filters=SMALL)
        )

    def test_adelete(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(8))
        asyncio.run(store.adelete("document 1"))
        assert set(self.held(store)) == ids_of(node for node in nodes if node.ref_doc_id != "document 1")

    def test_aget_nodes(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        wanted = [nodes[2].node_id, nodes[15].node_id]
        assert ids_of(asyncio.run(store.aget_nodes(node_ids=wanted))) == set(wanted)
        assert ids_of(asyncio.run(store.aget_nodes(node_ids=wanted, filters=TWO_OR_TWELVE))) == {wanted[0]}

    def test_adelete_nodes(self, store: BasePydanticVectorStore) -> None:
        nodes = self.filled(store, passages(20))
        asyncio.run(store.adelete_nodes(node_ids=[nodes[2].node_id]))
        assert set(self.held(store)) == ids_of(nodes) - {nodes[2].node_id}
        asyncio.run(store.adelete_nodes(node_ids=[nodes[12].node_id, nodes[13].node_id], filters=TWO_OR_TWELVE))
        assert set(self.held(store)) == ids_of(nodes) - {nodes[2].node_id, nodes[12].node_id}

    def test_aclear(self, store: BasePydanticVectorStore) -> None:
        self.filled(store, passages(5))
        asyncio.run(store.aclear())
        again = self.filled(store, [node("afterwards")])
        assert set(self.held(store)) == ids_of(again)

    def test_the_event_loop_turns_meanwhile(self, store: BasePydanticVectorStore) -> None:
        """A twin that calls the blocking method, as the base class does, never lets another task run."""
        nodes = self.filled(store, passages(5))
        calls: dict[Callable[..., Awaitable[Any]], tuple[Any, ...]] = {
            store.async_add: (self.embedded([node("another")]),),
            store.aquery: (self.question(3),),
            store.aget_nodes: ([nodes[0].node_id],),
            store.adelete: ("document 1",),
            store.adelete_nodes: ([nodes[0].node_id],),
            store.aclear: (),
        }
        blocking = [call.__name__ for call, arguments in calls.items() if not asyncio.run(_turns(call, *arguments))]
        assert blocking == []

    def test_calls_at_once_answer_as_one_by_one(self, store: BasePydanticVectorStore) -> None:
        self.filled(store, passages(50))
        questions = [self.question(5, f"question {n}") for n in range(50)]

        async def at_once() -> list[Any]:
            return await asyncio.gather(*(store.aquery(question) for question in questions))

        assert [found.ids for found in asyncio.run(at_once())] == [store.query(one).ids for one in questions]


async def _turns(call: Callable[..., Awaitable[Any]], *arguments: Any) -> int:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(count())
    await call(*arguments)
    counted = turns
    other.cancel()
    return counted
