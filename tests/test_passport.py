"""No change of a model is unnoticed, none that moves vectors is accepted, and nothing else raises an alarm."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from mlr_rag import MLRModel, ModelMismatchError, Retriever
from mlr_rag.canaries import CANARIES
from mlr_rag.memory import MemoryStore
from mlr_rag.passport import TOLERANCE, Passport
from mlr_rag.testing import HashEncoder, unit_rows
from tests.tiny import WORDS, build

TEXTS = ["paris is the capital of france", "water boils", "the old bridge", "how to read a file " * 20]


def _model(folder: Path) -> MLRModel:
    model = MLRModel.from_pretrained(folder, layers=(1, 2, 3))
    with torch.no_grad():
        model[1].layer_weights.copy_(torch.tensor([0.2, 0.3, 0.5]))
    return model


@pytest.fixture
def original(tiny_model_dir: Path) -> MLRModel:
    return _model(tiny_model_dir)


# -- changes: each gets a fresh copy of the original and returns the changed model --------------------------------


def _train(steps: int, rate: float) -> Callable[[MLRModel], MLRModel]:
    def change(model: MLRModel) -> MLRModel:
        model.fingerprint  # noqa: B018  (cached before the change, as in a long-lived process)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for _ in range(steps):
            out = model(model.preprocess(TEXTS), task="document")["sentence_embedding"]
            (out[0] @ out[1]).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model

    return change


def _rebuilt(**options: Any) -> Callable[[MLRModel], MLRModel]:
    return lambda model: MLRModel.from_pretrained(model.name, **options)


def _set(**attributes: Any) -> Callable[[MLRModel], MLRModel]:
    def change(model: MLRModel) -> MLRModel:
        for name, value in attributes.items():
            setattr(model, name, value)
        return model

    return change


def _prompt(task: str) -> Callable[[MLRModel], MLRModel]:
    def change(model: MLRModel) -> MLRModel:
        model.prompts[task] = "the river : "
        return model

    return change


def _noise(scale: float) -> Callable[[MLRModel], MLRModel]:
    def change(model: MLRModel) -> MLRModel:
        torch.manual_seed(1)
        with torch.no_grad():
            weight = model[0].model.encoder.layer[1].output.dense.weight
            weight.add_(scale * torch.randn_like(weight))
        return model

    return change


def _behind_the_back(model: MLRModel) -> MLRModel:
    """Writing through `.data` leaves no trace in a tensor's version."""
    model.fingerprint  # noqa: B018
    weight = model[0].model.encoder.layer[2].output.dense.weight
    weight.data[:3, :3] += 5.0
    return model


def _module(name: str, **attributes: Any) -> Callable[[MLRModel], MLRModel]:
    """A setting of a module that no configuration tells."""

    def change(model: MLRModel) -> MLRModel:
        module = model.get_submodule(name)
        for attribute, value in attributes.items():
            setattr(module, attribute, value)
        return model

    return change


def _passage_prompt(model: MLRModel) -> MLRModel:
    model.prompts = {"passage": "the river : "}
    return model


def _shorter_by_settings(model: MLRModel) -> MLRModel:
    model[0].processing_kwargs = {"text": {"max_length": 6, "truncation": True}}
    return model


def _padded_left(model: MLRModel) -> MLRModel:
    model.tokenizer.padding_side = "left"
    return model


def _quantized(model: MLRModel) -> MLRModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its successor is another package
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def _config(**values: Any) -> Callable[[MLRModel], MLRModel]:
    """The same weights under another configuration, as an edited config.json gives."""

    def change(model: MLRModel) -> MLRModel:
        folder = Path(model.name).parent / f"edited-{'-'.join(values)}"
        model.save(folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return MLRModel.load(folder)

    return change


def _tokenizer(edit: Callable[[dict[str, Any]], None]) -> Callable[[MLRModel], MLRModel]:
    def change(model: MLRModel) -> MLRModel:
        folder = Path(model.name).parent / f"tokens-{edit.__name__}"
        model.save(folder)
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
        return MLRModel.load(folder)

    return change


def swapped_words(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["water"], vocabulary["france"] = vocabulary["france"], vocabulary["water"]


def no_markers(content: dict[str, Any]) -> None:
    content["post_processor"] = None


def _dense(model: MLRModel) -> MLRModel:
    torch.manual_seed(0)
    return MLRModel._build([*list(model)[:2], Dense(32, 32), model[2]], model.name, {})


def _other_model(model: MLRModel) -> MLRModel:
    return _model(build("bert", Path(model.name).parent / "other", seed=7))


CHANGES: dict[str, Callable[[MLRModel], MLRModel]] = {
    "a tiny training step": _train(1, 1e-7),
    "one training step": _train(1, 1e-2),
    "fifty training steps": _train(50, 1e-2),
    "other pooling": _rebuilt(layers=(1, 2, 3), pooling="mean", start="paper"),
    "the last layer alone": _rebuilt(layers=(1, 2, 3), pooling="last"),
    "other layers": _rebuilt(layers=(2, 3), start="paper"),
    "one vector a layer": _rebuilt(layers=(1, 2, 3), pooling="multi_vector"),
    "other token pooling": _rebuilt(layers=(1, 2, 3), token_pooling="cls"),
    "a prompt for queries": _prompt("query"),
    "a prompt for documents": _prompt("document"),
    "reads less": _set(max_seq_length=32),
    "reads one token less": _set(max_seq_length=63),
    "reads more": _set(max_seq_length=72),
    "fewer dimensions": _set(truncate_dim=16),
    "int8": _quantized,
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "float64": lambda model: model.to(torch.float64),
    "float16 and back": lambda model: model.to(torch.float16).to(torch.float32),
    "noise in one matrix": _noise(0.5),
    "a little noise in one matrix": _noise(1e-6),
    "a corner of a matrix, through .data": _behind_the_back,
    "padded on the left": _padded_left,
    "another length by its settings": _shorter_by_settings,
    "a prompt for passages": _passage_prompt,
    "another eps": _module("0.model.encoder.layer.1.output.LayerNorm", eps=0.5),
    "another activation, in place": _module(
        "0.model.encoder.layer.1.intermediate", intermediate_act_fn=torch.nn.ReLU()
    ),
    "another model of the same dimension": _other_model,
    "other number of heads": _config(num_attention_heads=4),
    "other activation": _config(hidden_act="relu"),
    "two words of the vocabulary swapped": _tokenizer(swapped_words),
    "no [CLS] and [SEP]": _tokenizer(no_markers),
    "a further module": _dense,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_or_noted(
    name: str, original: MLRModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = copy.deepcopy(original)
    before.name = str(shutil.copytree(before.name, tmp_path / "base"))
    store = MemoryStore(32)
    Retriever(before, store).add(TEXTS)
    changed = CHANGES[name](copy.deepcopy(before))
    expected = _lowest_canary_cosine(before, changed)
    caplog.clear()
    if expected is not None and expected >= TOLERANCE:
        with caplog.at_level(logging.WARNING, "mlr_rag"):
            kb = Retriever(changed, store)
        assert "accepted as equivalent" in kb.info().note
        assert any("accepted as equivalent" in record.getMessage() for record in caplog.records)
        moved = (before.encode_document(TEXTS[:3]) * changed.encode_document(TEXTS[:3])).sum(-1).min()
        assert moved > 0.999, "vectors moved, and the model was accepted"
    else:
        with pytest.raises(ModelMismatchError) as refused:
            Retriever(changed, store)
        assert before.name in str(refused.value)
        assert "Open it with the model" in str(refused.value)
        assert ".reindex(model)" in str(refused.value)
        shown = "another shape" if expected is None else f"canary cosine {expected:.4f}"
        assert shown in refused.value.found


def test_the_changes_show_both_outcomes(original: MLRModel, tmp_path: Path) -> None:
    """Else the rule above would be tested on one side only."""
    original.name = str(shutil.copytree(original.name, tmp_path / "base"))
    cosines = {name: _lowest_canary_cosine(original, CHANGES[name](copy.deepcopy(original))) for name in CHANGES}
    accepted = {name for name, cosine in cosines.items() if cosine is not None and cosine >= TOLERANCE}
    assert accepted >= {"float16 and back", "a tiny training step", "a little noise in one matrix", "float64"}
    assert len(CHANGES) - len(accepted) >= 15, cosines


def _lowest_canary_cosine(one: MLRModel, other: MLRModel) -> float | None:
    pairs = []
    for encode in ("encode_query", "encode_document"):
        vectors = [
            np.asarray(getattr(model, encode)(list(CANARIES), return_cut=True)[0], np.float64) for model in (one, other)
        ]
        if vectors[0].shape != vectors[1].shape:
            return None
        pairs.append(vectors)
    return min(float((a * b).sum(-1).min()) for a, b in pairs)


# -- harmless: nothing raised, nothing noted ---------------------------------------------------------------------


def _saved(model: MLRModel, tmp_path: Path) -> MLRModel:
    model.save(tmp_path / "saved")
    return MLRModel.load(tmp_path / "saved")


def _used(model: MLRModel, tmp_path: Path) -> MLRModel:
    model.encode_query(TEXTS[:3])
    model.encode_layers(TEXTS[:3], batch_size=2)
    return model


def _with_gradients(model: MLRModel, tmp_path: Path) -> MLRModel:
    model.train()
    model(model.preprocess(TEXTS), task="document")["sentence_embedding"].sum().backward()
    return model


def _nothing_learnt(model: MLRModel, tmp_path: Path) -> MLRModel:
    _with_gradients(model, tmp_path)
    torch.optim.SGD(model.parameters(), lr=0.0).step()
    return model


def _unused_prompt(model: MLRModel, tmp_path: Path) -> MLRModel:
    model.prompts["clustering"] = "group this: "
    return model


def _empty_prompt(model: MLRModel, tmp_path: Path) -> MLRModel:
    model.prompts["query"] = ""
    return model


def _renamed(model: MLRModel, tmp_path: Path) -> MLRModel:
    model.name = "something else"
    model[0].model.config._name_or_path = "something else"
    return model


def _dropout(model: MLRModel, tmp_path: Path) -> MLRModel:
    model[0].model.config.hidden_dropout_prob = 0.3
    return model


def _attention(kind: str) -> Callable[[MLRModel, Path], MLRModel]:
    def change(model: MLRModel, tmp_path: Path) -> MLRModel:
        model[0].model.set_attn_implementation(kind)
        return model

    return change


def _checkpointing(model: MLRModel, tmp_path: Path) -> MLRModel:
    model[0].model.activation_checkpointing_enable()
    return model


def _frozen(model: MLRModel, tmp_path: Path) -> MLRModel:
    return model.requires_grad_(False)


def _threads(n: int) -> Callable[[MLRModel, Path], MLRModel]:
    def change(model: MLRModel, tmp_path: Path) -> MLRModel:
        torch.set_num_threads(n)
        return model

    return change


def _moved_memory(model: MLRModel, tmp_path: Path) -> MLRModel:
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def _padded_by_hand(model: MLRModel, tmp_path: Path) -> MLRModel:
    model.tokenizer(TEXTS, padding="max_length", truncation=True, max_length=20)
    return model


def _hooked_again(model: MLRModel, tmp_path: Path) -> MLRModel:
    model[1].on_model_ready(model)
    return model


HARMLESS: dict[str, Callable[[MLRModel, Path], MLRModel]] = {
    "the same object": lambda model, _: model,
    "a copy": lambda model, _: copy.deepcopy(model),
    "pickled": lambda model, _: pickle.loads(pickle.dumps(model)),
    "saved and loaded": _saved,
    "saved and loaded twice": lambda model, path: _saved(_saved(model, path / "a"), path / "b"),
    "used": _used,
    "in training mode": lambda model, _: model.train(),
    "with gradients": _with_gradients,
    "a step that learns nothing": _nothing_learnt,
    "a prompt for another task": _unused_prompt,
    "an empty prompt": _empty_prompt,
    "another name": _renamed,
    "another dropout": _dropout,
    "eager attention": _attention("eager"),
    "sdpa attention": _attention("sdpa"),
    "gradient checkpointing": _checkpointing,
    "frozen": _frozen,
    "one thread": _threads(1),
    "two threads": _threads(2),
    "weights elsewhere in memory": _moved_memory,
    "the tokenizer used otherwise": _padded_by_hand,
    "hooked again": _hooked_again,
    "moved to the same device": lambda model, _: model.to("cpu"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_things_are_not_noticed(
    name: str, original: MLRModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore(32)
    Retriever(copy.deepcopy(original), store).add(TEXTS[:3])
    caplog.clear()
    threads = torch.get_num_threads()
    try:
        with caplog.at_level(logging.INFO, "mlr_rag"):
            kb = Retriever(HARMLESS[name](original, tmp_path), store)
            assert len(kb.search("paris")) == 3
    finally:
        torch.set_num_threads(threads)
    assert kb.info().note == ""
    assert not caplog.records


# -- the rest ----------------------------------------------------------------------------------------------------


def test_a_model_that_changes_while_open_is_noticed(original: MLRModel) -> None:
    kb = Retriever(original, MemoryStore(32))
    kb.add(TEXTS)
    _train(50, 1e-2)(original)
    with pytest.raises(ModelMismatchError):
        kb.search("paris")
    with pytest.raises(ModelMismatchError):
        kb.add(["bridge"])
    assert kb.count() == 4


def test_two_bases_with_one_name(tmp_path: Path) -> None:
    """The weights at a path were replaced: the name is the same, the model isn't."""
    store = MemoryStore(32)
    Retriever(_model(build("bert", tmp_path / "base")), store)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelMismatchError, match="weights"):
        Retriever(_model(build("bert", tmp_path / "base", seed=5)), store)


def test_tolerance_is_written_into_the_passport(original: MLRModel, tmp_path: Path) -> None:
    store = MemoryStore(32)
    Retriever(copy.deepcopy(original), store, tolerance=0.5)
    changed = _noise(0.05)(original)
    cosine = _lowest_canary_cosine(_model(Path(original.name)), changed)
    assert cosine is not None
    assert 0.5 < cosine < TOLERANCE
    assert "accepted" in Retriever(changed, store).info().note


def test_lengths_beyond_the_canaries_are_refused(tmp_path: Path) -> None:
    """No canary is long enough to show the difference, so nothing vouches for the longer texts."""
    model = _model(build("t5", tmp_path / "t5"))  # relative positions: reads texts of any length
    model.max_seq_length = 6000
    passport = Passport.issue(model)
    model.max_seq_length = 5000
    verdict = passport.compare(model)
    assert verdict.cosine == pytest.approx(1.0)
    assert verdict.differs == ("max_length",)
    assert not verdict.accepted


def test_a_plain_sentence_transformer_and_its_multi_layer_model_are_equivalent(tiny_model_dir: Path) -> None:
    plain = SentenceTransformer(str(tiny_model_dir), device="cpu")
    store = MemoryStore(32)
    Retriever(plain, store).add(TEXTS)
    assert "accepted" in Retriever(MLRModel.from_pretrained(tiny_model_dir), store).info().note


def test_embeddings_without_a_fingerprint_rest_on_the_canaries() -> None:
    class Embeddings:
        def __init__(self, version: str) -> None:
            self.encoder = HashEncoder(version=version)

        def embed_query(self, text: str) -> list[float]:
            return self.encoder.encode_query([text])[0].tolist()

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return self.encoder.encode_document(texts).tolist()

    store = MemoryStore(16)
    Retriever(Embeddings("1"), store).add(["a text"])
    assert Retriever(Embeddings("1"), store).info().note == ""
    with pytest.raises(ModelMismatchError, match="no fingerprint"):
        Retriever(Embeddings("2"), store)


def test_vectors_without_a_passport_are_refused() -> None:
    from mlr_rag import Document
    from mlr_rag.stores import Record

    store = MemoryStore(16)
    store.upsert([Record(Document("text"), unit_rows(1, 16)[0])])
    with pytest.raises(ModelMismatchError, match="no passport"):
        Retriever(HashEncoder(), store)


def test_passport_survives_json(original: MLRModel) -> None:
    passport = Passport.issue(original)
    again = Passport.model_validate(json.loads(json.dumps(passport.model_dump())))
    assert again == passport
    assert again.compare(original).same


def test_words_of_the_canaries_are_known_to_the_tiny_model() -> None:
    """Else the tiny model would see only unknown words, and these tests little."""
    assert sum(word in " ".join(CANARIES).lower() for word in WORDS) > 30
