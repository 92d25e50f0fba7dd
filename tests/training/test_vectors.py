from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlr_rag import InvalidInputError, MLRModel
from mlr_rag.errors import StoreCorruptError, UnsupportedModelError
from mlr_rag.testing import HashEncoder
from mlr_rag.training.cache import ContentCache, content_key
from mlr_rag.training.mining import vectors
from mlr_rag.training.mining.vectors import VectorCache

TEXTS = ["stone bridge", "river", "old road by the river", "river", "kettle"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.sqlite"


def test_vectors_come_in_the_order_of_the_texts_and_each_text_is_encoded_once(encoder: HashEncoder) -> None:
    found = VectorCache().encode(encoder, TEXTS, "document")
    assert encoder.encoded == ["old road by the river", "stone bridge", "kettle", "river"]
    assert found.dtype == np.float32
    assert np.array_equal(found, encoder.encode_document(TEXTS))
    assert VectorCache().encode(encoder, [], "document").shape == (0, 16)


def test_what_is_known_is_not_encoded_again_and_equal_to_the_bit(path: Path, encoder: HashEncoder) -> None:
    with VectorCache(path) as cache:
        first = cache.encode(encoder, TEXTS, "document")
    encoder.encoded.clear()
    with VectorCache(path) as cache:
        again = cache.encode(encoder, [*TEXTS, "new"], "document")
    assert encoder.encoded == ["new"]
    assert again[:-1].tobytes() == first.tobytes()


def test_without_a_path_nothing_is_kept(encoder: HashEncoder) -> None:
    cache = VectorCache()
    cache.encode(encoder, ["a"], "document")
    cache.encode(encoder, ["a"], "document")
    assert encoder.encoded == ["a", "a"]


def test_queries_and_documents_have_vectors_of_their_own(path: Path, asymmetric_model: MLRModel) -> None:
    with VectorCache(path) as cache:
        for _ in range(2):
            assert np.array_equal(
                cache.encode(asymmetric_model, ["a river"], "query"), asymmetric_model.encode_query(["a river"])
            )
            assert np.array_equal(
                cache.encode(asymmetric_model, ["a river"], "document"), asymmetric_model.encode_document(["a river"])
            )


def test_a_model_that_was_trained_further_shares_no_vector_with_what_it_was(path: Path, tiny_model: MLRModel) -> None:
    with VectorCache(path) as cache:
        before = cache.encode(tiny_model, TEXTS, "document")
        with torch.no_grad():
            next(tiny_model.parameters()).mul_(1.5)
        after = cache.encode(tiny_model, TEXTS, "document")
    assert np.abs(after - before).max() > 1e-3
    assert np.allclose(after, tiny_model.encode_document(TEXTS), atol=1e-6)


def test_several_vectors_a_document_keep_their_shape(path: Path, tiny_model_dir: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3), pooling="multi_vector")
    with VectorCache(path) as cache:
        first = cache.encode(model, TEXTS, "document")
        assert first.shape == (5, 3, 32)
        assert np.array_equal(cache.encode(model, TEXTS, "document"), first)
        assert cache.encode(model, TEXTS, "query").shape == (5, 32)


def test_a_failure_loses_one_window_at_most(path: Path, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "WINDOW", 2)
    encode, texts = encoder.encode_document, [f"text {number}" for number in range(7)]

    def fails(inputs: list[str]) -> Any:
        if "text 5" in inputs:
            raise RuntimeError("out of memory")
        return encode(inputs)

    monkeypatch.setattr(encoder, "encode_document", fails)
    with VectorCache(path) as cache:
        with pytest.raises(RuntimeError, match="out of memory"):
            cache.encode(encoder, texts, "document")
        monkeypatch.setattr(encoder, "encode_document", encode)
        encoder.encoded.clear()
        found = cache.encode(encoder, texts, "document")
    assert encoder.encoded == ["text 4", "text 5", "text 6"]
    assert np.array_equal(found, encode(texts))


def test_what_a_killed_process_has_encoded_is_kept(path: Path) -> None:
    code = f"""
import os, signal
from mlr_rag.testing import HashEncoder
from mlr_rag.training.mining import vectors
vectors.WINDOW = 2
class Killed(HashEncoder):
    def encode_document(self, inputs):
        if "text 5" in inputs:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_document(inputs)
vectors.VectorCache({str(path)!r}).encode(Killed(), [f"text {{n}}" for n in range(7)], "document")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    encoder, texts = HashEncoder(), [f"text {number}" for number in range(7)]
    with VectorCache(path) as cache:
        found = cache.encode(encoder, texts, "document")
    assert encoder.encoded == ["text 4", "text 5", "text 6"]
    assert np.array_equal(found, encoder.encode_document(texts))


def test_an_encoder_without_a_fingerprint_goes_without_a_file_only(path: Path, encoder: HashEncoder) -> None:
    encoder.fingerprint = ""
    assert VectorCache().encode(encoder, ["a"], "document").shape == (1, 16)
    with VectorCache(path) as cache, pytest.raises(InvalidInputError, match=r"hash-encoder has no fingerprint"):
        cache.encode(encoder, ["a"], "document")


def test_a_kept_vector_of_another_shape_is_told(path: Path, encoder: HashEncoder) -> None:
    with ContentCache(path) as content:
        content.put_many({content_key("vector", encoder.fingerprint, "document", "a"): b"\0" * 60})
    with VectorCache(path) as cache, pytest.raises(StoreCorruptError, match=r"found 60 bytes, expected 16 float32"):
        cache.encode(encoder, ["a"], "document")


@pytest.mark.parametrize(
    ("made", "problem"),
    [(np.ones((1, 8)), "another shape"), (np.ones((2, 16)), "another shape"), (np.full((1, 16), np.nan), "not finite")],
)
def test_broken_vectors_are_refused_and_not_kept(
    path: Path, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch, made: Any, problem: str
) -> None:
    monkeypatch.setattr(encoder, "encode_document", lambda _: made)
    with VectorCache(path) as cache:
        with pytest.raises(UnsupportedModelError, match=problem):
            cache.encode(encoder, ["a"], "document")
        monkeypatch.undo()
        assert np.isfinite(cache.encode(encoder, ["a"], "document")).all()


def test_a_query_adapter_costs_no_document_a_second_encoding(path: Path, tiny_model: MLRModel) -> None:
    adapted = tiny_model.add_query_adapter(4)
    with torch.no_grad():
        adapted[-2].write += 1.0
    assert adapted.fingerprint != tiny_model.fingerprint
    assert adapted.document_fingerprint == tiny_model.document_fingerprint == tiny_model.fingerprint
    with VectorCache(path) as cache:
        before = cache.encode(tiny_model, TEXTS, "document")
        cache.encode(tiny_model, TEXTS, "query")
    with ContentCache(path) as content:
        known = content.count()
    with VectorCache(path) as cache:
        assert np.array_equal(cache.encode(adapted, TEXTS, "document"), before)
        assert np.array_equal(cache.encode(adapted, TEXTS, "query"), adapted.encode_query(TEXTS))
    with ContentCache(path) as content:
        assert content.count() == known + len(set(TEXTS)), "its queries alone are new"
