"""QueryAdapter: queries move, documents never do, and a fresh one changes nothing."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from mlr_rag import InvalidInputError, MLRModel
from mlr_rag.errors import UnsupportedModelError
from mlr_rag.model.query_adapter import AdapterForm, QueryAdapter
from tests.tiny import WORDS, build

TEXTS = [" ".join(words) for words in itertools.islice(itertools.permutations(WORDS[:6], 4), 20)]
FORMS: tuple[AdapterForm, ...] = ("linear", "keys")


def moved(model: MLRModel, seed: int = 0) -> MLRModel:
    """The model with an adapter that has learned something."""
    torch.manual_seed(seed)
    with torch.no_grad():
        model[-2].write.normal_(0, 0.3)
    return model


@pytest.fixture
def mixed(tiny_model_dir: Path) -> MLRModel:
    """A scalar mix: documents differ from queries before any adapter."""
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3))
    with torch.no_grad():
        model[1].layer_weights.copy_(torch.tensor([0.5, -0.2, 0.7]))
    return model


@pytest.mark.parametrize("form", FORMS)
def test_a_fresh_adapter_changes_nothing(mixed: MLRModel, form: AdapterForm) -> None:
    adapted = mixed.add_query_adapter(4, form)
    assert np.array_equal(adapted.encode_query(TEXTS), mixed.encode_query(TEXTS))
    assert np.array_equal(adapted.encode_document(TEXTS), mixed.encode_document(TEXTS))


@pytest.mark.parametrize("form", FORMS)
def test_queries_move_as_the_formula_says_and_documents_stay(mixed: MLRModel, form: AdapterForm) -> None:
    adapted = moved(mixed.add_query_adapter(4, form))
    adapter: Any = adapted[-2]
    read, write = (weights.detach().numpy().astype(np.float64) for weights in (adapter.read, adapter.write))
    e = mixed.encode_query(TEXTS).astype(np.float64)  # the length plays no part, so unit vectors do
    if form == "linear":
        expected = e + e @ read.T @ write
    else:
        weights = np.exp(e @ read.T)
        expected = e + weights / weights.sum(1, keepdims=True) @ write
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = adapted.encode_query(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found * e).sum(1).max() < 0.99
    assert np.array_equal(adapted.encode_document(TEXTS), mixed.encode_document(TEXTS))
    assert np.array_equal(adapted.encode_layers(TEXTS), mixed.encode_layers(TEXTS))


@pytest.mark.parametrize("form", FORMS)
def test_training_tells_queries_by_the_stamp_of_the_collator(mixed: MLRModel, form: AdapterForm) -> None:
    adapted = moved(mixed.add_query_adapter(4, form))
    features = adapted.preprocess(TEXTS)
    query = adapted({**features, "task": "query"})["sentence_embedding"].detach().numpy()
    document = adapted({**features, "task": "document"})["sentence_embedding"].detach().numpy()
    np.testing.assert_allclose(query, adapted.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(document, adapted.encode_document(TEXTS), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_saved_copied_and_pickled_it_gives_the_same_vectors(mixed: MLRModel, form: AdapterForm, tmp_path: Path) -> None:
    adapted = moved(mixed.add_query_adapter(4, form))
    adapted.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("*.bin"))
    for other in (MLRModel.load(tmp_path / "saved"), copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        assert np.array_equal(other.encode_query(TEXTS), adapted.encode_query(TEXTS))
        assert other.fingerprint == adapted.fingerprint
    with pytest.raises((ValueError, ImportError), match=r"mlr[-_]rag"):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")


def test_worker_pools_adapt_queries(mixed: MLRModel) -> None:
    adapted = moved(mixed.add_query_adapter(4))
    found = adapted.encode_query(TEXTS, device=["cpu", "cpu"])
    np.testing.assert_allclose(found, adapted.encode_query(TEXTS), atol=2e-6)


def test_every_layer_of_a_query_is_adapted(mixed: MLRModel) -> None:
    adapted = moved(mixed.add_query_adapter(4))
    layers = adapted.encode(TEXTS, task="query", return_layers=True)
    np.testing.assert_allclose(layers[:, -1], adapted.encode_query(TEXTS), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_only_the_adapter_is_trained(mixed: MLRModel, form: AdapterForm) -> None:
    adapted = mixed.add_query_adapter(4, form)
    adapted.freeze_documents()
    documents, queries = adapted.encode_document(TEXTS), adapted.encode_query(TEXTS)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.05, weight_decay=0.1)
    adapted.train()
    for _ in range(5):
        query = adapted({**adapted.preprocess(TEXTS[:8]), "task": "query"})["sentence_embedding"]
        document = adapted({**adapted.preprocess(TEXTS[8:16]), "task": "document"})["sentence_embedding"]
        assert not document.requires_grad
        (query * document).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert np.array_equal(adapted.encode_document(TEXTS), documents)
    assert (adapted.encode_query(TEXTS) * queries).sum(1).max() < 0.9999
    assert not any(parameter.requires_grad for parameter in adapted[0].parameters())


def test_without_a_query_side_nothing_is_left_to_train(mixed: MLRModel) -> None:
    with pytest.raises(InvalidInputError, match="add_query_adapter"):
        mixed.freeze_documents()
    assert all(parameter.requires_grad for parameter in mixed.parameters())


def test_the_same_seed_gives_the_same_adapter_and_leaves_torchs_alone(mixed: MLRModel) -> None:
    """A run that was killed makes its model again, in another process, and must find it the same."""
    state = torch.get_rng_state()
    one, other, another = (mixed.add_query_adapter(4, seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == other.fingerprint != another.fingerprint
    assert torch.equal(torch.get_rng_state(), state)


def test_impossible_adapters(mixed: MLRModel) -> None:
    for rank in (0, 33, 1.5, True, None):
        with pytest.raises(InvalidInputError, match="rank"):
            mixed.add_query_adapter(rank)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="form"):
        mixed.add_query_adapter(4, "cubic")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="already"):
        mixed.add_query_adapter(4).add_query_adapter(4)


def test_it_comes_after_a_dense_and_before_the_cut(tiny_model_dir: Path) -> None:
    """The width of the last module counts: neither that of the hidden states, nor what truncate_dim leaves."""
    torch.manual_seed(0)
    model = MLRModel.from_pretrained(tiny_model_dir)
    model = MLRModel._build([*list(model)[:2], Dense(32, 24), model[2]], "dense", {"truncate_dim": 16})
    adapted = moved(model.add_query_adapter(4))
    assert adapted.dimension == 16
    assert [type(module).__name__ for module in adapted][2:] == ["Dense", "QueryAdapter", "Normalize"]
    assert np.array_equal(adapted.encode_document(TEXTS), model.encode_document(TEXTS))
    assert np.abs(adapted.encode_query(TEXTS) - model.encode_query(TEXTS)).max() > 0.01


@pytest.mark.parametrize("layers", [(3,), (1, 3)])
def test_portable_export_of_a_linear_adapter(tiny_model_dir: Path, tmp_path: Path, layers: tuple[int, ...]) -> None:
    """It is a Dense on the way of queries; documents may be a mix of layers or the last one."""
    model = moved(MLRModel.from_pretrained(tiny_model_dir, layers=layers).add_query_adapter(4))
    if len(layers) > 1:
        with torch.no_grad():
            model[1].layer_weights.copy_(torch.tensor([0.4, 0.7]))
    model.export_portable(tmp_path / "portable")
    stock = SentenceTransformer(str(tmp_path / "portable"), device="cpu")
    np.testing.assert_allclose(stock.encode_query(TEXTS), model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(stock.encode_document(TEXTS), model.encode_document(TEXTS), atol=1e-5)
    assert "of modules of their own" in (tmp_path / "portable" / "README.md").read_text()


def test_portable_export_refuses_what_stock_modules_cannot_say(mixed: MLRModel, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match='form="linear"'):
        mixed.add_query_adapter(4, "keys").export_portable(tmp_path / "portable")
    assert not (tmp_path / "portable").exists()


def test_identity_tells_the_query_side_from_the_rest(mixed: MLRModel) -> None:
    adapted = mixed.add_query_adapter(4)
    before = adapted.identity()
    assert {name for name in before if before[name] != mixed.identity().get(name)} == {"query_side"}
    assert "query_side" not in mixed.identity(), "the digests in old passports have no such part"
    known = adapted.fingerprint
    with torch.no_grad():
        adapted[-2].write[0, 0] = 0.1
    assert adapted.fingerprint != known
    after = adapted.identity()
    assert {name for name in before if before[name] != after[name]} == {"query_side"}
    with torch.no_grad():
        adapted[0].model.encoder.layer[2].output.dense.weight[0, 0] += 0.1
    assert {name for name in before if after[name] != adapted.identity()[name]} == {"weights"}


def test_two_forms_with_the_same_weights_are_two_models(mixed: MLRModel) -> None:
    linear, keys = mixed.add_query_adapter(4, "linear"), mixed.add_query_adapter(4, "keys")
    keys[-2].load_state_dict(linear[-2].state_dict())
    assert linear.identity()["query_side"] != keys.identity()["query_side"]


def test_a_zero_vector_has_no_nearest_key() -> None:
    adapter = QueryAdapter(8, 2, "keys")
    torch.nn.init.normal_(adapter.write)
    assert torch.equal(adapter.adapt(torch.zeros(1, 8)), torch.zeros(1, 8))


def test_it_works_on_other_architectures(tmp_path: Path) -> None:
    model = MLRModel.from_pretrained(build("modernbert", tmp_path / "modernbert"), start="paper")
    adapted = moved(model.add_query_adapter(4))
    adapted.save(tmp_path / "saved")
    assert np.array_equal(MLRModel.load(tmp_path / "saved").encode_query(TEXTS), adapted.encode_query(TEXTS))
    assert np.array_equal(adapted.encode_document(TEXTS), model.encode_document(TEXTS))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vectors", [torch.float32, torch.bfloat16, torch.float16])
def test_vectors_keep_their_precision_whatever_the_weights(
    form: AdapterForm, weights: torch.dtype, vectors: torch.dtype
) -> None:
    adapter, given = QueryAdapter(8, 2, form), torch.ones(3, 8) / 8**0.5
    torch.nn.init.constant_(adapter.write, 0.5)
    expected = adapter.adapt(given)
    found = adapter.to(weights).adapt(given.to(vectors))
    assert found.dtype == vectors
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_modules_that_are_shared_stay_in_their_mode(mixed: MLRModel, training: bool) -> None:
    mixed.train(training)
    mixed[1].eval()
    modes = [module.training for module in mixed.modules()]
    adapted = mixed.add_query_adapter(4)
    plain = adapted.without_query_adapter()
    assert [module.training for module in mixed.modules()] == modes
    assert (adapted.training, adapted[-2].training, plain.training) == (training,) * 3
