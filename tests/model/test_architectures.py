"""Every covered architecture: layers are found and captured, and a fresh model is its base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from mlr_rag import MLRModel
from tests.tiny import CONFIGS, build

TEXTS = ["paris is the capital of france", "water", "how to read a file line by line " * 30, "the kettle on the stove"]
SINGLE = ("last", "mean", "scalar_mix", "self_contrastive")


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(request.param, tmp_path_factory.mktemp("models") / request.param)


def test_t5_with_as_many_layers_as_a_block_has_parts(tmp_path: Path) -> None:
    """Its blocks hold lists of two modules, which are not its layers."""
    base = build("t5", tmp_path, num_layers=2)
    model = MLRModel.from_pretrained(base)
    assert model.layers == (1, 2)
    expected = SentenceTransformer(str(base), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(model.encode_document(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", SINGLE)
def test_fresh_model_is_its_base(folder: Path, pooling: str) -> None:
    base = SentenceTransformer(str(folder), device="cpu")
    model = MLRModel.from_pretrained(folder, pooling=pooling)
    expected = base.encode(TEXTS)
    assert model.layers == (2, 3)
    for found in (model.encode_document(TEXTS), model.encode_query(TEXTS), model.encode(TEXTS)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_layers_are_the_hidden_states(folder: Path) -> None:
    """Hooked layers equal transformers' own hidden states, pooled, with the final norm where there is one."""
    model = MLRModel.from_pretrained(folder, layers=(1, 2, 3), pooling="mean", start="paper")
    backbone = model[0].model
    features = model.preprocess(TEXTS)
    inputs = {key: features[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = backbone(**inputs, output_hidden_states=True).hidden_states
    (norm,) = model[1]._final_norm or (torch.nn.Identity(),)
    expected = []
    for layer in (1, 2, 3):
        hidden = states[layer] if layer == 3 else norm(states[layer])
        pooled = model[1].pool_tokens({"token_embeddings": hidden, **inputs})["sentence_embedding"]
        expected.append(torch.nn.functional.normalize(pooled, dim=-1).detach().numpy())
    found = model.encode_layers(TEXTS)
    assert found.shape == (4, 3, 32)
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=2e-6)
    assert np.abs(found[:, 0] - found[:, 2]).max() > 0.05, "the layers are alike, so the test shows nothing"


def test_paper_mean_pools_the_layers_of_documents_only(folder: Path) -> None:
    model = MLRModel.from_pretrained(folder, pooling="mean", start="paper")
    base = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(model.encode_query(TEXTS), base, atol=1e-6)
    assert np.abs(model.encode_document(TEXTS) - base).max() > 0.01


def test_save_and_load(folder: Path, tmp_path: Path) -> None:
    model = MLRModel.from_pretrained(folder, layers=(1, 3), pooling="mean", start="paper")
    model.save(tmp_path / "saved")
    loaded = MLRModel.load(tmp_path / "saved")
    assert loaded.layers == (1, 3)
    assert np.abs(loaded.encode_document(TEXTS) - model.encode_document(TEXTS)).max() == 0.0
    assert loaded.fingerprint == model.fingerprint


def test_gradient_checkpointing_and_gradients(folder: Path) -> None:
    """Layers captured under checkpointing carry the same values and gradients."""

    def gradients(checkpointing: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        torch.manual_seed(0)
        model = MLRModel.from_pretrained(folder, pooling="scalar_mix", start="paper")
        if checkpointing:
            model[0].model.activation_checkpointing_enable()
            assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        out = model(model.preprocess(TEXTS), task="document")
        out["layer_embeddings"][..., 0].sum().backward()
        weights = [p.grad.clone() for _, p in sorted(model.named_parameters()) if p.grad is not None]
        return out["layer_embeddings"].detach(), weights

    if not MLRModel.from_pretrained(folder)[0].model.supports_gradient_checkpointing:
        with pytest.raises(ValueError, match="does not support"):  # transformers' own refusal (MPNet)
            gradients(True)
        return
    plain, checkpointed = gradients(False), gradients(True)
    torch.testing.assert_close(plain[0], checkpointed[0], atol=1e-5, rtol=1e-4)
    assert len(plain[1]) == len(checkpointed[1]) > 10
    for one, other in zip(plain[1], checkpointed[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
