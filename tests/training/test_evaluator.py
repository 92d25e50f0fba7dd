"""RetrievalEvaluator: the same figures as a store's, and a pool that is only a smaller corpus."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mlr_rag import Document, InvalidInputError, MLRModel, Retriever
from mlr_rag.evaluation import evaluator as module
from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.evaluation.metrics import mean_metrics, search_all

TEXTS = {f"d{i:02}": f"the {('river', 'road', 'stone')[i % 3]} by the {chr(97 + i)}" for i in range(26)}
TEXTS["d26"] = "the stone"
QUERIES = {"q1": "the river", "q2": "what is the road", "q3": "a stone"}
QRELS = {"q1": {"d00": 2, "d03": 1, "d01": 0}, "q2": {"d04": 1, "nowhere": 1}, "q3": {"d02": 3, "d26": 1}}


class Fixed:
    """A model whose vectors are given."""

    def __init__(self, queries: Any, documents: dict[str, Any]) -> None:
        self._queries, self._documents = queries, documents

    def encode_query(self, texts: list[str]) -> Any:
        return np.asarray(self._queries, np.float32)

    def encode_document(self, texts: list[str]) -> Any:
        return np.asarray([self._documents[text] for text in texts], np.float32)


@pytest.mark.parametrize("window", [2048, 5])
@pytest.mark.parametrize("pooling", ["scalar_mix", "multi_vector"])
def test_the_figures_are_those_of_a_search_in_a_store(
    tiny_model_dir: Any, monkeypatch: pytest.MonkeyPatch, pooling: Any, window: int
) -> None:
    monkeypatch.setattr(module, "WINDOW", window)
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 3), pooling=pooling)
    kb = Retriever.open("memory:", model=model)
    kb.add([Document(text, id) for id, text in TEXTS.items()])
    expected = mean_metrics(QRELS, search_all(kb, QUERIES, QRELS))
    found = RetrievalEvaluator(QUERIES, QRELS, TEXTS)(model)
    assert found == pytest.approx({f"dev_{name}": value for name, value in expected.items()}, abs=1e-9)
    assert 0 < found["dev_ndcg@10"] < 1


def test_each_query_s_value_is_told_in_one_order_for_every_model(tiny_model: MLRModel) -> None:
    evaluator = RetrievalEvaluator(QUERIES, QRELS, TEXTS)
    found = evaluator.per_query(tiny_model)
    assert list(found) == list(QRELS)
    assert np.mean(list(found.values())) == pytest.approx(evaluator(tiny_model)["dev_ndcg@10"])
    assert len(set(found.values())) == 3
    far = evaluator.per_query(Fixed(-np.eye(3), {text: [1.0, 1.0, 1.0] for text in TEXTS.values()}))
    assert list(far) == list(QRELS)


def test_grades_count_in_ndcg() -> None:
    axes = np.eye(2)
    documents = {"good": axes[0], "better": axes[1]}
    both = RetrievalEvaluator({"q": "?"}, {"q": {"1": 1, "2": 3}}, {"1": "good", "2": "better"})
    discount = 1 / np.log2(3)
    best, worst = 3 + discount, 1 + 3 * discount
    assert both(Fixed([[0.1, 1.0]], documents))["dev_ndcg@10"] == pytest.approx(1.0)
    assert both(Fixed([[1.0, 0.1]], documents))["dev_ndcg@10"] == pytest.approx(worst / best)


def test_a_query_that_is_a_document_does_not_find_itself() -> None:
    documents = {"itself": [1.0, 0.0], "other": [0.6, 0.8]}
    evaluator = RetrievalEvaluator({"x": "itself"}, {"x": {"y": 1}}, {"x": "itself", "y": "other"})
    assert evaluator(Fixed([[1.0, 0.0]], documents))["dev_mrr@10"] == 1.0


def test_queries_and_documents_that_are_numbered_alike_are_not_the_same() -> None:
    documents = {"one": [1.0, 0.0], "two": [0.6, 0.8]}
    evaluator = RetrievalEvaluator({"1": "?", "2": "?"}, {"1": {"1": 1}, "2": {"2": 1}}, {"1": "one", "2": "two"})
    assert evaluator.per_query(Fixed([[1.0, 0.0], [0.0, 1.0]], documents)) == {"1": 1.0, "2": 1.0}


def test_equal_scores_beyond_the_depth_are_cut_by_id() -> None:
    corpus = {f"{i:03}": f"same {i}" for i in reversed(range(150))}
    same = {text: [1.0] for text in corpus.values()}
    first = RetrievalEvaluator({"q": "?"}, {"q": {"099": 1}}, corpus)(Fixed([[1.0]], same))
    beyond = RetrievalEvaluator({"q": "?"}, {"q": {"100": 1}}, corpus)(Fixed([[1.0]], same))
    assert (first["dev_recall@100"], beyond["dev_recall@100"]) == (1.0, 0.0)


def test_a_pool_holds_the_judged_and_the_first_of_each_query_only(tiny_model: MLRModel) -> None:
    run = {"q1": {"d05": 0.9, "d06": 0.8, "d07": 0.1}, "q2": {"d08": 0.5, "gone": 0.9, "d09": 0.5}}
    pooled = RetrievalEvaluator.over_pool(QUERIES, QRELS, TEXTS, run, depth=2)
    pool = {id: TEXTS[id] for id in ("d00", "d03", "d01", "d04", "d02", "d26", "d05", "d06", "d08")}
    assert pooled.primary_metric == "dev_pool_ndcg@10"
    assert pooled.fingerprint == RetrievalEvaluator(QUERIES, QRELS, pool, "dev_pool").fingerprint
    assert list(pooled(tiny_model)) == ["dev_pool_ndcg@10", "dev_pool_recall@100", "dev_pool_mrr@10"]


def test_the_fingerprint_changes_with_all_that_changes_the_figures() -> None:
    base = RetrievalEvaluator(QUERIES, QRELS, TEXTS).fingerprint
    others = [
        RetrievalEvaluator({**QUERIES, "q1": "the rivers"}, QRELS, TEXTS),
        RetrievalEvaluator(QUERIES, {**QRELS, "q1": {"d00": 1}}, TEXTS),
        RetrievalEvaluator(QUERIES, QRELS, {**TEXTS, "d00": "another"}),
        RetrievalEvaluator(QUERIES, QRELS, TEXTS, name="test"),
    ]
    assert len({base, *(other.fingerprint for other in others)}) == 5


def test_queries_without_a_positive_are_left_out_and_blank_documents_never_encoded() -> None:
    evaluator = RetrievalEvaluator({"q": "?"}, {"q": {"a": 1}, "none": {"a": 0}}, {"a": "text", "b": "  "})
    assert evaluator(Fixed([[1.0]], {"text": [1.0]}))["dev_recall@100"] == 1.0


@pytest.mark.parametrize(
    ("queries", "qrels", "corpus", "message"),
    [
        ({}, {"q": {"a": 1}}, {"a": "text"}, "judged queries have no text: found 1, such as q"),
        ({"q": "?"}, {"q": {"a": 0}}, {"a": "text"}, "no query has a relevant document in the corpus"),
        ({"q": "?"}, {"q": {"b": 1}}, {"a": "text"}, "no query has a relevant document in the corpus"),
        ({"q": "?"}, {}, {}, "no query has a relevant document in the corpus"),
    ],
)
def test_judgments_that_cannot_be_used_are_refused(queries: Any, qrels: Any, corpus: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        RetrievalEvaluator(queries, qrels, corpus)


def test_documents_are_encoded_again_only_when_their_vectors_have_changed(
    tiny_model: MLRModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model.add_query_adapter(4)
    evaluator, encoded = RetrievalEvaluator(QUERIES, QRELS, TEXTS), []
    encode = MLRModel.encode_document

    def counted(self: MLRModel, texts: list[str], **options: Any) -> Any:
        encoded.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(MLRModel, "encode_document", counted)
    first = evaluator(model)
    with torch.no_grad():
        model[-2].write += 5 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    second = evaluator(model)
    assert encoded == [len(TEXTS)]
    assert first != second, "the queries are encoded anew"
    with torch.no_grad():
        model[1].layer_weights += torch.tensor([1.0, 0.0])
    third = evaluator(model)
    assert encoded == [len(TEXTS)] * 2
    assert third == RetrievalEvaluator(QUERIES, QRELS, TEXTS)(model)
