"""MLREmbedding: two sides, its own caches, and a fingerprint that goes wherever it is serialised."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from sentence_transformers import SentenceTransformer

from mlr_rag import MLRModel
from mlr_rag.encoders import LlamaIndexEncoder
from mlr_rag.errors import InvalidInputError, ModelMismatchError, UnsupportedModelError
from mlr_rag.testing import HashEncoder
from mlr_rag_llama_index import MLREmbedding
from tests.llama_index.material import Foreign, Listener, Sided, debugging, errors_of, train

TEXTS = [f"text {n}" for n in range(5)]


class Nameless(Sided):
    """An encoder that cannot say which it is."""

    def __init__(self) -> None:
        super().__init__()
        self.fingerprint = ""


@pytest.fixture
def embedding(encoder: Sided) -> MLREmbedding:
    made = MLREmbedding(encoder)
    encoder.forget()
    return made


@pytest.fixture
def layered(tiny_model_dir: Path) -> MLRModel:
    """Its documents' vectors are not those of its base, nor of its queries."""
    return MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3), pooling="mean", start="paper")


class TestSides:
    def test_queries_are_encoded_as_queries_and_texts_as_documents(self, layered: MLRModel) -> None:
        embedding = MLREmbedding(layered)
        (query,), (document,) = layered.encode_query(["the old bridge"]), layered.encode_document(["the old bridge"])
        assert query @ document < 0.99
        assert embedding.get_query_embedding("the old bridge") == pytest.approx(query, abs=1e-6)
        assert embedding.get_agg_embedding_from_queries(["the old bridge"]) == pytest.approx(query, abs=1e-6)
        assert embedding.get_text_embedding("the old bridge") == pytest.approx(document, abs=1e-6)
        assert embedding.get_text_embedding_batch(["the old bridge"])[0] == pytest.approx(document, abs=1e-6)
        (node,) = embedding([TextNode(text="the old bridge")])
        assert node.get_embedding() == pytest.approx(document, abs=1e-6)

    async def test_every_twin_gives_the_same(self, embedding: MLREmbedding, encoder: Sided) -> None:
        queries, documents = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
        for made in (
            [embedding.get_query_embedding(text) for text in TEXTS],
            [await embedding.aget_query_embedding(text) for text in TEXTS],
            [embedding.get_agg_embedding_from_queries([text]) for text in TEXTS],
            [await embedding.aget_agg_embedding_from_queries([text]) for text in TEXTS],
        ):
            np.testing.assert_allclose(made, queries, atol=1e-6)
        for made in (
            [embedding.get_text_embedding(text) for text in TEXTS],
            [await embedding.aget_text_embedding(text) for text in TEXTS],
            embedding.get_text_embedding_batch(TEXTS),
            await embedding.aget_text_embedding_batch(TEXTS),
            [node.embedding for node in embedding([TextNode(text=text) for text in TEXTS])],
            [node.embedding for node in await embedding.acall([TextNode(text=text) for text in TEXTS])],
        ):
            np.testing.assert_allclose(made, documents, atol=1e-6)

    async def test_the_mean_of_queries(self, embedding: MLREmbedding, encoder: Sided) -> None:
        mean = encoder.encode_query(TEXTS).mean(axis=0)
        np.testing.assert_allclose(embedding.get_agg_embedding_from_queries(TEXTS), mean, atol=1e-6)
        np.testing.assert_allclose(await embedding.aget_agg_embedding_from_queries(TEXTS), mean, atol=1e-6)
        last = embedding.get_agg_embedding_from_queries(TEXTS, lambda vectors: vectors[-1])
        np.testing.assert_allclose(last, encoder.encode_query(TEXTS)[-1], atol=1e-6)

    def test_a_vector_is_a_list_of_floats(self, embedding: MLREmbedding) -> None:
        for vector in (embedding.get_query_embedding("a"), embedding.get_text_embedding("a")):
            assert isinstance(vector, list)
            assert {type(value) for value in vector} == {float}
            assert json.loads(json.dumps(vector)) == vector

    def test_nodes_are_encoded_with_their_metadata(self, embedding: MLREmbedding, encoder: Sided) -> None:
        node = TextNode(text="a text", metadata={"a": 1, "b": 2}, excluded_embed_metadata_keys=["b"])
        embedding([node])
        assert encoder.encoded == [node.get_content(MetadataMode.EMBED)] == ["a: 1\n\na text"]

    def test_a_batch_is_one_call(self, encoder: Sided, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        encode = encoder.encode_document
        monkeypatch.setattr(encoder, "encode_document", lambda texts: sizes.append(len(texts)) or encode(texts))
        texts = [f"text {n}" for n in range(600)]
        MLREmbedding(encoder).get_text_embedding_batch(texts)
        assert sizes == [256, 256, 88]
        sizes.clear()
        MLREmbedding(encoder, embed_batch_size=500).get_text_embedding_batch(texts)
        assert sizes == [500, 100]

    async def test_the_event_loop_never_encodes(self, embedding: MLREmbedding, encoder: Sided) -> None:
        await embedding.aget_query_embedding("a")
        await embedding.aget_agg_embedding_from_queries(["a", "b"])
        await embedding.aget_text_embedding("a")
        await embedding.aget_text_embedding_batch(TEXTS)
        await embedding.acall([TextNode(text="a")])
        assert len(encoder.queries) == 3
        assert len(encoder.encoded) == 7
        assert threading.get_ident() not in encoder.threads

    async def test_several_workers_at_once(self, encoder: Sided) -> None:
        embedding = MLREmbedding(encoder, embed_batch_size=7, num_workers=4)
        texts = [f"text {n}" for n in range(100)]
        made = await embedding.aget_text_embedding_batch(texts)
        np.testing.assert_allclose(made, encoder.encode_document(texts), atol=1e-6)

    @pytest.mark.parametrize("kind", ["encoder", "model", "sentence-transformer", "name", "path", "embedding"])
    def test_what_may_be_the_model(self, kind: str, tiny_model_dir: Path) -> None:
        model = MLRModel.from_pretrained(tiny_model_dir)
        made = MLREmbedding(
            {
                "encoder": LlamaIndexEncoder(MLREmbedding(model)),
                "model": model,
                "sentence-transformer": SentenceTransformer(str(tiny_model_dir), device="cpu"),
                "name": str(tiny_model_dir),
                "path": tiny_model_dir,
                "embedding": MLREmbedding(model),
            }[kind]
        )
        expected = model.encode_document(["the old bridge"])[0]
        assert made.get_text_embedding("the old bridge") == pytest.approx(expected, abs=1e-5)

    def test_as_the_model_of_the_settings(self, embedding: MLREmbedding) -> None:
        before = Settings._embed_model
        try:
            Settings.embed_model = embedding
            assert Settings.embed_model is embedding
        finally:
            Settings._embed_model = before


class TestRefusals:
    @pytest.mark.parametrize("text", [None, "", " \n", 7, b"text", ["text"]], ids=repr)
    async def test_what_is_no_text(self, embedding: MLREmbedding, encoder: Sided, text: Any) -> None:
        for call in (
            embedding.get_query_embedding,
            embedding.get_text_embedding,
            lambda text: embedding.get_agg_embedding_from_queries(["fine", text]),
            lambda text: embedding.get_text_embedding_batch(["fine", text]),
        ):
            with pytest.raises(InvalidInputError) as caught:
                call(text)
            assert isinstance(caught.value, ValueError)
        for acall in (
            embedding.aget_query_embedding,
            embedding.aget_text_embedding,
            lambda text: embedding.aget_agg_embedding_from_queries(["fine", text]),
            lambda text: embedding.aget_text_embedding_batch(["fine", text]),
        ):
            with pytest.raises(InvalidInputError):
                await acall(text)
        assert set(encoder.queries) <= {"fine"}
        assert encoder.encoded == []

    def test_a_blank_node(self, embedding: MLREmbedding) -> None:
        with pytest.raises(InvalidInputError, match="blank"):
            embedding([TextNode(text=" ")])

    @pytest.mark.parametrize("model", [7, object(), ["a name"], print], ids=repr)
    def test_what_is_no_model(self, model: Any) -> None:
        with pytest.raises(InvalidInputError, match="not a model"):
            MLREmbedding(model)

    def test_several_vectors_a_document(self, tiny_model_dir: Path) -> None:
        model = MLRModel.from_pretrained(tiny_model_dir, pooling="multi_vector")
        with pytest.raises(UnsupportedModelError, match="as_llama_index"):
            MLREmbedding(model)

    @pytest.mark.parametrize("cache", [{}, "a folder", True], ids=repr)
    def test_what_is_no_cache(self, encoder: Sided, cache: Any) -> None:
        with pytest.raises(InvalidInputError, match="KVStore"):
            MLREmbedding(encoder, embeddings_cache=cache)

    @pytest.mark.parametrize("size", [0, -1, 2049, "many"])
    def test_a_batch_size_that_llama_index_refuses(self, encoder: Sided, size: Any) -> None:
        with pytest.raises(ValueError, match="embed_batch_size"):
            MLREmbedding(encoder, embed_batch_size=size)


class TestEvents:
    def test_callbacks(self, encoder: Sided) -> None:
        manager, handler = debugging()
        embedding = MLREmbedding(encoder, callback_manager=manager)
        query = embedding.get_query_embedding("a question")
        vectors = embedding.get_text_embedding_batch(TEXTS)
        (_, first), (_, second) = handler.get_event_pairs(CBEventType.EMBEDDING)
        assert first.payload == {EventPayload.CHUNKS: ["a question"], EventPayload.EMBEDDINGS: [query]}
        assert second.payload == {EventPayload.CHUNKS: TEXTS, EventPayload.EMBEDDINGS: vectors}

    async def test_dispatched_events(self, embedding: MLREmbedding, listener: Listener) -> None:
        await embedding.aget_query_embedding("a question")
        await embedding.aget_text_embedding_batch(TEXTS)
        assert listener.names() == ["EmbeddingStartEvent", "EmbeddingEndEvent"] * 2
        start, end, _, batch = listener.heard
        assert start.model_dict["class_name"] == "MLREmbedding"
        assert start.model_dict["model_name"] == "hash-encoder"
        assert end.chunks == ["a question"]
        assert batch.chunks == TEXTS

    def test_an_error_reaches_the_callbacks(self, encoder: Sided) -> None:
        manager, handler = debugging()
        with pytest.raises(InvalidInputError) as caught:
            MLREmbedding(encoder, callback_manager=manager).get_query_embedding(" ")
        assert errors_of(handler, CBEventType.EMBEDDING) == [caught.value]


class TestSerialisation:
    @pytest.mark.parametrize("way", ["dict", "json", "pickle"])
    def test_the_same_model_comes_back(self, layered: MLRModel, way: str) -> None:
        embedding = MLREmbedding(layered, embed_batch_size=32)
        again = {
            "dict": lambda: MLREmbedding.from_dict(embedding.to_dict()),
            "json": lambda: MLREmbedding.from_json(embedding.to_json()),
            "pickle": lambda: pickle.loads(pickle.dumps(embedding)),
        }[way]()
        assert isinstance(again, MLREmbedding)
        assert again.embed_batch_size == 32
        assert again.fingerprint == layered.fingerprint
        assert again.encoder.layers == (1, 2, 3)
        expected = layered.encode_document(["the old bridge"])[0]
        assert again.get_text_embedding("the old bridge") == pytest.approx(expected, abs=1e-6)

    def test_what_is_written(self, layered: MLRModel, tiny_model_dir: Path) -> None:
        written = json.loads(MLREmbedding(layered).to_json())
        assert written["class_name"] == "MLREmbedding"
        assert written["model_name"] == str(tiny_model_dir)
        assert written["recipe"] == layered.recipe
        assert written["fingerprint"] == layered.fingerprint
        assert "callback_manager" not in written

    def test_a_saved_model_comes_back_with_its_training(self, layered: MLRModel, tmp_path: Path) -> None:
        train(layered)
        layered.save(tmp_path / "trained")
        embedding = MLREmbedding(tmp_path / "trained")
        again = MLREmbedding.from_dict(embedding.to_dict())
        assert again.get_query_embedding("the old bridge") == pytest.approx(
            layered.encode_query(["the old bridge"])[0], abs=1e-6
        )

    def test_other_weights_under_the_name_are_refused(self, layered: MLRModel, tmp_path: Path) -> None:
        layered.save(tmp_path / "model")
        written = MLREmbedding(tmp_path / "model").to_dict()
        train(layered)
        layered.save(tmp_path / "model")
        with pytest.raises(ModelMismatchError, match="not the model that this embedding was made with") as caught:
            MLREmbedding.from_dict(written)
        assert caught.value.expected == written["fingerprint"]

    def test_a_model_trained_in_place_is_not_taken_for_what_its_name_says(self, layered: MLRModel) -> None:
        embedding = MLREmbedding(layered)
        before = embedding.to_dict()["fingerprint"]
        train(layered)
        assert embedding.to_dict()["fingerprint"] == layered.fingerprint != before
        with pytest.raises(ModelMismatchError):
            MLREmbedding.from_dict(embedding.to_dict())

    def test_pickling_takes_training_along(self, layered: MLRModel) -> None:
        embedding = MLREmbedding(layered)
        train(layered)
        again = pickle.loads(pickle.dumps(embedding))
        assert again.get_query_embedding("the old bridge") == pytest.approx(
            layered.encode_query(["the old bridge"])[0], abs=1e-6
        )

    def test_what_cannot_be_pickled_is_opened_by_its_name(
        self, layered: MLRModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embedding = MLREmbedding(layered)
        monkeypatch.setattr(layered, "handle", threading.Lock(), raising=False)
        pickled = pickle.dumps(embedding)
        assert pickle.loads(pickled).encoder.recipe == layered.recipe
        train(layered)
        pickled = pickle.dumps(embedding)
        with pytest.raises(ModelMismatchError):
            pickle.loads(pickled)

    def test_pickling_keeps_the_cache_and_loses_handlers(self, encoder: Sided) -> None:
        manager, handler = debugging()
        handler.lock = threading.Lock()  # type: ignore[attr-defined] # cannot be pickled
        embedding = MLREmbedding(encoder, embeddings_cache=SimpleKVStore(), callback_manager=manager)
        made = embedding.get_query_embedding("a")
        again = pickle.loads(pickle.dumps(embedding))
        again.encoder.forget()
        assert again.get_query_embedding("a") == made
        assert again.encoder.queries == []

    def test_pickling_an_encoder_without_a_name(self, embedding: MLREmbedding, encoder: Sided) -> None:
        again = pickle.loads(pickle.dumps(embedding))
        assert again.fingerprint == encoder.fingerprint
        assert again.get_query_embedding("a") == pytest.approx(encoder.encode_query(["a"])[0])

    def test_two_of_one_name_are_told_apart(self) -> None:
        one, other = MLREmbedding(Sided(version="1")), MLREmbedding(Sided(version="2"))
        assert one.model_name == other.model_name
        assert one.to_dict() != other.to_dict()
        assert one.to_dict() == MLREmbedding(Sided(version="1")).to_dict()

    def test_what_has_no_fingerprint_is_like_no_other(self) -> None:
        one, other = MLREmbedding(Foreign(encoder_=Sided())), MLREmbedding(Nameless())
        assert one.fingerprint != other.fingerprint != MLREmbedding(Nameless()).fingerprint
        assert one.to_dict() == one.to_dict()


class TestIngestionCache:
    """LlamaIndex's own: its key is the text and what `to_dict` gives."""

    def run(self, model: Any, cache: IngestionCache) -> np.ndarray:
        pipeline = IngestionPipeline(transformations=[MLREmbedding(model)], cache=cache, docstore=None)
        return np.array([node.embedding for node in pipeline.run(nodes=[TextNode(text=text) for text in TEXTS])])

    def test_the_second_run_encodes_nothing(self, encoder: Sided) -> None:
        cache = IngestionCache()
        first = self.run(encoder, cache)
        encoder.forget()
        np.testing.assert_array_equal(self.run(encoder, cache), first)
        assert encoder.encoded == []

    def test_two_models_of_one_name_share_nothing(self) -> None:
        cache, one, other = IngestionCache(), Sided(version="1"), Sided(version="2")
        np.testing.assert_allclose(self.run(one, cache), one.encode_document(TEXTS), atol=1e-6)
        np.testing.assert_allclose(self.run(other, cache), other.encode_document(TEXTS), atol=1e-6)

    def test_two_recipes_of_one_base_share_nothing(self, tiny_model: MLRModel, layered: MLRModel) -> None:
        cache = IngestionCache()
        assert not np.allclose(self.run(tiny_model, cache), self.run(layered, cache), atol=1e-3)

    def test_training_in_place_misses_the_cache(self, layered: MLRModel) -> None:
        cache, embedding = IngestionCache(), MLREmbedding(layered)
        pipeline = IngestionPipeline(transformations=[embedding], cache=cache)
        pipeline.run(nodes=[TextNode(text=TEXTS[0])])
        train(layered)
        (node,) = pipeline.run(nodes=[TextNode(text=TEXTS[0])])
        assert node.embedding == pytest.approx(layered.encode_document(TEXTS[:1])[0], abs=1e-6)

    def test_what_has_no_fingerprint_shares_nothing(self) -> None:
        cache, other = IngestionCache(), Nameless()
        self.run(Nameless(), cache)
        other.version = "2"
        np.testing.assert_allclose(self.run(other, cache), other.encode_document(TEXTS), atol=1e-6)

    def test_worker_processes(self) -> None:
        """They are spawned, and get the model by pickling: with one of torch this takes long, and says no more."""
        encoder = HashEncoder()
        nodes = [TextNode(text=text) for text in TEXTS]
        made = IngestionPipeline(transformations=[MLREmbedding(encoder)]).run(nodes=nodes, num_workers=2)
        np.testing.assert_allclose([node.embedding for node in made], encoder.encode_document(TEXTS), atol=1e-6)
        assert [node.node_id for node in made] == [node.node_id for node in nodes]


class TestEmbeddingsCache:
    """LlamaIndex's own would give a query's vector for a document with the same text, and another model's."""

    @pytest.fixture
    def cache(self) -> SimpleKVStore:
        return SimpleKVStore()

    async def test_the_second_call_encodes_nothing(self, encoder: Sided, cache: SimpleKVStore) -> None:
        embedding = MLREmbedding(encoder, embeddings_cache=cache)
        encoder.forget()
        query, documents = embedding.get_query_embedding("a"), embedding.get_text_embedding_batch(TEXTS)
        for _ in range(2):
            assert embedding.get_query_embedding("a") == query == await embedding.aget_query_embedding("a")
            assert embedding.get_text_embedding_batch(TEXTS) == documents
            assert await embedding.aget_text_embedding_batch(TEXTS) == documents
            assert embedding.get_text_embedding(TEXTS[1]) == documents[1]
        assert (encoder.queries, encoder.encoded) == (["a"], TEXTS)

    def test_only_what_is_missing_is_encoded(self, encoder: Sided, cache: SimpleKVStore) -> None:
        embedding = MLREmbedding(encoder, embeddings_cache=cache)
        embedding.get_text_embedding(TEXTS[2])
        encoder.forget()
        made = embedding.get_text_embedding_batch([*TEXTS, TEXTS[0]])
        assert encoder.encoded == [text for text in TEXTS if text != TEXTS[2]]
        np.testing.assert_allclose(made, encoder.encode_document([*TEXTS, TEXTS[0]]), atol=1e-6)

    def test_a_query_is_no_document(self, encoder: Sided, cache: SimpleKVStore) -> None:
        embedding = MLREmbedding(encoder, embeddings_cache=cache)
        assert embedding.get_query_embedding("a") == pytest.approx(encoder.encode_query(["a"])[0])
        assert embedding.get_text_embedding("a") == pytest.approx(encoder.encode_document(["a"])[0])
        assert embedding.get_query_embedding("a") == pytest.approx(encoder.encode_query(["a"])[0])

    def test_a_model_is_no_other(self, cache: SimpleKVStore) -> None:
        for encoder in (Sided(version="1"), Sided(version="2"), Nameless()):
            embedding = MLREmbedding(encoder, embeddings_cache=cache)
            assert embedding.get_query_embedding("a") == pytest.approx(encoder.encode_query(["a"])[0])

    def test_a_model_trained_in_place_is_another(self, encoder: Sided, cache: SimpleKVStore) -> None:
        embedding = MLREmbedding(encoder, embeddings_cache=cache)
        embedding.get_query_embedding("a")
        encoder.become("2")
        assert embedding.get_query_embedding("a") == pytest.approx(encoder.encode_query(["a"])[0])

    def test_it_outlives_the_embedding(self, encoder: Sided, cache: SimpleKVStore, tmp_path: Path) -> None:
        made = MLREmbedding(encoder, embeddings_cache=cache).get_text_embedding("a")
        cache.persist(str(tmp_path / "cache.json"))
        again = MLREmbedding(encoder, embeddings_cache=SimpleKVStore.from_persist_path(str(tmp_path / "cache.json")))
        encoder.forget()
        assert again.get_text_embedding("a") == made
        assert encoder.encoded == []


def test_it_is_an_embedding_of_llama_index(embedding: MLREmbedding) -> None:
    assert isinstance(embedding, BaseEmbedding)
    assert embedding.class_name() == "MLREmbedding"


class TestOptions:
    def test_unknown_options_are_refused(self, encoder: Sided) -> None:
        with pytest.raises(InvalidInputError, match="found embed_batchsize"):
            MLREmbedding(encoder, embed_batchsize=3)

    def test_a_cache_that_is_set_later_is_kept_apart_too(self, encoder: Sided) -> None:
        embedding = MLREmbedding(encoder)
        embedding.embeddings_cache = SimpleKVStore()
        assert embedding.get_query_embedding("a river") != embedding.get_text_embedding("a river")
        encoder.forget()
        assert embedding.get_query_embedding("a river") != embedding.get_text_embedding("a river")
        assert not encoder.queries
        assert not encoder.encoded
        with pytest.raises(InvalidInputError, match="no cache"):
            embedding.embeddings_cache = {}

    def test_the_embedding_of_another_library_is_pickled_with_it(self) -> None:
        embedding = MLREmbedding(MockEmbedding(8))
        again = pickle.loads(pickle.dumps(embedding))
        assert again.get_text_embedding("a") == embedding.get_text_embedding("a")

    def test_what_cannot_be_pickled_says_so(self) -> None:
        class Local(MockEmbedding):
            """Of a class that no other process can find."""

        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(MLREmbedding(Local(8)))
