"""A separate query encoder: two Transformers, one for each side, in everything that a model does."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.transformer import Transformer

from mlr_rag import MLRModel
from mlr_rag.errors import ModelError, UnsafeModelError
from tests.model.test_query_adapter import TEXTS
from tests.tiny import CONFIGS, build

LAYERS = {"layers": (1, 2, 3)}


def trained(model: MLRModel) -> MLRModel:
    """Queries that have moved, and documents that are a mix."""
    torch.manual_seed(1)
    with torch.no_grad():
        weight = model[0].query.model.encoder.layer[1].output.dense.weight
        weight.add_(0.5 * torch.randn_like(weight))
        model[1].layer_weights.copy_(torch.tensor([0.5, -0.2, 0.7]))
    return model


@pytest.fixture
def twin(tiny_model_dir: Path) -> MLRModel:
    return trained(MLRModel.from_pretrained(tiny_model_dir, **LAYERS, separate_query_encoder=True))


@pytest.fixture
def single(tiny_model_dir: Path) -> MLRModel:
    """The same model whose queries go through the documents' Transformer."""
    model = MLRModel.from_pretrained(tiny_model_dir, **LAYERS)
    with torch.no_grad():
        model[1].layer_weights.copy_(torch.tensor([0.5, -0.2, 0.7]))
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_fresh_one_gives_its_bases_vectors(kind: str, tmp_path: Path) -> None:
    folder = build(kind, tmp_path)
    base = SentenceTransformer(str(folder), device="cpu")
    model = MLRModel.from_pretrained(folder, **LAYERS, separate_query_encoder=True)
    for encode in ("encode_query", "encode_document"):
        np.testing.assert_allclose(getattr(model, encode)(TEXTS), getattr(base, encode)(TEXTS), atol=1e-6)


def test_queries_go_one_way_and_documents_the_other(twin: MLRModel, single: MLRModel) -> None:
    assert np.array_equal(twin.encode_document(TEXTS), single.encode_document(TEXTS))
    assert np.array_equal(twin.encode_layers(TEXTS), single.encode_layers(TEXTS))
    queries = copy.deepcopy(single)
    queries[0].load_state_dict(twin[0].query.state_dict())
    assert np.array_equal(twin.encode_query(TEXTS), queries.encode_query(TEXTS))
    assert (twin.encode_query(TEXTS) * single.encode_query(TEXTS)).sum(1).max() < 0.99
    assert np.array_equal(twin.encode(TEXTS), twin.encode_document(TEXTS)), "no task is a document's"


def test_training_tells_queries_by_the_stamp_of_the_collator(twin: MLRModel) -> None:
    """And each side's gradient reaches its own Transformer alone."""
    query = twin({**twin.preprocess(TEXTS), "task": "query"})["sentence_embedding"]
    np.testing.assert_allclose(query.detach().numpy(), twin.encode_query(TEXTS), atol=1e-5)
    (query[0] @ query[1]).backward()
    weights = (
        twin[0].model.encoder.layer[0].output.dense.weight,
        twin[0].query.model.encoder.layer[0].output.dense.weight,
    )
    assert weights[0].grad is None
    assert weights[1].grad is not None
    document = twin({**twin.preprocess(TEXTS), "task": "document"})["sentence_embedding"]
    known = weights[1].grad.clone()
    (document[0] @ document[1]).backward()
    assert weights[0].grad is not None
    assert torch.equal(weights[1].grad, known)


def test_the_tokenizer_is_shared(twin: MLRModel) -> None:
    twin.max_seq_length = 4
    assert twin.encode_query([TEXTS[0] * 3], return_cut=True)[1] == 1
    assert sum(1 for _ in twin.modules() if _ is twin[0].query) == 1
    assert twin[0].query.processor is twin[0].processor


def test_saved_copied_and_pickled_it_gives_the_same_vectors(twin: MLRModel, tmp_path: Path) -> None:
    twin.max_seq_length = 33
    twin.save(tmp_path / "saved")
    for other in (MLRModel.load(tmp_path / "saved"), copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))):
        for encode in ("encode_query", "encode_document", "encode_layers"):
            assert np.array_equal(getattr(other, encode)(TEXTS), getattr(twin, encode)(TEXTS))
        assert other.fingerprint == twin.fingerprint
        assert other.recipe == twin.recipe


def test_the_recipe_makes_it_again(tiny_model_dir: Path, single: MLRModel) -> None:
    fresh = MLRModel.from_pretrained(tiny_model_dir, **LAYERS, separate_query_encoder=True)
    assert MLRModel.open(tiny_model_dir, **fresh.recipe).fingerprint == fresh.fingerprint
    assert "separate_query_encoder" not in single.recipe, "as in the passports of collections that are there"


def test_the_documents_folder_is_a_stock_transformers(twin: MLRModel, tmp_path: Path) -> None:
    twin.save(tmp_path / "saved")
    documents, queries = (
        load_file(tmp_path / "saved/model.safetensors"),
        load_file(tmp_path / "saved/query/model.safetensors"),
    )
    assert documents.keys() == queries.keys()
    assert any(not torch.equal(documents[name], queries[name]) for name in documents)
    assert not list((tmp_path / "saved").rglob("*.bin"))


def test_no_code_and_no_pickle_from_the_queries_folder(twin: MLRModel, tmp_path: Path) -> None:
    twin.save(tmp_path / "saved")
    remote = Path(shutil.copytree(tmp_path / "saved", tmp_path / "remote"))
    config = json.loads((remote / "query/config.json").read_text())
    (remote / "query/config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))
    with pytest.raises(UnsafeModelError, match="never run"):
        MLRModel.load(remote)
    pickled = Path(shutil.copytree(tmp_path / "saved", tmp_path / "pickled"))
    torch.save(load_file(pickled / "query/model.safetensors"), pickled / "query/pytorch_model.bin")
    (pickled / "query/model.safetensors").unlink()
    with pytest.raises(UnsafeModelError, match="pickle"):
        MLRModel.load(pickled)
    half = Path(shutil.copytree(tmp_path / "saved", tmp_path / "half"))
    shutil.rmtree(half / "query")
    with pytest.raises(ModelError, match="cannot be loaded"):
        MLRModel.load(half)


def test_worker_pools_and_threads(twin: MLRModel) -> None:
    queries, documents = twin.encode_query(TEXTS), twin.encode_document(TEXTS)
    np.testing.assert_allclose(twin.encode_query(TEXTS, device=["cpu", "cpu"]), queries, atol=2e-6)
    np.testing.assert_allclose(twin.encode_document(TEXTS, device=["cpu", "cpu"]), documents, atol=2e-6)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(encode, TEXTS) for encode in (twin.encode_query, twin.encode_document) * 6]
        for each, expected in zip(found, (queries, documents) * 6, strict=True):
            np.testing.assert_allclose(each.result(), expected, atol=2e-6)


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.5, 0.0, 0.7)])
def test_portable_export_has_two_encoders(twin: MLRModel, tmp_path: Path, weights: tuple[float, ...]) -> None:
    with torch.no_grad():
        twin[1].layer_weights.copy_(torch.tensor(weights))
    for name, model in (("plain", twin), ("adapted", twin.add_query_adapter(4))):
        with torch.no_grad():
            if name == "adapted":
                model[-2].write.normal_(0, 0.3)
        model.export_portable(tmp_path / name)
        stock = SentenceTransformer(str(tmp_path / name), device="cpu")
        np.testing.assert_allclose(stock.encode_query(TEXTS), model.encode_query(TEXTS), atol=1e-5)
        np.testing.assert_allclose(stock.encode_document(TEXTS), model.encode_document(TEXTS), atol=1e-5)


def test_identity_covers_both_sides_apart(twin: MLRModel, single: MLRModel) -> None:
    """The documents' side is the single model's own, so that a collection knows it again."""
    before = twin.identity()
    assert {name for name in before if before[name] != single.identity().get(name)} == {"query_side"}
    with torch.no_grad():
        twin[0].query.model.embeddings.word_embeddings.weight[7, 7] += 0.1
    assert {name for name in before if before[name] != twin.identity()[name]} == {"query_side"}
    twin[0].query.model.config.layer_norm_eps = 0.1
    known = twin.identity()
    assert {name for name in before if before[name] != known[name]} == {"query_side"}
    with torch.no_grad():
        twin[0].model.embeddings.word_embeddings.weight[7, 7] += 0.1
    assert {name for name in before if known[name] != twin.identity()[name]} == {"weights"}


def test_only_the_queries_encoder_is_trained(twin: MLRModel) -> None:
    twin.freeze_documents()
    documents, queries = twin.encode_document(TEXTS), twin.encode_query(TEXTS)
    optimizer = torch.optim.AdamW([p for p in twin.parameters() if p.requires_grad], lr=0.01)
    twin.train()
    vectors = twin({**twin.preprocess(TEXTS), "task": "query"})["sentence_embedding"]
    (vectors[:10] * vectors[10:]).sum().backward()
    optimizer.step()
    assert np.array_equal(twin.encode_document(TEXTS), documents)
    assert not np.allclose(twin.encode_query(TEXTS), queries, atol=1e-4)


def test_a_base_that_was_in_use_lends_its_copy_no_hooks(tiny_model_dir: Path) -> None:
    """A SentenceTransformer whose layers are captured already: queries must not fill its buffers."""
    base = SentenceTransformer(str(tiny_model_dir), device="cpu")
    first = MLRModel.from_pretrained(base, **LAYERS)
    model = MLRModel.from_pretrained(base, **LAYERS, separate_query_encoder=True)
    model.encode_query(TEXTS)
    copied = [
        hook.capture
        for module in model[0].query.modules()
        for hook in module._forward_hooks.values()
        if hasattr(hook, "capture")
    ]
    assert copied
    assert not any(capture.take() for capture in copied)
    assert np.array_equal(model.encode_layers(TEXTS), first.encode_layers(TEXTS))


def test_the_documents_side_is_a_stock_module(twin: MLRModel) -> None:
    stock = twin[0].document_side()
    assert type(stock) is Transformer
    assert stock.model is twin[0].model
    assert "query" not in dict(stock.named_children())
