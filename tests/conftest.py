"""Tiny random models and other things that many tests need."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import socket
from pathlib import Path
from typing import Any

import pytest

from mlr_rag import MLRModel
from mlr_rag.testing import HashEncoder
from tests.tiny import build


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may reach beyond this machine."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), f"a connection to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved sentence-transformers folder: a random BERT of 3 layers, 32 dimensions, 64 tokens, mean pooling."""
    return build("bert", tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def tiny_model(tiny_model_dir: Path) -> MLRModel:
    """A fresh MLRModel over it: layers 2 and 3, scalar mix."""
    return MLRModel.from_pretrained(tiny_model_dir)


@pytest.fixture(scope="session")
def asymmetric_model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> MLRModel:
    """Its queries are the last layer, its documents the mean of the first and the last; saved, and loaded again."""
    folder = tmp_path_factory.mktemp("asymmetric") / "model"
    MLRModel.from_pretrained(tiny_model_dir, layers=(1, 3), pooling="mean", start="paper").save(str(folder))
    model = MLRModel.load(folder)
    cosine = float((model.encode_query(["a river"]) @ model.encode_document(["a river"]).T).item())
    assert cosine < 0.99, "the two sides must differ, or it shows nothing"
    return model


@pytest.fixture
def encoder() -> HashEncoder:
    """An encoder that needs no model: unit vectors from the text's hash."""
    return HashEncoder()
