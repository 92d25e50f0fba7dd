"""Training a query adapter: quick, the same each time, kept where it was best, and no document moves."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlr_rag import InvalidInputError, MLRModel, progress
from mlr_rag.errors import TrainingError
from mlr_rag.evaluation.evaluator import RetrievalEvaluator
from mlr_rag.training.cache import ContentCache
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.objectives import InfoNCE, ListwiseKL
from mlr_rag.training.query_side import QueryTraining, _Frozen, train_query_adapter
from tests.tiny import WORDS

DRAW = random.Random(5)
CORPUS = {f"d{i}": " ".join(DRAW.sample(WORDS, 6)) for i in range(60)}
# Nothing to be learned by heart: each query is a document's words in another order, a few of them exchanged.
QUERIES = {f"q{i}": " ".join(DRAW.sample(CORPUS[f"d{i}"].split(), 4) + DRAW.sample(WORDS, 1)) for i in range(60)}
QRELS = {f"q{i}": {f"d{i}": 1} for i in range(60)}
DEV = {f"q{i}": QUERIES[f"q{i}"] for i in range(40, 60)}, {f"q{i}": QRELS[f"q{i}"] for i in range(40, 60)}
OPTIONS: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2}


def _lists(teacher: bool = False) -> list[TrainingList]:
    made = []
    for i in range(40):
        passages = (CORPUS[f"d{i}"], CORPUS[f"d{(i + 1) % 60}"], CORPUS[f"d{(i + 7) % 60}"])
        made.append(TrainingList(QUERIES[f"q{i}"], passages, (3.0, 1.0, 2.0) if teacher else None, (1, 0, 0)))
    return made


@pytest.fixture
def base(tiny_model_dir: Path) -> MLRModel:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3))
    with torch.no_grad():
        model[1].layer_weights.copy_(torch.tensor([0.2, 0.3, 0.5]))
    return model


def _trained(base: MLRModel, form: Any = "linear", **options: Any) -> tuple[MLRModel, QueryTraining]:
    model = base.add_query_adapter(8, form)
    return model, train_query_adapter(model, _lists(), CORPUS, **(OPTIONS | options))


@pytest.mark.parametrize("form", ["linear", "keys"])
def test_the_loss_falls_and_documents_stay(base: MLRModel, form: str) -> None:
    documents = base.encode_document(list(CORPUS.values()))
    model, done = _trained(base, form)
    assert done.losses[-1] < done.losses[0] - 0.05
    assert np.array_equal(model.encode_document(list(CORPUS.values())), documents)
    assert (model.encode_query(list(QUERIES.values())) * base.encode_query(list(QUERIES.values()))).sum(1).min() < 0.99


def test_scores_are_those_of_retrieval(base: MLRModel) -> None:
    """From constants, what the model gives: adapter, unit length, cut and all."""
    model, _ = _trained(base)
    for truncate_dim in (None, 16):
        model.truncate_dim = truncate_dim
        frozen = _Frozen(model, _lists(), CORPUS, VectorCache(), None)
        found = frozen.scores(model[-2], frozen.queries)[..., 0].detach().numpy()
        expected = model.encode_query([each.query for each in _lists()]) @ model.encode_document(list(frozen.columns)).T
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_vectors_a_document_are_layers_last_first(tiny_model_dir: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3), pooling="multi_vector").add_query_adapter(4)
    frozen = _Frozen(model, _lists(), CORPUS, VectorCache(), None)
    scores = frozen.scores(model[-2], frozen.queries).detach()
    layers = model.encode_layers(list(frozen.columns))
    queries = model.encode_query([each.query for each in _lists()])
    np.testing.assert_allclose(scores[..., 0], queries @ layers[:, -1].T, atol=1e-5)
    np.testing.assert_allclose(scores[..., 2], queries @ layers[:, 0].T, atol=1e-5)
    batch = frozen.batch(torch.arange(3))
    np.testing.assert_allclose(batch.of_documents(scores[:3]), model.similarity(queries[:3], layers), atol=1e-5)


@pytest.mark.parametrize("objective", [InfoNCE(0.1), ListwiseKL()])
def test_the_gradient_is_that_of_the_long_way(base: MLRModel, objective: Any) -> None:
    """ListLoss encodes everything anew; without a corpus both have the same candidates."""
    from mlr_rag.training.collator import ListCollator

    model = base.add_query_adapter(8)
    torch.nn.init.normal_(model[-2].write, std=0.1)
    model.freeze_documents()
    lists = _lists(teacher=True)[:6]
    frozen = _Frozen(model, lists, None, VectorCache(), None)
    loss = objective(frozen.scores(model[-2], frozen.queries), frozen.batch(torch.arange(6)))
    loss.backward()
    short = [parameter.grad.clone() for parameter in model[-2].parameters()]
    model.zero_grad()
    inputs = ListCollator(model)(lists)
    groups = [
        {key.removeprefix(f"{name}_"): value for key, value in inputs.items() if key.startswith(name)}
        for name in ("query", "passage")
    ]
    whole = sum(ListLoss(model, objective, gradient_cache=False)(groups, inputs["label"]).values())
    whole.backward()
    torch.testing.assert_close(loss, whole, atol=1e-4, rtol=1e-4)
    for one, parameter in zip(short, model[-2].parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, atol=1e-4, rtol=1e-3)


def test_a_model_in_half_precision_is_trained(base: MLRModel) -> None:
    """Its adapter's weights are in half precision, and the vectors that are kept in float32."""
    model, done = _trained(base.bfloat16())
    assert model[-2].write.dtype == torch.bfloat16
    assert done.losses[-1] < done.losses[0] - 0.05


def test_the_best_epoch_is_kept_and_is_what_an_evaluation_finds(base: MLRModel) -> None:
    model, done = _trained(base, dev=DEV, epochs=6, learning_rate=0.05)
    assert len(done.history) == 7
    assert done.history[done.best] == max(done.history)
    evaluated = RetrievalEvaluator(*DEV, CORPUS)
    assert evaluated(base)["dev_ndcg@10"] == pytest.approx(done.history[0], abs=1e-6)
    assert evaluated(model)["dev_ndcg@10"] == pytest.approx(done.history[done.best], abs=1e-6)


def test_what_makes_dev_queries_worse_is_not_kept(base: MLRModel) -> None:
    """Lists that call the wrong passages relevant: the adapter is left as it came."""
    lies = [TrainingList(each.query, each.passages, labels=(0, 0, 1)) for each in _lists()]
    model = base.add_query_adapter(8)
    done = train_query_adapter(model, lies, CORPUS, dev=DEV, **(OPTIONS | {"learning_rate": 0.1}))
    assert max(done.history[1:]) < done.history[0]
    assert done.best == 0
    assert np.array_equal(model.encode_query(list(DEV[0].values())), base.encode_query(list(DEV[0].values())))


def test_the_same_seed_gives_the_same_weights(base: MLRModel) -> None:
    one, other, another = (_trained(base, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one[-2].write, other[-2].write)
    assert not torch.equal(one[-2].write, another[-2].write)


def test_a_second_run_encodes_nothing(base: MLRModel, tmp_path: Path) -> None:
    with VectorCache(tmp_path / "vectors.db") as cache:
        _trained(base, cache=cache, dev=DEV)
    with ContentCache(tmp_path / "vectors.db") as content:
        known = content.count()
    with VectorCache(tmp_path / "vectors.db") as cache:
        _trained(base, cache=tmp_path / "vectors.db", dev=DEV, seed=2)  # a path is a cache as well
        model, _ = _trained(base, cache=cache, dev=DEV, seed=3)
        calls: list[Any] = []
        base[0].register_forward_pre_hook(lambda *args: calls.append(args))
        train_query_adapter(model, _lists(), CORPUS, cache=cache, **OPTIONS)  # from other weights of the adapter
    assert not calls
    with ContentCache(tmp_path / "vectors.db") as content:
        assert content.count() == known


def test_impossible_trainings(base: MLRModel, tiny_model_dir: Path) -> None:
    lists = _lists()
    for model in (base, MLRModel.from_pretrained(tiny_model_dir, separate_query_encoder=True).add_query_adapter()):
        with pytest.raises(InvalidInputError, match="not just an adapter"):
            train_query_adapter(model, lists)
    adapted = base.add_query_adapter(8)
    with pytest.raises(InvalidInputError, match="no lists"):
        train_query_adapter(adapted, [])
    with pytest.raises(InvalidInputError, match="no corpus"):
        train_query_adapter(adapted, lists, dev=DEV)
    for options in ({"epochs": 0}, {"batch_size": 0}, {"epochs": 1.5}):
        with pytest.raises(InvalidInputError, match=next(iter(options))):
            train_query_adapter(adapted, lists, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="the teacher gave no scores"):
        train_query_adapter(adapted, lists, objective=ListwiseKL(), **OPTIONS)

    for rate in (float("nan"), float("inf"), 0.0, -1.0, True):
        with pytest.raises(InvalidInputError, match="learning_rate"):
            train_query_adapter(adapted, lists, learning_rate=rate)
    with pytest.raises(InvalidInputError, match="frozen"):
        train_query_adapter(base.add_query_adapter(8).requires_grad_(False), lists)


def test_dev_queries_that_cannot_be_evaluated_are_refused(base: MLRModel) -> None:
    queries, qrels = DEV
    adapted = base.add_query_adapter(8)
    with pytest.raises(InvalidInputError, match=r"no text.*such as other"):
        train_query_adapter(adapted, _lists(), CORPUS, dev=(queries, {**qrels, "other": {"d1": 1}}))
    for bad in ({}, {"q40": {"d40": 0}}, {"q40": {"nowhere": 1}}):
        with pytest.raises(InvalidInputError, match="no query has a relevant document"):
            train_query_adapter(adapted, _lists(), CORPUS, dev=(queries, bad))


def test_dev_queries_without_a_positive_judgment_count_for_nothing(base: MLRModel) -> None:
    queries, qrels = DEV
    _, done = _trained(base, dev=DEV, epochs=1)
    _, same = _trained(base, dev=(queries | {"x": "the"}, {**qrels, "x": {"d1": 0}}), epochs=1)
    assert same.history == pytest.approx(done.history, abs=1e-9)


def test_documents_that_are_held_are_searched_and_teach_nothing(base: MLRModel) -> None:
    held = {f"d{i}" for i in range(40, 60)} - {f"d{(i + step) % 60}" for i in range(40) for step in (1, 7)}
    model, found = _trained(base, dev=DEV, held=held)
    others = {id: text for id, text in CORPUS.items() if id not in held}
    without = base.add_query_adapter(8, "linear")
    expected = train_query_adapter(without, _lists(), others, **OPTIONS)
    assert found.losses == pytest.approx(expected.losses)
    assert len(held) > 5
    evaluator = RetrievalEvaluator(*DEV, CORPUS)
    assert found.history[found.best] == pytest.approx(evaluator(model)[str(evaluator.primary_metric)])


def test_a_dev_query_that_is_a_document_does_not_find_itself(base: MLRModel) -> None:
    queries = {"d0": CORPUS["d0"]}  # the best of all, by far
    qrels = {"d0": {id: 1 for id in CORPUS if id != "d0"}}
    _, done = _trained(base, dev=(queries, qrels), epochs=1)
    assert done.history == (1.0, 1.0)


def test_a_dev_query_finds_the_document_that_is_numbered_like_it_and_relevant(base: MLRModel) -> None:
    _, done = _trained(base, dev=({"d0": CORPUS["d0"]}, {"d0": {"d0": 1}}), epochs=1)
    assert done.history == (1.0, 1.0)


def test_the_learning_rate_falls_linearly_to_nothing(base: MLRModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Recording(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    _trained(base, epochs=2, learning_rate=0.06)
    assert rates == pytest.approx([0.06, 0.05, 0.04, 0.03, 0.02, 0.01])


class _Broken(InfoNCE):
    """As it should be for some steps, then a loss of 0 whose gradient is none."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, scores: torch.Tensor, batch: Any) -> torch.Tensor:
        self.steps -= 1
        return super().forward(scores, batch) if self.steps >= 0 else (scores - scores).sum().sqrt()


@pytest.mark.parametrize(
    ("objective", "what"),
    [
        (lambda: InfoNCE(1e-45), "epoch 1: the loss"),
        (lambda: _Broken(3), "epoch 2: a score"),
        (lambda: _Broken(5), "epoch 2: a weight"),
    ],
)
def test_numbers_that_are_not_finite_end_the_training_and_are_not_left_behind(
    base: MLRModel, monkeypatch: pytest.MonkeyPatch, objective: Any, what: str
) -> None:
    bars: list[str] = []

    class Bar:
        def __init__(self, name: str) -> None:
            self.name = name
            bars.append(name)

        def update(self, n: int) -> None: ...

        def close(self) -> None:
            bars.remove(self.name)

    monkeypatch.setattr(progress, "start", lambda name, total, show: Bar(name))
    model = base.add_query_adapter(8)
    with pytest.raises(TrainingError, match=f"{what}.*Lower the learning rate"):
        train_query_adapter(model, _lists(), CORPUS, objective(), **OPTIONS)
    assert not bars
    assert all(weights.isfinite().all() for weights in model.parameters())
    fresh = base.add_query_adapter(8)[-2].write
    assert torch.equal(model[-2].write, fresh) == ("epoch 1" in what), "left as the last whole epoch made it"
