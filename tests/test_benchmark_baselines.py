"""The baselines of benchmarks/objectives.py score as their papers say, and an experiment survives a kill."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.util import maxsim as stock_maxsim

from benchmarks import _baselines as baselines
from benchmarks import _training as training
from benchmarks import raw_backbone
from benchmarks._cells import Cell, _record, finished, values
from mlr_rag.training.collator import ListCollator
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.objectives import MultiVector

QUERIES = ["what is the capital of france?", "how to read a file line by line"]
DOCUMENTS = [
    "paris",
    "paris is the capital of france",
    "water boils in the kettle on the stove",
    "old roads meet: a stone",
]
TOKENS = 32


@pytest.fixture(params=[2, 4, TOKENS], ids=["me-bert 2", "me-bert 4", "colbert"])
def model(request: pytest.FixtureRequest, tiny_model_dir: Path) -> baselines.TokenVectors:
    made = baselines.token_model(str(tiny_model_dir), request.param, TOKENS)
    made.count = request.param
    return made


def literal_scores(model, similarity: str) -> list[list[float]]:
    """The largest product of the query's first vector with each of the document's first tokens; padding at -10000."""
    rows = []
    for query in QUERIES:
        q = token_vectors(model, query)[0]
        row = []
        for document in DOCUMENTS:
            products = []
            for vector in token_vectors(model, document)[: model.count]:
                product = float(q @ vector)
                products.append(product / float(q.norm() * vector.norm()) if similarity == "cosine" else product)
            row.append(max([*products, -10000.0]))
        rows.append(row)
    return rows


def token_vectors(model, text: str) -> torch.Tensor:
    with torch.no_grad():
        return model[0].eval()(model.preprocess([text]))["token_embeddings"][0]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_token_models_score_as_a_literal_transcription(model, similarity) -> None:
    queries = training.encode(model, QUERIES, "query", similarity)[:, 0]
    documents = training.encode(model, DOCUMENTS, "document", similarity)
    expected = torch.tensor(literal_scores(model, similarity))
    torch.testing.assert_close(training.largest(queries, documents), expected, atol=1e-4, rtol=1e-5)


def test_token_models_train_on_the_scores_that_they_are_searched_with(model) -> None:
    seen = []

    class Spy(MultiVector):
        def loss(self, scores, batch):
            seen.append(scores.amax(-1).detach())
            return super().loss(scores, batch)

    lists = [TrainingList(query, tuple(DOCUMENTS), labels=(1.0, 0.0, 0.0, 0.0)) for query in QUERIES]
    loss = ListLoss(model, Spy(0.05), gradient_cache=False)
    model.train()
    model[0].eval()
    for features, labels in training.as_inputs(ListCollator(model), [lists]):
        sum(loss(features, labels).values()).backward()
    assert model[0].model.get_input_embeddings().weight.grad.abs().sum() > 0
    by_value = torch.tensor(literal_scores(model, "cosine")).flatten().sort().values
    torch.testing.assert_close(seen[0].flatten().sort().values, by_value, atol=1e-5, rtol=1e-5)


def test_maxsim_is_the_stock_one(tiny_model_dir) -> None:
    model = baselines.maxsim_model(str(tiny_model_dir), TOKENS)
    queries, documents = baselines._embed(model, QUERIES, "query"), baselines._embed(model, DOCUMENTS, "document")
    expected = stock_maxsim(
        model.encode_query(QUERIES, convert_to_numpy=False), model.encode_document(DOCUMENTS, convert_to_numpy=False)
    )
    torch.testing.assert_close(baselines.maxsim(*queries, *documents), expected, atol=1e-5, rtol=1e-5)


def test_search_finds_what_sorting_all_scores_finds_and_not_the_query_itself(tiny_model_dir) -> None:
    model = baselines.token_model(str(tiny_model_dir), 2, TOKENS)
    corpus = {f"d{number}": text for number, text in enumerate(DOCUMENTS)} | {"q0": QUERIES[0]}
    queries = training.Queries({"q0": QUERIES[0], "q1": QUERIES[1]}, {"q0": {"d1": 1}, "q1": {"d0": 1}})
    data = training.Data("tiny", corpus, queries, {}, {"test": queries})
    run = training.search(model, data, "test", "cosine", k=3)
    scores = training.largest(
        training.encode(model, QUERIES, "query", "cosine")[:, 0],
        training.encode(model, list(corpus.values()), "document", "cosine"),
    )
    for row, query in enumerate(queries.texts):
        ranked = sorted(zip(scores[row].tolist(), corpus, strict=True), reverse=True)
        assert list(run[query]) == [id for _, id in ranked if id != query][:3]


def test_batches_of_a_seed_are_the_same_and_those_of_another_differ() -> None:
    train = training.Queries({f"q{n}": "" for n in range(9)}, {f"q{n}": {f"d{n}": 1} for n in range(9)})
    corpus = {f"d{n}": f"text {n}" for n in range(9)}
    hard = {query: [id for id in corpus if id[1] != query[1]] for query in train.texts}
    data = training.Data("tiny", corpus, train, hard, {})
    first, again, other = (list(training.batches(data, seed, 3, 4, 3)) for seed in (0, 0, 1))
    assert first == again != other
    assert all(documents[0] == "d" + query[1:] for rows in first for query, documents in rows)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_line_that_a_kill_has_torn_is_no_result_and_spoils_none(tmp_path, kept) -> None:
    cells = [Cell("squad", "de", seed, 1e-3) for seed in range(3)]
    log = tmp_path / "results.jsonl"
    _record(tmp_path, cells[0], {"ndcg@10": 0.5}, {"ndcg@10": np.array([0.0, 1.0])})
    whole = log.read_text().rstrip()
    _record(tmp_path, cells[1], {"ndcg@10": 0.25}, {"ndcg@10": np.array([0.5, 0.0])})
    added = log.read_text().rstrip()[len(whole) :]
    log.write_text(whole + added[: int(kept * len(added))])
    assert list(finished(tmp_path)) == [cells[0]]
    _record(tmp_path, cells[2], {"ndcg@10": 0.75}, {"ndcg@10": np.array([0.5, 1.0])})
    assert finished(tmp_path) == {cells[0]: {"ndcg@10": 0.5}, cells[2]: {"ndcg@10": 0.75}}
    np.testing.assert_array_equal(values(tmp_path, cells[2])["ndcg@10"], [0.5, 1.0])


def test_a_summary_of_half_an_experiment_compares_what_is_there_and_counts_what_is_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(raw_backbone, "FOLDER", tmp_path)
    monkeypatch.setattr(raw_backbone, "SEEDS", 2)
    monkeypatch.setattr("sys.argv", ["raw_backbone", "--summarize"])
    for cell in raw_backbone.grid():  # DE's best rate is the middle one
        _record(tmp_path, cell, {"top-5": float(cell.rate == 3e-4)}, {})
    wanted = raw_backbone.cells(finished(tmp_path))
    assert {cell.rate for cell in wanted if cell.method != "untrained"} <= {3e-4, 0.0}
    for cell in wanted:
        if cell.method not in ("de", "self-contrastive"):
            continue
        hits = np.zeros(200)
        hits[: 50 if cell.method == "de" else 150] = 1
        found = dict.fromkeys(("ndcg@10", "top-5", "top-20", "top-100"), hits)
        means = {name: each.mean() for name, each in found.items()}
        _record(tmp_path, cell, means | {"wins": {"2": 0.75, "1": 0.25}}, found)
    raw_backbone.summarize(argparse.Namespace(into=tmp_path / "report.md", seed=0))
    section = (tmp_path / "report.md").read_text()
    row = next(line for line in section.splitlines() if line.startswith("| self-contrastive, weight 1 | 75.0 ± 0.0"))
    assert "| +50.0 [" in row
    assert "| 25.0% | 2 |" in row
    assert f"**{len(wanted) - 4} cells are missing.**" in section
