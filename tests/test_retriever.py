"""Retriever: add, sync, search and their twins, over a memory store and a fake encoder unless it matters."""

from __future__ import annotations

import asyncio
import enum
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from mlr_rag import Document, Hit, InvalidInputError, MLRModel, Retriever, StoreError
from mlr_rag import ingest as ingest_module
from mlr_rag.errors import DuplicateIdError, InvalidDocumentError, ModelMismatchError, StoreClosedError
from mlr_rag.memory import MemoryStore
from mlr_rag.stores import Record
from mlr_rag.testing import HashEncoder
from tests.tiny import tokenizer


@pytest.fixture
def kb(encoder: HashEncoder) -> Iterator[Retriever]:
    with Retriever(encoder, MemoryStore(16)) as kb:
        encoder.encoded.clear()  # the canaries
        yield kb


def documents(n: int, version: str = "") -> list[Document]:
    return [Document(f"text {i}{version}", f"id {i}", {"n": i}) for i in range(n)]


def test_add_counts_what_it_did(kb: Retriever, encoder: HashEncoder) -> None:
    report = kb.add(documents(10))
    assert (report.added, report.updated, report.skipped, report.deleted, report.cut) == (10, 0, 0, 0, 0)
    assert report.seconds > 0
    changed = [*documents(5), Document("new text", "id 5"), Document("text 6", "id 6", {"n": 7}), Document("more", "x")]
    encoder.encoded.clear()
    report = kb.add(changed)
    assert (report.added, report.updated, report.skipped) == (1, 2, 5)
    assert encoder.encoded == ["new text", "text 6", "more"], "unchanged documents are not encoded"
    assert kb.get("id 5") == [Document("new text", "id 5")]
    assert kb.count() == 11


def test_add_takes_what_users_have(kb: Retriever) -> None:
    assert kb.add("one text").added == 1
    assert kb.add(Document("a document")).added == 1
    assert kb.add(["one text", Document("b")]).skipped == 1
    assert kb.add(text for text in ("c", "d")).added == 2
    assert kb.add(("e",)).added == 1
    assert kb.add([]).added == 0
    assert kb.count() == 6


def test_the_default_id_is_the_content(kb: Retriever) -> None:
    kb.add(["same", "same", Document("same", metadata={"a": 1})])
    assert kb.count() == 2
    report = kb.add(["same", "same"])
    assert (report.added, report.skipped) == (0, 2)
    assert Document("t", metadata={"a": 1, "b": 2}).id == Document("t", metadata={"b": 2, "a": 1}).id
    assert len({Document("t", metadata=m).id for m in ({}, {"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": None})}) == 5


def test_sync_makes_the_collection_what_came(kb: Retriever) -> None:
    kb.add(documents(10))
    report = kb.sync([*documents(4), Document("new", "x")])
    assert (report.added, report.skipped, report.deleted) == (1, 4, 6)
    assert kb.count() == 5
    assert kb.sync([*documents(4), Document("new", "x")]).deleted == 0


def test_sync_within_a_filter(kb: Retriever) -> None:
    kb.add([Document(f"{root} {i}", metadata={"root": root}) for root in "ab" for i in range(5)])
    report = kb.sync([Document("a 0", metadata={"root": "a"})], within={"root": "a"})
    assert report.deleted == 4
    assert kb.count({"root": "b"}) == 5


def test_sync_keeps_what_it_is_asked_to_keep(kb: Retriever) -> None:
    kb.add(documents(10))
    report = kb.sync(documents(2), keep=lambda document: document.metadata["n"] == 7)
    assert report.deleted == 7
    assert kb.get("id 7")


def test_sync_of_a_source_that_fails_deletes_nothing(kb: Retriever) -> None:
    kb.add(documents(10))

    def source() -> Iterator[Document]:
        yield Document("new", "x")
        raise OSError("the share went away")

    with pytest.raises(OSError, match="went away"):
        kb.sync(source())
    assert kb.count() == 11, "what was read is kept"


def test_sync_of_nothing_is_refused(kb: Retriever) -> None:
    kb.add(documents(3))
    with pytest.raises(InvalidInputError, match="would delete all"):
        kb.sync([])
    assert kb.count() == 3


def test_search(kb: Retriever, encoder: HashEncoder) -> None:
    kb.add(documents(50))
    query = encoder.encode_query(["a question"])[0]
    scores = {d.id: float(encoder.encode_document([d.text])[0] @ query) for d in documents(50)}
    hits = kb.search("a question", k=5)
    assert [hit.document.id for hit in hits] == sorted(scores, key=scores.__getitem__, reverse=True)[:5]
    assert isinstance(hits[0], Hit)
    assert hits[0].score == pytest.approx(scores[hits[0].document.id], abs=1e-6)
    assert len(kb.search("a question")) == 4
    assert kb.search("a question", k=50, min_score=hits[2].score)[-1] == hits[2], "the threshold is inclusive"
    assert [hit.document.id for hit in kb.search("a question", filter={"n": 7})] == ["id 7"]


def test_search_many_is_search(kb: Retriever) -> None:
    kb.add(documents(30))
    queries = ["one", "two", "three"]
    assert kb.search_many(queries, k=3) == [kb.search(query, k=3) for query in queries]
    assert kb.search_many([]) == []


def test_queries_are_encoded_as_queries(tiny_model_dir: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, pooling="mean", start="paper")
    store = MemoryStore(32)
    Retriever(model, store).add(["paris", "water", "the bridge"])
    stored = {record.document.text: record.vector for batch in store.scan(with_vectors=True) for record in batch}
    for text, vector in stored.items():
        np.testing.assert_allclose(vector, model.encode_document(text), atol=1e-6)
    hit = Retriever(model, store).search("paris", k=3)[0]
    expected = max(float(vector @ model.encode_query("paris")) for vector in stored.values())
    assert hit.score == pytest.approx(expected, abs=1e-5)


def test_a_model_left_in_training_mode_writes_no_noise(tiny_model: MLRModel) -> None:
    """Dropout belongs to training; a document's vector does not."""
    expected = tiny_model.encode_document("paris is the capital")
    tiny_model.train()
    store = MemoryStore(32)
    Retriever(tiny_model, store)
    tiny_model.train()
    Retriever(tiny_model, store).add("paris is the capital")
    ((record,),) = store.scan(with_vectors=True)
    np.testing.assert_allclose(record.vector, expected, atol=1e-6)


def test_cut_documents_of_a_plain_sentence_transformer_are_counted(tiny_model_dir: Path) -> None:
    plain = SentenceTransformer(str(tiny_model_dir), device="cpu")
    assert Retriever(plain, MemoryStore(32)).add(["short", "the long river " * 50]).cut == 1


def test_sentence_transformers_of_other_kinds(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A Router, as a portable export is, and a model without a transformer."""
    model = MLRModel.from_pretrained(tiny_model_dir, start="paper")
    model.export_portable(tmp_path / "portable")
    kb = Retriever(SentenceTransformer(str(tmp_path / "portable"), device="cpu"), MemoryStore(32))
    kb.add(["paris is the capital", "water boils"])
    assert "accepted" in Retriever(model, kb.store).info().note
    static = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer().backend_tokenizer, embedding_dim=16)], device="cpu"
    )
    kb = Retriever(static, MemoryStore(16))
    kb.add(["paris is the capital", "water boils"])
    assert kb.search("water boils", k=1)[0].document.text == "water boils"


def test_a_model_with_a_prompt_for_passages(tiny_model_dir: Path) -> None:
    """Some models call their documents passages; `add` must encode them as `encode_document` does."""
    model = MLRModel.from_pretrained(tiny_model_dir)
    model.prompts = {"query": "what is ", "passage": "page: "}
    store = MemoryStore(32)
    Retriever(model, store).add("paris")
    ((record,),) = store.scan(with_vectors=True)
    np.testing.assert_allclose(record.vector, model.encode_document("paris"), atol=1e-6)
    assert np.abs(record.vector - model.encode("paris")).max() > 1e-3


def test_a_source_that_adds_itself(kb: Retriever) -> None:
    """An iterable may use the retriever that reads it."""

    def source() -> Iterator[str]:
        yield "one"
        kb.add("two")
        yield "three"

    assert kb.add(source()).added == 2
    assert kb.count() == 3


def test_long_documents_come_in_smaller_windows(encoder: HashEncoder) -> None:
    windows: list[int] = []

    class Watching(MemoryStore):
        def hashes(self, ids: Any) -> dict[str, str]:
            windows.append(len(ids))
            return super().hashes(ids)

    Retriever(encoder, Watching(16)).add(f"{i} " + "x" * 100_000 for i in range(100))
    assert max(windows) <= 20


def test_documents_are_values() -> None:
    one, same = Document("a", metadata={"b": [1]}), Document("a", metadata={"b": [1]})
    assert len({one, same}) == 1
    assert one != Document("a", metadata={"b": [2]})
    given = {"b": [1]}
    held = Document("a", metadata=given)
    given["b"].append(2)
    assert held.metadata == {"b": [1]}, "a copy"
    kb = Retriever(HashEncoder(), MemoryStore(16))
    changing = Document("a", "x")
    kb.add(changing)
    changing.metadata["year"] = 2020
    assert kb.add(changing).updated == 1, "what it holds counts, not what it once held"


def test_cut_documents_are_counted(tiny_model: MLRModel, caplog: pytest.LogCaptureFixture) -> None:
    kb = Retriever(tiny_model, MemoryStore(32))
    assert kb.add(["short", "the long river " * 50, "the old bridge " * 50]).cut == 2
    assert [r.getMessage()[:34] for r in caplog.records] == ["2 of 3 texts are longer than the 6"]


def test_many_vectors_a_document(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3), pooling="multi_vector")
    texts = ["paris is the capital", "water boils", "the old bridge"]
    expected = model.similarity(model.encode_query(["paris"]), model.encode_document(texts))[0]
    for url in ("memory:", str(tmp_path / "kb")):
        with Retriever.open(url, model) as kb:
            kb.add(texts)
            hits = kb.search("paris", k=3)
            assert [hit.document.text for hit in hits] == [texts[i] for i in expected.argsort(descending=True)]
            np.testing.assert_allclose([hit.score for hit in hits], expected.sort(descending=True).values, atol=1e-5)


def test_get_delete_count(kb: Retriever) -> None:
    kb.add(documents(10))
    assert kb.get(["id 3", "no", "id 1"]) == [documents(4)[3], documents(2)[1]]
    assert kb.get("id 3") == kb.get(["id 3"])
    assert kb.delete("id 0") == 1
    assert kb.delete(["id 1", "id 2", "no"]) == 2
    assert kb.delete(filter={"n": {"$gte": 8}}) == 2
    assert kb.count() == 5
    assert kb.count({"n": {"$lt": 5}}) == 2


def test_delete_never_means_all(kb: Retriever) -> None:
    kb.add(documents(3))
    for arguments in ({}, {"filter": {}}, {"ids": ["id 0"], "filter": {"n": 1}}):
        with pytest.raises(InvalidInputError):
            kb.delete(**arguments)
    assert kb.count() == 3


def test_info(kb: Retriever, encoder: HashEncoder) -> None:
    kb.add(documents(3))
    info = kb.info()
    assert (info.url, info.count, info.model) == ("memory:", 3, "hash-encoder")
    assert (info.fingerprint, info.dimension, info.note) == ("hash-encoder-1", 16, "")


def test_closed(encoder: HashEncoder) -> None:
    with Retriever(encoder, MemoryStore(16)) as kb:
        pass
    kb.close()
    for call in (kb.count, lambda: kb.search("x"), lambda: kb.add("x"), kb.info):
        with pytest.raises(StoreClosedError):
            call()


# -- streaming ---------------------------------------------------------------------------------------------------


def test_a_broken_item_in_a_list_changes_nothing(kb: Retriever) -> None:
    with pytest.raises(InvalidDocumentError, match=r"item 5,000.*NoneType"):
        kb.add([*(f"text {i}" for i in range(5000)), None])  # type: ignore[list-item]
    assert kb.count() == 0


def test_a_broken_item_in_a_stream_keeps_what_came_before(kb: Retriever) -> None:
    with pytest.raises(InvalidDocumentError, match="item 5,000"):
        kb.add(itertools.chain((f"text {i}" for i in range(5000)), [""]))
    assert kb.count() == 5000
    assert kb.add(f"text {i}" for i in range(5000)).skipped == 5000


def test_two_documents_with_one_id(kb: Retriever) -> None:
    with pytest.raises(DuplicateIdError, match="found x"):
        kb.add([Document("one", "x"), Document("two", "x")])
    assert kb.count() == 0
    far_apart = (Document(f"{i}", "x" if i in (0, 5000) else f"id {i}") for i in range(5001))
    with pytest.raises(DuplicateIdError):
        kb.add(far_apart)
    report = kb.add([Document("one", "y"), Document("one", "y")])
    assert (report.added, report.skipped) == (1, 1), "the same document twice is no contradiction"


def test_reading_encoding_and_writing_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a window is encoded, the next is read and the one before is written."""
    monkeypatch.setattr(ingest_module, "WINDOW", 8)
    monkeypatch.setattr(ingest_module, "_WRITE", 8)
    busy: set[str] = set()
    seen: set[frozenset[str]] = set()
    lock = threading.Lock()

    class Busy:
        def __init__(self, what: str) -> None:
            self.what = what

        def __enter__(self) -> None:
            with lock:
                busy.add(self.what)
                seen.add(frozenset(busy))
            time.sleep(0.02)
            with lock:
                seen.add(frozenset(busy))

        def __exit__(self, *_: object) -> None:
            with lock:
                busy.discard(self.what)

    class SlowEncoder(HashEncoder):
        def encode_document(self, inputs: Any) -> np.ndarray:
            with Busy("encode"):
                return super().encode_document(inputs)

    class SlowStore(MemoryStore):
        def upsert(self, records: Any) -> None:
            with Busy("write"):
                super().upsert(records)

    def read() -> Iterator[str]:
        for i in range(80):
            if i % 8 == 0:
                with Busy("read"):
                    pass
            yield f"text {i}"

    with Retriever(SlowEncoder(), SlowStore(16)) as kb:
        seen.clear()
        assert kb.add(read()).added == 80
    assert any({"read", "encode"} <= together for together in seen)
    assert any({"encode", "write"} <= together or {"read", "write"} <= together for together in seen)


def test_memory_stays_flat(encoder: HashEncoder) -> None:
    """At most two windows are held, however long the iterable is."""
    alive = 0
    most = 0

    class Text(str):
        def __new__(cls, value: str) -> Text:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, value)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    class Forgetful(MemoryStore):
        def upsert(self, records: Any) -> None:
            self.written = getattr(self, "written", 0) + len(records)

    store = Forgetful(16)
    with Retriever(encoder, store) as kb:
        encoder.encoded = _Nothing()
        kb.add(Text(f"text {i}") for i in range(20_000))
    assert store.written == 20_000
    assert most <= 4 * ingest_module.WINDOW


class _Nothing(list[str]):
    def extend(self, _: Any) -> None:
        """Keep nothing, so that only the pipeline holds texts."""


def test_a_failing_store_stops_the_ingest(encoder: HashEncoder) -> None:
    class Failing(MemoryStore):
        def upsert(self, records: list[Record]) -> None:  # type: ignore[override]
            if self.count() >= 512:
                raise StoreError("the disk broke")
            super().upsert(records)

    kb = Retriever(encoder, Failing(16))
    with pytest.raises(StoreError, match="the disk broke"):
        kb.add(f"text {i}" for i in range(50_000))
    assert kb.count() == 512
    assert len(encoder.encoded) < 10_000, "it stopped early"


def test_a_failing_model_stops_the_ingest_and_keeps_what_was_written(encoder: HashEncoder) -> None:
    class Failing(HashEncoder):
        def encode_document(self, inputs: Any) -> np.ndarray:
            if len(self.encoded) > 1000:
                raise RuntimeError("out of memory")
            return super().encode_document(inputs)

    kb = Retriever(Failing(), MemoryStore(16))
    with pytest.raises(RuntimeError, match="out of memory"):
        kb.add(f"text {i}" for i in range(50_000))
    assert kb.count() >= 256


def test_a_user_who_stops_it_keeps_what_was_written(encoder: HashEncoder) -> None:
    class Slow(HashEncoder):
        def encode_document(self, inputs: Any) -> np.ndarray:
            time.sleep(0.001)
            return super().encode_document(inputs)

    def source() -> Iterator[str]:
        for i in range(50_000):
            if i == 6000:
                raise KeyboardInterrupt
            yield f"text {i}"

    kb = Retriever(Slow(), MemoryStore(16))
    with pytest.raises(KeyboardInterrupt):
        kb.add(source())
    assert kb.count() >= 2048
    assert kb.add(f"text {i}" for i in range(7000)).skipped >= 2048


def test_stopping_does_not_wait_for_the_rest() -> None:
    """Ctrl-C while the last window is encoded stops after the batch at hand, and keeps what is encoded."""
    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes away in the background

    class Interrupting(HashEncoder):
        def encode_document(self, inputs: Any) -> np.ndarray:
            if len(self.encoded) == 320:
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(0.2)
            return super().encode_document(inputs)

    slow = Interrupting()
    kb = Retriever(slow, MemoryStore(16))
    slow.encoded.clear()
    try:
        with pytest.raises(KeyboardInterrupt):
            kb.add([f"text {i}" for i in range(2000)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(slow.encoded) < 1000
    assert kb.count() == len(slow.encoded)


# -- async and threads -------------------------------------------------------------------------------------------


async def test_async_twins(kb: Retriever) -> None:
    report = await kb.aadd(documents(10))
    assert report.added == 10
    assert await kb.asearch("q", k=3, filter={"n": {"$gt": 2}}) == kb.search("q", k=3, filter={"n": {"$gt": 2}})
    assert await kb.asearch_many(["q", "r"]) == kb.search_many(["q", "r"])
    assert await kb.aget("id 1") == kb.get("id 1")
    assert await kb.acount({"n": 1}) == 1
    assert await kb.adelete("id 0") == 1
    assert (await kb.async_(documents(3))).deleted == 7
    async with kb:
        pass
    with pytest.raises(StoreClosedError):
        await kb.acount()


async def test_the_event_loop_is_never_blocked(tmp_path: Path) -> None:
    class Slow(HashEncoder):
        def encode_document(self, inputs: Any) -> np.ndarray:
            time.sleep(0.2)
            return super().encode_document(inputs)

        def encode_query(self, inputs: Any) -> np.ndarray:
            time.sleep(0.2)
            return super().encode_query(inputs)

    kb = Retriever.open(tmp_path / "kb", Slow())
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.005)
            turns += 1

    ticking = asyncio.create_task(tick())
    await asyncio.gather(kb.aadd(documents(100)), *(kb.asearch("q") for _ in range(3)))
    ticking.cancel()
    assert turns >= 20, "the loop had hundreds of milliseconds to turn in"
    await kb.aclose()


async def test_two_hundred_coroutines(tmp_path: Path, encoder: HashEncoder) -> None:
    kb = Retriever.open(tmp_path / "kb", encoder)

    async def work(i: int) -> None:
        await kb.aadd(Document(f"text {i}", f"id {i}", {"n": i}))
        assert (await kb.aget(f"id {i}"))[0].text == f"text {i}"
        assert await kb.asearch(f"query {i}")

    await asyncio.gather(*(work(i) for i in range(200)))
    assert await kb.acount() == 200
    await kb.aclose()


# -- opening -----------------------------------------------------------------------------------------------------


def test_reopening_with_the_recorded_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Without a model, the collection's own: base, layers and pooling."""
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 3), pooling="mean", start="paper")
    with Retriever.open(tmp_path / "kb", model) as kb:
        kb.add(["paris", "water"])
    with Retriever.open(tmp_path / "kb") as kb:
        assert kb.model.layers == (1, 3)
        assert kb.info().note == ""
        assert kb.add(["paris"]).skipped == 1


def test_reopening_with_a_saved_model(tiny_model: MLRModel, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model")
    with Retriever.open(tmp_path / "kb", tmp_path / "model") as kb:
        kb.add("paris")
    with Retriever.open(f"edge:{tmp_path / 'kb'}") as kb:
        assert kb.search("paris")[0].document.text == "paris"


def test_another_model_is_refused_and_the_collection_unharmed(tmp_path: Path) -> None:
    with Retriever.open(tmp_path / "kb", HashEncoder()) as kb:
        kb.add(documents(3))
    with pytest.raises(ModelMismatchError):
        Retriever.open(tmp_path / "kb", HashEncoder(version="2"))
    with pytest.raises(ModelMismatchError, match=r"found hash-encoder.*another shape.*Open it with the model"):
        Retriever.open(tmp_path / "kb", HashEncoder(dimension=8))
    with pytest.raises(ModelMismatchError, match="gives vectors of another shape"):
        Retriever(HashEncoder(dimension=8), MemoryStore(16))
    with Retriever.open(tmp_path / "kb", HashEncoder()) as kb:
        assert kb.count() == 3


def test_importing_mlr_rag_is_light() -> None:
    """Neither torch nor a framework nor a store is imported before it is used."""
    script = """
import sys
import mlr_rag
heavy = {"torch", "transformers", "sentence_transformers", "numpy", "pydantic", "qdrant_edge", "mlr_rag_edge", "typer",
         "langchain_core", "llama_index", "chromadb", "qdrant_client"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from mlr_rag import Document, Hit, InvalidInputError, ModelMismatchError, StoreLockedError
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_public_names() -> None:
    import mlr_rag

    expected = """Document Hit InvalidInputError MLRModel MlrRagError ModelError ModelMismatchError Retriever StoreError
    StoreLockedError __version__ specialize""".split()
    assert mlr_rag.__all__ == expected
    assert all(getattr(mlr_rag, name) is not None for name in expected)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mlr_rag.nothing  # noqa: B018


def test_the_core_imports_no_adapter() -> None:
    core = Path(sys.modules["mlr_rag"].__file__ or "").parent
    for file in core.rglob("*.py"):
        text = file.read_text()
        for adapter in (
            "mlr_rag_edge",
            "langchain_core",
            "llama_index.core",
            "qdrant_client",
            "chromadb",
            "qdrant_edge",
        ):
            assert f"import {adapter}" not in text, (file, adapter)
            assert f"from {adapter}" not in text, (file, adapter)


def test_async_searches_take_turns_unless_the_model_is_remote(encoder: HashEncoder) -> None:
    class Slow(HashEncoder):
        running = most = 0

        def encode_query(self, inputs: Any) -> np.ndarray:
            type(self).running += 1
            type(self).most = max(self.most, self.running)
            time.sleep(0.02)
            type(self).running -= 1
            return super().encode_query(inputs)

    class Remote(Slow):
        remote = True
        running = most = 0

    async def at_once(kb: Retriever) -> list[list[Hit]]:
        return await asyncio.gather(*(kb.asearch("a question") for _ in range(8)))

    for kind in (Slow, Remote):
        kb = Retriever(kind(16), MemoryStore(16))
        kb.add([f"text {n}" for n in range(10)])
        for _ in range(2):  # a loop each: what the first left behind must not bind the second
            assert asyncio.run(at_once(kb)) == [kb.search("a question")] * 8
    assert Slow.most == 1
    assert Remote.most > 1


async def test_a_cancelled_search_lets_the_next_one_have_its_turn(kb: Retriever) -> None:
    kb.add(documents(10))
    waiting = [asyncio.create_task(kb.asearch("a question")) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:3]:
        task.cancel()
    assert len(await asyncio.wait_for(kb.asearch("another"), 10)) == 4
    assert [len(await task) for task in waiting[3:]] == [4, 4]


def test_an_enum_in_metadata_is_what_it_stands_for(kb: Retriever) -> None:
    class Colour(str, enum.Enum):
        RED = "red"

    kb.add([Document("a text", "1", {"colour": Colour.RED})])
    assert kb.get("1")[0].metadata == {"colour": "red"}
    assert kb.count({"colour": "red"}) == kb.count({"colour": Colour.RED}) == 1


def test_from_documents_opens_and_adds_or_leaves_it_closed(encoder: HashEncoder, tmp_path: Path) -> None:
    with Retriever.from_documents("one text", tmp_path / "kb", encoder) as kb:
        assert [hit.document.text for hit in kb.search("one text")] == ["one text"]
    with pytest.raises(InvalidDocumentError):
        Retriever.from_documents(None, tmp_path / "kb", encoder)  # type: ignore[arg-type]
    with Retriever.open(tmp_path / "kb", encoder) as kb:
        assert kb.count() == 1


def test_a_new_collection_hashes_the_model_once(tiny_model: MLRModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    identity = MLRModel.identity
    monkeypatch.setattr(MLRModel, "identity", lambda model: hashed.append(model) or identity(model))
    with Retriever.open("memory:", tiny_model) as kb:
        assert kb.info().note == ""
    assert len(hashed) == 1
