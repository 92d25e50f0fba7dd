"""A collection stays valid for a model whose queries alone have changed, and for no other."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlr_rag import MLRModel, ModelMismatchError, Retriever
from mlr_rag.errors import StoreNotFoundError
from mlr_rag.memory import MemoryStore
from mlr_rag.model.query_adapter import QueryAdapter
from mlr_rag.passport import Passport
from mlr_rag.stores import VectorStore
from tests.tiny import WORDS

TEXTS = [" ".join(WORDS[start : start + 5]) for start in range(0, 25, 2)]
QUERY = "how to read a file"


@pytest.fixture
def base(tiny_model_dir: Path) -> MLRModel:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3))
    with torch.no_grad():
        model[1].layer_weights.copy_(torch.tensor([0.2, 0.3, 0.5]))
    return model


def _adapted(base: MLRModel, form: Any = "linear") -> MLRModel:
    model = base.add_query_adapter(8, form)
    torch.manual_seed(3)
    with torch.no_grad():
        model[-2].write.normal_(0, 0.5)
    return model


def _twin(base: MLRModel) -> MLRModel:
    model = MLRModel.from_pretrained(base.name, layers=(1, 2, 3), separate_query_encoder=True)
    torch.manual_seed(3)
    with torch.no_grad():
        model[1].load_state_dict(base[1].state_dict())
        weight = model[0].query.model.encoder.layer[1].output.dense.weight
        weight.add_(0.5 * torch.randn_like(weight))
    return model


SIDES = {"linear": _adapted, "keys": lambda base: _adapted(base, "keys"), "twin": _twin}


def _stored(store: VectorStore) -> dict[str, bytes]:
    return {record.document.id: record.vector.tobytes() for batch in store.scan(with_vectors=True) for record in batch}


@pytest.mark.parametrize("side", SIDES)
def test_a_query_side_opens_its_bases_collection(side: str, base: MLRModel, tmp_path: Path, caplog: Any) -> None:
    with Retriever.open(tmp_path / "kb", base) as kb:
        kb.add(TEXTS)
        stored, ranking = _stored(kb.store), [hit.score for hit in kb.search(QUERY, k=5)]
    model = SIDES[side](base)
    with caplog.at_level(logging.WARNING, "mlr_rag"), Retriever.open(tmp_path / "kb", model) as kb:
        assert "queries go another way" in kb.info().note
        assert kb.info().note in caplog.text
        hits = kb.search(QUERY, k=5)
        scores = model.encode_query([QUERY]) @ base.encode_document(TEXTS).T
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores[0])[::-1][:5], atol=1e-5)
        assert not np.allclose([hit.score for hit in hits], ranking, atol=1e-3)
        assert _stored(kb.store) == stored
        assert kb.add([*TEXTS, "the old bridge"]).skipped == len(TEXTS)
        written = _stored(kb.store)
        assert {id: written[id] for id in stored} == stored
        new = next(vector for id, vector in written.items() if id not in stored)
        assert np.frombuffer(new, np.float32) @ base.encode_document("the old bridge") == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_the_base_opens_a_collection_of_its_query_side(side: str, base: MLRModel) -> None:
    store = MemoryStore(32)
    Retriever(SIDES[side](base), store).add(TEXTS)
    kb = Retriever(base, store)
    assert "last used with a query side that this model lacks" in kb.info().note
    scores = base.encode_query([QUERY]) @ base.encode_document(TEXTS).T
    assert kb.search(QUERY, k=1)[0].score == pytest.approx(scores.max(), abs=1e-5)


def test_the_same_query_side_is_not_noted(base: MLRModel, tmp_path: Path, caplog: Any) -> None:
    model = _adapted(base)
    model.save(tmp_path / "model")
    with Retriever.open(tmp_path / "kb", MLRModel.load(tmp_path / "model")) as kb:
        kb.add(TEXTS)
    with caplog.at_level(logging.INFO, "mlr_rag"), Retriever.open(tmp_path / "kb") as kb:
        assert kb.info().note == ""
        expected = model.encode_query([QUERY]) @ model.encode_document(TEXTS).T
        assert kb.search(QUERY, k=1)[0].score == pytest.approx(expected.max(), abs=1e-5)
    assert not caplog.records


def test_a_fresh_query_side_is_equivalent(base: MLRModel) -> None:
    store = MemoryStore(32)
    Retriever(base, store)
    assert "accepted as equivalent" in Retriever(base.add_query_adapter(), store).info().note


class _Leaky(QueryAdapter):
    """A defect: it adapts documents as well, though its weights and its description are an adapter's."""

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs: Any) -> dict[str, Any]:
        features["sentence_embedding"] = self.adapt(features["sentence_embedding"])
        return features


def test_an_adapter_that_moves_documents_is_refused_by_the_canaries(base: MLRModel) -> None:
    store = MemoryStore(32)
    Retriever(base, store)
    model = _adapted(base)
    model[-2].__class__ = _Leaky
    verdict = Passport.model_validate(store.info["passport"]).compare(model)  # type: ignore[index]
    assert verdict.differs == ("query_side",)
    assert not verdict.accepted
    with pytest.raises(ModelMismatchError, match="query_side"):
        Retriever(model, store)


def _document_weight(model: MLRModel) -> None:
    with torch.no_grad():
        model[0].model.encoder.layer[1].output.dense.weight.add_(0.5)


def _layer_weights(model: MLRModel) -> None:
    with torch.no_grad():
        model[1].layer_weights.copy_(torch.tensor([0.6, 0.3, 0.5]))


def _query_prompt(model: MLRModel) -> None:
    model.prompts["query"] = "the river : "


def _length(model: MLRModel) -> None:
    model.max_seq_length = 32


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("change", [_document_weight, _layer_weights, _query_prompt, _length])
def test_any_other_change_beside_the_query_side_is_refused(side: str, change: Any, base: MLRModel) -> None:
    store = MemoryStore(32)
    Retriever(copy.deepcopy(base), store).add(TEXTS)
    model = SIDES[side](copy.deepcopy(base))
    change(model)
    with pytest.raises(ModelMismatchError):
        Retriever(model, store)


def test_a_small_change_of_documents_is_not_let_in_with_the_queries(base: MLRModel) -> None:
    """Alone it would be equivalent; with other queries nothing vouches for them any more."""
    store = MemoryStore(32)
    Retriever(copy.deepcopy(base), store)
    model = copy.deepcopy(_adapted(base))
    with torch.no_grad():
        model[0].model.encoder.layer[1].output.dense.weight[0, 0] += 1e-6
    with pytest.raises(ModelMismatchError, match="query_side, weights"):
        Retriever(model, store)


def test_a_query_side_that_is_trained_while_open_goes_on(base: MLRModel) -> None:
    model = _adapted(base)
    kb = Retriever(model, MemoryStore(32))
    kb.add(TEXTS)
    before, stored = kb.search(QUERY, k=3), _stored(kb.store)
    with torch.no_grad():
        model[-2].write.mul_(-1)
    assert [hit.score for hit in kb.search(QUERY, k=3)] != [hit.score for hit in before]
    assert "queries go another way" in kb.info().note
    assert _stored(kb.store) == stored


def test_a_passport_from_before_query_sides_reads_as_it_did(base: MLRModel) -> None:
    """It has no such part, nor has the identity of a model without one."""
    passport = Passport.issue(base)
    assert sorted(passport.parts) == sorted(
        [
            "weights",
            "architecture",
            "tokenizer",
            "modules",
            "settings",
            "prompts",
            "max_length",
            "dimension",
            "precision",
        ]
    )
    assert passport.compare(base).same
    verdict = passport.compare(_adapted(base))
    assert verdict.accepted
    assert verdict.queries_only


def test_vectors_made_by_the_base_are_documents_but_no_queries(base: MLRModel) -> None:
    kb = Retriever(_adapted(base), MemoryStore(32))
    assert kb.add_vectors(TEXTS, base.encode_document(TEXTS)).added == len(TEXTS)
    with pytest.raises(ModelMismatchError):
        kb.search_by_vector(base.encode_query(QUERY), text=QUERY)


def test_the_frameworks_doors_ask_with_adapted_queries(base: MLRModel) -> None:
    pytest.importorskip("langchain_core")
    pytest.importorskip("llama_index.core")
    store = MemoryStore(32)
    Retriever(base, store).add(TEXTS)
    kb = Retriever(_adapted(base), store)
    expected = [(hit.document.text, pytest.approx(hit.score)) for hit in kb.search(QUERY, k=5)]
    assert expected != [(hit.document.text, hit.score) for hit in Retriever(base, store).search(QUERY, k=5)]
    assert [document.page_content for document in kb.as_langchain(k=5).invoke(QUERY)] == [text for text, _ in expected]
    found = kb.as_llama_index(similarity_top_k=5).retrieve(QUERY)
    assert [(node.get_content(), node.score) for node in found] == expected


def test_moving_to_a_query_side_encodes_nothing(base: MLRModel) -> None:
    kb = Retriever(base, MemoryStore(32))
    kb.add(TEXTS)
    stored, model = _stored(kb.store), _adapted(base)
    looked = kb.reindex(model, compare=[QUERY], switch=False)
    assert (looked.encoded, looked.switched, kb.model) == (0, False, base)
    assert looked.comparison is not None
    moved = kb.reindex(model)
    assert (moved.encoded, moved.switched, moved.generation, kb.model) == (0, True, 1, model)
    assert _stored(kb.store) == stored
    assert kb.info().note == ""
    assert Retriever(model, kb.store).info().note == "", "the passport is the new model's"
    kb.add(["the old bridge"])
    assert kb.prune() == 0
    assert kb.search(QUERY, k=1)[0].score == pytest.approx(
        (model.encode_query([QUERY]) @ base.encode_document([*TEXTS, "the old bridge"]).T).max(), abs=1e-5
    )
    assert kb.reindex(base).switched
    assert kb.info().fingerprint == base.fingerprint


def _other(base: MLRModel) -> MLRModel:
    return MLRModel.from_pretrained(base.name, layers=(1, 2), pooling="mean", start="paper")


def test_moving_to_a_query_side_on_purpose_warns_of_nothing(base: MLRModel, caplog: Any) -> None:
    store = MemoryStore(32)
    kb = Retriever(base, store)
    kb.add(TEXTS)
    with caplog.at_level(logging.WARNING, "mlr_rag"):
        kb.reindex(_adapted(base), compare=[QUERY])
        kb.reindex(_other(base))
        kb.reindex(_adapted(base, "keys"))
    assert not caplog.records


@pytest.mark.parametrize("side", SIDES)
def test_an_older_generation_takes_the_query_side_that_it_is_moved_to(side: str, base: MLRModel) -> None:
    """It is filled up, not made anew, and its passport says from then on how queries go."""
    kb = Retriever(base, MemoryStore(32))
    kb.add(TEXTS)
    kb.reindex(_other(base))
    model = SIDES[side](base)
    assert kb.reindex(model, switch=False).generation == 1
    with pytest.raises(ModelMismatchError):
        Retriever(model, kb.store)
    old = kb.store.beside(1)
    assert Retriever(base, old).info().note == "", "without the switch, it is still the base's"
    moved = kb.reindex(model)
    assert (moved.encoded, moved.switched, moved.generation) == (0, True, 1)
    assert (kb.info().note, kb.info().fingerprint) == ("", model.fingerprint)
    assert Retriever(model, kb.store).info().note == ""
    assert kb.add(["the old bridge"]).added == 1
    kb.rollback(_other(base))
    assert kb.rollback(model).encoded == 0
    assert kb.info().note == ""


def test_a_change_of_the_query_side_is_undone_by_reindex_as_rollback_says(base: MLRModel) -> None:
    kb = Retriever(base, MemoryStore(32))
    kb.add(TEXTS)
    kb.reindex(_adapted(base))
    with pytest.raises(StoreNotFoundError, match=r"no reindex\(\) has encoded.*where only the query side differs"):
        kb.rollback()
    assert kb.reindex(base).encoded == 0
    assert kb.info().fingerprint == base.fingerprint


@pytest.fixture
def fresh(tiny_model_dir: Path) -> MLRModel:
    """A base that its name and recipe lead to."""
    return MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("reindexed", [False, True])
def test_a_query_side_that_was_not_saved_is_missed_when_opening_by_name(
    side: str, reindexed: bool, fresh: MLRModel, tmp_path: Path, caplog: Any
) -> None:
    model, where = SIDES[side](fresh), tmp_path / "kb"
    with Retriever.open(where, fresh if reindexed else model) as kb:
        kb.add(TEXTS)
        if reindexed:
            kb.reindex(model)
    with caplog.at_level(logging.WARNING, "mlr_rag"), pytest.raises(ModelMismatchError, match="Pass the adapted model"):
        Retriever.open(where)
    assert not caplog.records, "it is not said to be accepted"
    with Retriever.open(where, fresh) as kb:
        assert "query side that this model lacks" in kb.info().note, "who passes a model means it"
    model.save(tmp_path / "model")
    with Retriever.open(where, MLRModel.load(tmp_path / "model")) as kb:
        assert kb.info().note == ""
        kb.reindex(MLRModel.load(tmp_path / "model"))
    with Retriever.open(where) as kb:
        assert (kb.info().note, kb.info().fingerprint) == ("", model.fingerprint)


def test_rolling_back_to_a_query_side_that_was_not_saved_needs_the_model(fresh: MLRModel) -> None:
    model = _adapted(fresh)
    kb = Retriever(model, MemoryStore(32))
    kb.add(TEXTS)
    kb.reindex(_other(fresh))
    with pytest.raises(ModelMismatchError, match="Pass the adapted model"):
        kb.rollback()
    assert kb.rollback(model).switched
    assert kb.info().note == ""


def test_a_store_without_a_model_is_opened_with_the_one_in_its_passport(fresh: MLRModel) -> None:
    store = MemoryStore(32)
    Retriever(fresh, store).add(TEXTS)
    kb = Retriever(None, store)
    assert (kb.model.fingerprint, kb.info().note) == (fresh.fingerprint, "")
