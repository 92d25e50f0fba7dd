"""A collection moves to another model, and back. Kills are tried for every store in the conformance suite."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mlr_rag import Document, InvalidInputError, ModelMismatchError, Retriever, StoreLockedError
from mlr_rag.errors import StoreClosedError, StoreError, StoreNotFoundError
from mlr_rag.gate import gate_of
from mlr_rag.memory import MemoryStore
from mlr_rag.stores import open_store
from mlr_rag.testing import HashEncoder
from mlr_rag_edge import EdgeStore

OLD, NEW = "1", "2"


def documents(count: int = 20) -> list[Document]:
    return [Document(f"text {i}", str(i), {"n": i}) for i in range(count)]


@pytest.fixture
def kb(tmp_path: Path) -> Iterator[Retriever]:
    """20 documents, in a folder, with the old model."""
    with Retriever(HashEncoder(8, OLD), EdgeStore(tmp_path / "kb", 8)) as kb:
        kb.add(documents())
        yield kb


class Waiting(HashEncoder):
    """Stops at its first batch of documents until it is let go."""

    def __init__(self) -> None:
        super().__init__(16, NEW)
        self.reached, self.go = threading.Event(), threading.Event()

    def encode_document(self, inputs: Sequence[str]) -> np.ndarray:
        if inputs and inputs[0].startswith("text"):
            self.reached.set()
            assert self.go.wait(30)
        return super().encode_document(inputs)


def test_searches_and_writes_go_on_and_both_generations_get_them(kb: Retriever) -> None:
    new = Waiting()
    migration = threading.Thread(target=kb.reindex, args=(new,))
    migration.start()
    assert new.reached.wait(30)
    before = kb.search("text 3", 5)
    assert len(before) == 5
    assert kb.model.version == OLD
    assert kb.add([Document("text of a new one", "new")]).added == 1
    assert kb.delete(["3"]) == 1
    assert kb.get("new")[0].text == "text of a new one"
    new.go.set()
    migration.join(30)
    assert kb.model is new
    assert {d.id for batch in kb.store.scan() for d in [r.document for r in batch]} == {
        *(str(i) for i in range(20) if i != 3),
        "new",
    }
    old = kb.store.beside(1)
    assert len(old.get(["new", "3"])) == 1
    old.close()


def test_a_long_add_goes_on_through_the_switch(kb: Retriever) -> None:
    """Its later batches are encoded by the new model."""
    switched = threading.Event()

    def endless() -> Iterator[Document]:
        for i in range(3000):
            if i == 2500:
                kb.reindex(HashEncoder(16, NEW))
                switched.set()
            yield Document(f"streamed {i}", f"s{i}")

    report = kb.add(endless())
    assert switched.is_set()
    assert (report.added, kb.count(), kb.store.generation) == (3000, 3020, 2)
    encoder = HashEncoder(16, NEW)
    for batch in kb.store.scan(with_vectors=True):
        vectors = encoder.encode_document([record.document.text for record in batch])
        np.testing.assert_allclose([record.vector for record in batch], vectors, atol=1e-6)


def test_what_is_there_is_not_encoded_again(kb: Retriever) -> None:
    new = HashEncoder(16, NEW)
    prepared = kb.reindex(new, switch=False)
    assert (prepared.switched, prepared.encoded, kb.store.generation) == (False, 20, 1)
    assert kb.model.version == OLD
    kb.add([Document("one more", "more")])
    done = kb.reindex(new)
    assert (done.switched, done.encoded, done.documents, kb.store.generation) == (True, 1, 21, 2)
    again = kb.reindex(new)
    assert (again.switched, again.encoded, again.generation) == (False, 0, 2)


def test_comparing_both_models(kb: Retriever) -> None:
    same = kb.reindex(HashEncoder(16, NEW), compare=["text 1", "text 2"], switch=False).comparison
    assert same is not None
    assert (same.queries, same.before) == (2, {})
    assert 0 <= same.overlap <= 1
    best = kb.search("a question", 1)[0].document.id
    judged = kb.reindex(HashEncoder(16, NEW), compare={"a question": {best: 1}}).comparison
    assert judged is not None
    assert judged.before["mrr@10"] == 1
    assert judged.after["mrr@10"] < 1
    assert judged.same_first == 0


def test_no_queries_to_compare_with_changes_nothing(kb: Retriever) -> None:
    for wrong in ([], 3, "a question", ["  "], {"a question": ["1"]}, {"a question": {"1": "high"}}):
        with pytest.raises(InvalidInputError):
            kb.reindex(HashEncoder(16, NEW), compare=wrong)  # type: ignore[arg-type]
    assert kb.store.generations() == [1]


def test_another_handle_searches_on_and_is_told_when_it_writes(kb: Retriever) -> None:
    other = Retriever(HashEncoder(8, OLD), open_store(kb.store.url))
    answers = other.search("a question", 5)
    kb.reindex(HashEncoder(16, NEW))
    assert other.search("a question", 5) == answers
    for write in (lambda: other.add(["more"]), lambda: other.delete(["1"])):
        with pytest.raises(ModelMismatchError, match="was migrated") as error:
            write()
        assert "Open it again" in error.value.remedy
    with pytest.raises(ModelMismatchError, match="was migrated"):
        other.reindex(HashEncoder(16, "3"))
    kb.prune()
    with pytest.raises(StoreClosedError):
        other.search("a question", 5)
    other.close()


def test_a_search_under_way_while_its_generation_is_pruned(kb: Retriever) -> None:
    """It is asked again of what is current."""

    class Slow(HashEncoder):
        def encode_query(self, inputs: Sequence[str]) -> np.ndarray:
            if inputs == ["a question"] and kb.store.generation == 1:
                kb.reindex(HashEncoder(16, NEW))
                kb.prune()
            return super().encode_query(inputs)

    with Retriever(Slow(8, OLD), open_store(kb.store.url)) as other:
        kb._pair.encoder = other.model
        kb.search("text 1")
        hits = kb.search("a question", 5)
    with Retriever(HashEncoder(16, NEW), MemoryStore(16)) as reference:
        reference.add(documents())
        assert [hit.document for hit in hits] == [hit.document for hit in reference.search("a question", 5)]


def test_opening_after_a_migration(kb: Retriever, tmp_path: Path) -> None:
    kb.reindex(HashEncoder(16, NEW))
    kb.close()
    with pytest.raises(ModelMismatchError):
        Retriever.open(tmp_path / "kb", HashEncoder(8, OLD))
    with Retriever.open(tmp_path / "kb", HashEncoder(16, NEW)) as again:
        assert again.count() == 20


def test_rollback_brings_later_changes_along(kb: Retriever) -> None:
    answers = kb.search("a question", 5)
    kb.reindex(HashEncoder(16, NEW))
    unchanged = kb.rollback(HashEncoder(8, OLD))
    assert (unchanged.encoded, unchanged.deleted) == (0, 0)
    assert kb.search("a question", 5) == answers
    kb.reindex(HashEncoder(16, NEW))
    kb.add([Document("added since", "since")])
    kb.delete(["1"])
    back = kb.rollback(HashEncoder(8, OLD))
    assert (back.encoded, back.deleted, back.documents) == (1, 1, 20)
    assert kb.get(["since", "1"]) == [Document("added since", "since")]


def test_rollback_with_another_model_is_refused(kb: Retriever) -> None:
    kb.reindex(HashEncoder(16, NEW))
    with pytest.raises(ModelMismatchError):
        kb.rollback(HashEncoder(8, "3"))
    assert kb.store.current() == 2
    assert len(kb.search("a question", 5)) == 5


def test_nothing_to_roll_back_to(kb: Retriever) -> None:
    with pytest.raises(StoreNotFoundError, match=r"no reindex\(\) has encoded"):
        kb.rollback()
    kb.reindex(HashEncoder(16, NEW))
    kb.prune()
    with pytest.raises(StoreNotFoundError, match="generation 1 was pruned"):
        kb.rollback()


def test_a_migration_given_up_for_another_model(kb: Retriever) -> None:
    kb.reindex(HashEncoder(16, NEW), switch=False)
    assert kb.reindex(HashEncoder(24, "3")).generation == 3
    assert kb.store.generations() == [1, 2, 3]
    assert kb.prune() == 2


def test_a_number_is_not_used_again(kb: Retriever) -> None:
    """A handle elsewhere on a generation that was pruned must not meet another model's vectors under its number."""
    kb.reindex(HashEncoder(16, NEW))
    kb.rollback(HashEncoder(8, OLD))
    assert [kb.prune(), kb.prune()] == [1, 0]
    assert kb.reindex(HashEncoder(24, "3")).generation == 3


def test_one_migration_at_a_time(kb: Retriever) -> None:
    gate = gate_of(kb.store)
    with gate.migrating:
        for call in (lambda: kb.reindex(HashEncoder(16, NEW)), kb.rollback, kb.prune):
            with pytest.raises(StoreLockedError, match="being migrated"):
                call()


def test_a_kill_right_after_the_switch(kb: Retriever) -> None:
    """What another process wrote just before the switch, and the last look did not get to."""
    kb.reindex(HashEncoder(16, NEW))
    old = kb.store.beside(1)
    with Retriever(HashEncoder(8, OLD), MemoryStore(8)) as elsewhere:
        elsewhere.add([Document("written late", "late")])
        old.upsert(elsewhere.store.get(["late"], with_vectors=True))
    old.close()
    kb.store.write_info({**(kb.store.info or {}), "settling": 1})
    kb.delete(["5"])
    for call in (kb.prune, kb.rollback):
        with pytest.raises(StoreError, match="cut off just after"):
            call()
    done = kb.reindex(HashEncoder(16, NEW))
    assert (done.switched, done.encoded) == (True, 2)
    assert [document.id for document in kb.get(["late", "5"])] == ["late", "5"], "nothing is lost; a deletion may be"
    assert "settling" not in (kb.store.info or {})


def test_writes_of_another_process_around_the_switch(kb: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither gate nor lock holds up a writer in another process: its write, acknowledged or not, is not lost."""
    other = EdgeStore(kb.store.url.removeprefix("edge:"))
    vectors = HashEncoder(8, OLD).encode_document(["late", "text 4, changed"])
    switch = EdgeStore.switch

    def late(self: EdgeStore, generation: int) -> None:
        assert (self.info or {})["settling"] == 1, "a kill from here on must not go unnoticed"
        switch(self, generation)
        template = other.get(["1"], with_vectors=True)[0]
        for document, vector in zip([Document("late", "late"), Document("text 4, changed", "4")], vectors, strict=True):
            other.upsert([type(template)(document, vector)])
        other.delete(ids=["7"])

    monkeypatch.setattr(EdgeStore, "switch", late)
    kb.reindex(HashEncoder(16, NEW))
    assert [document.text for document in kb.get(["late", "4", "7"])] == ["late", "text 4, changed"]
    other.close()


async def test_the_async_twins(kb: Retriever) -> None:
    assert (await kb.areindex(HashEncoder(16, NEW))).switched
    assert (await kb.arollback(HashEncoder(8, OLD))).switched
    searches = [kb.asearch("a question", 3) for _ in range(5)]
    results = await asyncio.gather(kb.areindex(HashEncoder(16, NEW)), *searches)
    assert all(len(hits) == 3 for hits in results[1:])
    assert await kb.aprune() == 1


def test_several_vectors_a_document(tmp_path: Path) -> None:
    class Layers(HashEncoder):
        vectors_per_document = 3

        def encode_document(self, inputs: Sequence[str]) -> np.ndarray:
            return np.stack([super(Layers, self).encode_document([f"{i} {t}" for t in inputs]) for i in range(3)], 1)

    with Retriever(HashEncoder(8, OLD), EdgeStore(tmp_path / "kb", 8)) as kb:
        kb.add(documents())
        assert kb.reindex(Layers(8, NEW)).encoded == 20
        assert kb.store.vectors_per_document == 3
        assert len(kb.search("a question", 3, diversity=0.5)) == 3


def test_another_process_switches_first(kb: Retriever) -> None:
    """Two of them move one collection, as in a rolling deployment: what the first has taken since is not deleted."""
    url = kb.store.url

    class Overtaken(HashEncoder):
        def encode_document(self, inputs: Sequence[str]) -> np.ndarray:
            if inputs and inputs[0].startswith("text") and kb.store.generation == 1:
                gate_of(kb.store).migrating.release()  # which the other process knows nothing of
                kb.reindex(HashEncoder(16, NEW))
                kb.add([Document("new", "new")])
                gate_of(kb.store).migrating.acquire()
            return super().encode_document(inputs)

    with Retriever(HashEncoder(8, OLD), open_store(url)) as other, pytest.raises(ModelMismatchError, match="migrated"):
        other.reindex(Overtaken(24, "3"))
    assert kb.store.current() == kb.store.generation
    assert [document.id for document in kb.get(["new"])] == ["new"]


def test_a_collection_made_again_with_another_model(tmp_path: Path) -> None:
    """On a server a handle may outlive its collection: what it writes to another model's is not acknowledged."""
    store = MemoryStore(8)
    with Retriever(HashEncoder(8, OLD), store) as kb:
        kb.add(["one"])
        other = Retriever(HashEncoder(8, NEW), MemoryStore(8))
        store.write_info(other.store.info or {})
        with pytest.raises(ModelMismatchError, match="made again with another model"):
            kb.add(["two"])


def test_a_model_that_cannot_encode_leaves_no_lock(kb: Retriever, tmp_path: Path) -> None:
    class Broken(HashEncoder):
        def encode_query(self, inputs: Sequence[str]) -> np.ndarray:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        kb.reindex(Broken(16, NEW))
    kb.close()
    code = f"from mlr_rag_edge import EdgeStore; EdgeStore({str(tmp_path / 'kb')!r}).close()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_after_pruning_nothing_is_kept(kb: Retriever) -> None:
    store = MemoryStore(8)
    with Retriever(HashEncoder(8, OLD), store) as memory:
        memory.add(documents())
        memory.reindex(HashEncoder(16, NEW))
        assert memory.prune() == 1
        assert memory._left == []
        assert store._data.records == {}


def test_collections_in_memory_do_not_share_a_gate() -> None:
    assert gate_of(MemoryStore(8)) is not gate_of(MemoryStore(8))
    store = MemoryStore(8)
    assert gate_of(store) is gate_of(store.beside(1))
