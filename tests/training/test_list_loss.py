import logging
import math
import multiprocessing
import os
import socket

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.trainer import BaseTrainer
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MultipleNegativesRankingLoss
from sentence_transformers.util import pairwise_cos_sim

from mlr_rag import MLRModel
from mlr_rag.errors import InvalidInputError
from mlr_rag.training.collator import ListCollator
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.loss import ListLoss, _largest
from mlr_rag.training.objectives import (
    InfoNCE,
    LastReg,
    ListwiseKL,
    MannWhitney,
    MarginMSE,
    MultiVector,
    Objective,
    SelfContrastive,
    Wasserstein,
    WeightedSum,
    default_objective,
)

TEXTS = ["paris", "old roads meet", "the kettle boils on the stove", "a river is water", "one two three " * 5, "stone"]
LISTS = [
    TrainingList("what is the capital of france", (TEXTS[0], TEXTS[1], TEXTS[4]), scores=(3, 1, 0.5)),
    TrainingList("what boils", (TEXTS[2], TEXTS[3]), scores=(2, -1)),
    TrainingList("old", (TEXTS[1], TEXTS[5], TEXTS[3], TEXTS[0]), scores=(0, 5, 1, 2), labels=(1, 0, 0, 1)),
]
POOLINGS = ["last", "scalar_mix", "self_contrastive", "multi_vector"]


@pytest.fixture
def model(tiny_model_dir, request):
    made = MLRModel.from_pretrained(
        tiny_model_dir, layers=(1, 3), pooling=getattr(request, "param", "self_contrastive")
    )
    return made.train()


def inputs(model, lists=LISTS):
    return BaseTrainer.collect_features(None, ListCollator(model)(lists))


def step(loss, lists=LISTS, scale=1.0):
    """The loss and the gradient of everything that it trains."""
    torch.manual_seed(0)
    loss.zero_grad()
    value = sum(loss(*inputs(loss.model, lists)).values())
    (value * scale).backward()
    return value.item(), torch.cat([p.grad.flatten() for p in loss.parameters() if p.grad is not None])


class Shown(Objective):
    """Keeps what an objective is given."""

    def loss(self, scores, batch):
        self.scores, self.batch = scores.detach(), batch
        return scores.sum()


@pytest.mark.parametrize("model", POOLINGS, indirect=True)
def test_scores_are_those_of_retrieval_by_layer_the_last_first(model):
    loss = ListLoss(model, Shown())
    (queries, passages), label = inputs(model)
    loss([queries, passages], label)
    texts = model.tokenizer.batch_decode(passages["input_ids"], skip_special_tokens=True)
    model.eval()
    vectors = torch.tensor(model.encode_query(list(label["queries"])))
    if model.pooling in ("self_contrastive", "multi_vector"):
        documents = torch.tensor(model.encode_layers(texts)).flip(1)
    else:
        documents = torch.tensor(model.encode_document(texts))[:, None]
    assert loss.objective.scores.shape[:2] == (3, 6)
    assert torch.allclose(loss.objective.scores, torch.einsum("bd,pmd->bpm", vectors, documents), atol=1e-5)
    assert loss.objective.batch.best_layer == (model.pooling == "multi_vector")


@pytest.mark.parametrize("model", ["self_contrastive", "last"], indirect=True)
def test_a_model_in_evaluation_mode_is_judged_by_the_vector_it_deploys(model):
    loss = ListLoss(model.eval(), Shown())
    with torch.no_grad():
        loss(*inputs(model))
    assert loss.objective.scores.shape == (3, 6, 1)


@pytest.mark.parametrize("model", POOLINGS, indirect=True)
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_are_the_same_with_and_without_the_cache(model, dropout):
    of_layers = {"multi_vector": MultiVector(), "self_contrastive": SelfContrastive(layer_scales=[1.5])}
    objective = of_layers.get(model.pooling, InfoNCE())
    cached, plain = (
        step(ListLoss(model, objective, 20, dropout=dropout, gradient_cache=cache)) for cache in (True, False)
    )
    assert cached[0] == pytest.approx(plain[0], abs=1e-6)
    assert torch.linalg.vector_norm(cached[1]) > 0.1
    assert torch.allclose(cached[1], plain[1], atol=1e-5)


TWICE = [*LISTS, TrainingList("old", (TEXTS[5], TEXTS[2]), scores=(4, 1), labels=(1, 0))]  # of one query


@pytest.mark.parametrize(
    ("model", "objective"),
    [
        ("last", default_objective()),
        ("last", InfoNCE(false_negative_ratio=0.6)),
        ("last", ListwiseKL()),
        ("multi_vector", MultiVector()),
        ("self_contrastive", SelfContrastive(layer_scales=[1.5])),
        ("self_contrastive", LastReg()),
    ],
    indirect=["model"],
)
def test_scores_of_some_lists_at_a_time_give_the_same_loss_and_gradients(model, objective, monkeypatch):
    loss = ListLoss(model, objective, 20, gradient_cache=True)
    parts, asked = loss._parts_of, []
    value, gradient = step(loss, TWICE)
    wins = loss.layer_wins()
    monkeypatch.setattr(loss, "_parts_of", lambda queries, *rest: asked.append(len(queries)) or parts(queries, *rest))
    monkeypatch.setattr("mlr_rag.training.loss._SCORES", 3 * 6 * (1 if model.pooling == "last" else 2))
    found, cut = step(loss, TWICE)
    assert asked == [3, 1]
    assert found == pytest.approx(value, rel=1e-6)
    assert torch.linalg.vector_norm(gradient) > 0.01
    assert torch.allclose(cut, gradient, atol=1e-5)
    assert loss.layer_wins() == wins, "twice the same shares"


@pytest.mark.parametrize("model", ["last"], indirect=True)
@pytest.mark.parametrize("objective", [MarginMSE(), Wasserstein(), MannWhitney(), Shown()])
def test_what_is_no_mean_over_lists_is_not_cut(model, objective, monkeypatch):
    monkeypatch.setattr("mlr_rag.training.loss._SCORES", 1)
    monkeypatch.setattr(ListLoss, "_backward_by_rows", None)
    assert step(ListLoss(model, objective, 20, gradient_cache=True))[1].isfinite().all()


@pytest.mark.parametrize(("held", "readings"), [(2**31, 1), (1, 2)])
def test_a_batch_is_read_twice_where_it_would_hold_too_much(model, monkeypatch, held, readings):
    monkeypatch.setattr("mlr_rag.training.loss._HELD", held)
    loss, read = ListLoss(model, mini_batch_num_tokens=10_000), []
    vectors = loss._vectors
    monkeypatch.setattr(loss, "_vectors", lambda features: read.append(features["task"]) or vectors(features))
    step(loss)
    assert sorted(read) == sorted(["query", "document"] * readings)


@pytest.mark.parametrize("tokens", [1, 13, 30, 1000])
def test_gradients_do_not_depend_on_the_mini_batches(model, tokens):
    value, gradient = step(ListLoss(model, mini_batch_num_tokens=10_000, gradient_cache=False))
    found, other = step(ListLoss(model, mini_batch_num_tokens=tokens, gradient_cache=True))
    assert found == pytest.approx(value, abs=1e-6)
    assert torch.allclose(other, gradient, atol=1e-5)


def test_prompts_that_are_not_pooled_do_not_spoil_the_second_reading(tiny_model_dir):
    made = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 3), pooling="mean").train()
    made.prompts = {"query": "what: ", "document": "page: "}
    made[1].pool_tokens.include_prompt = False
    cached, plain = (step(ListLoss(made, mini_batch_num_tokens=20, gradient_cache=cache)) for cache in (True, False))
    assert torch.allclose(cached[1], plain[1], atol=1e-5)


def test_dropout_is_off_unless_wanted(model):
    values = {dropout: {step(ListLoss(model, dropout=dropout))[0]} for dropout in (False, True)}
    assert values[False] != values[True]
    assert sum(ListLoss(model)(*inputs(model)).values()).item() == pytest.approx(values[False].pop(), abs=1e-6)
    assert all(module.training for module in model.modules()), "the model must be left in training mode"


def test_accumulated_steps_scale_the_gradients_of_model_and_objective_alike(model):
    loss = ListLoss(model, SelfContrastive(layer_scales=[1.0]))
    whole, part = step(loss)[1], step(loss, scale=0.25)[1]
    assert torch.allclose(part, whole / 4, atol=1e-6)
    assert loss.objective.layer_scales.grad.abs() > 0


@pytest.mark.parametrize("model", ["last"], indirect=True)
@pytest.mark.parametrize("cache", [True, False])
def test_rectangular_lists_give_the_loss_and_gradients_of_distillkldivloss(model, cache):
    lists = [TrainingList(each.query, each.passages[:2], each.scores[:2]) for each in LISTS]
    value, gradient = step(ListLoss(model, ListwiseKL(normalize="none"), 20, gradient_cache=cache), lists)
    model.zero_grad()
    model[0].eval()  # no dropout
    stock = DistillKLDivLoss(
        model, similarity_fct=pairwise_cos_sim, student_temperature=0.05, teacher_temperature=0.3
    )  # fmt: skip
    columns = [[each.query for each in lists], *([each.passages[place] for each in lists] for place in (0, 1))]
    features = [model.preprocess(texts) for texts in columns]
    expected = stock(features, torch.tensor([each.scores for each in lists])) / 0.05**2
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-5)
    theirs = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert torch.allclose(gradient, theirs, atol=1e-4 * float(theirs.abs().max()))


def test_dot_products_are_those_of_the_vectors_before_normalize(model):
    loss = ListLoss(model, Shown(), similarity="dot")
    (queries, passages), label = inputs(model)
    loss([queries, passages], label)
    unit = ListLoss(model, Shown())
    unit(*inputs(model))
    ratio = loss.objective.scores / unit.objective.scores
    lengths = ratio[:, :1, :1] * ratio[:1] / ratio[:1, :1, :1]  # |q| |d|: of rank one for each layer
    assert torch.allclose(ratio, lengths, rtol=1e-3)
    assert not torch.allclose(ratio, torch.ones_like(ratio), atol=0.1)
    assert type(model[-1]).__name__ == "Normalize"
    assert torch.allclose(torch.tensor(model.eval().encode_query(["paris"])).norm(), torch.tensor(1.0))


@pytest.fixture
def bf16():
    """Mixed precision as a trainer sets it: accelerate's state is the process's, and outlives the test that made it."""
    AcceleratorState._reset_state()
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state()


@pytest.mark.parametrize("cache", [True, False])
def test_dot_products_stay_so_under_mixed_precision(model, cache, bf16):
    def lengths(batch):
        loss = ListLoss(model, Shown(), similarity="dot", gradient_cache=cache)
        loss(*batch)
        return loss.objective.scores

    expected = lengths(inputs(model))
    prepared = bf16.prepare_model(model)
    assert prepared is model
    assert "forward" in vars(model), "accelerate must have put its own forward into the model"
    assert expected.abs().max() > 2, "cosines would look the same"
    torch.testing.assert_close(lengths(inputs(model)), expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))
    assert type(model[-1]).__name__ == "Normalize"


def test_a_failed_step_leaves_the_models_normalize_in_place(model):
    features, label = inputs(model)
    features[1]["input_ids"] += 10**6  # beyond the vocabulary
    with pytest.raises(IndexError):
        ListLoss(model, Shown(), similarity="dot")(features, label)
    assert type(model[-1]).__name__ == "Normalize"


def test_scores_are_not_rounded_by_mixed_precision(model):
    loss, label = ListLoss(model, Shown()), inputs(model)[1]
    vectors = [[torch.rand(3, 1, 32)], [torch.rand(6, 2, 32)]]
    with torch.autocast("cpu", torch.bfloat16):
        loss.calculate_loss(vectors, label)
    expected = torch.einsum("bd,pmd->bpm", vectors[0][0][:, 0], vectors[1][0])
    assert torch.equal(loss.objective.scores, expected)


LAYERED = [
    (SelfContrastive, "self_contrastive"),
    (LastReg, "self_contrastive"),
    (MultiVector, "multi_vector"),
    (lambda: WeightedSum((1.0, ListwiseKL()), (1.0, SelfContrastive())), "self_contrastive"),
]


@pytest.mark.parametrize("model", POOLINGS, indirect=True)
@pytest.mark.parametrize(("make", "pooling"), LAYERED)
def test_an_objective_of_layers_is_refused_by_a_model_that_does_not_give_them(model, make, pooling):
    if model.pooling == pooling:
        assert ListLoss(model, make()).objective.poolings == (pooling,)
    else:
        with pytest.raises(InvalidInputError, match=f"found pooling='{model.pooling}'.*expected pooling='{pooling}'"):
            ListLoss(model, make())


def test_an_objective_of_layers_is_refused_where_there_is_one_layer_or_no_pooling(tiny_model_dir):
    one = MLRModel.from_pretrained(tiny_model_dir, layers=3, pooling="self_contrastive")
    with pytest.raises(InvalidInputError, match=r"layers=\(3,\).*two layers or more"):
        ListLoss(one, SelfContrastive())
    with pytest.raises(InvalidInputError, match="pooling=None"):
        ListLoss(SentenceTransformer(str(tiny_model_dir), device="cpu"), MultiVector())


def test_what_is_no_objective_is_refused(model):
    for wrong in (InfoNCE, MultipleNegativesRankingLoss(model), "InfoNCE"):
        with pytest.raises(InvalidInputError, match="not an objective"):
            ListLoss(model, wrong)


def test_parts_are_named_and_their_sum_has_the_gradient(model):
    parts = ListLoss(model, default_objective())(*inputs(model))
    assert list(parts) == ["listwise_kl", "infonce"]
    assert parts["infonce"].item() > 0
    assert not parts["infonce"].requires_grad


def test_any_module_can_be_the_objective(model):
    class Mean(torch.nn.Module):
        def forward(self, scores, batch):
            return -scores.mean()

    value, gradient = step(ListLoss(model, Mean()))
    assert -1 < value < 1
    assert gradient.abs().sum() > 0


def test_skipping_leaves_out_less_than_its_share():
    gradients = torch.tensor([[3.0, 0.0], [0.0, 0.1], [0.0, 4.0], [0.2, 0.0], [0.0, 0.0]])
    norm = gradients.norm()
    for skip in (0.01, 0.04, 0.05, 0.5, 0.7, 0.99):
        rows = _largest(gradients, skip)
        left = gradients[[row for row in range(5) if row not in rows]].norm()
        assert left <= skip * norm
        assert rows.tolist() == sorted(rows.tolist())
    assert _largest(gradients, 0.01).tolist() == [0, 1, 2, 3]
    assert _largest(gradients, 0.05).tolist() == [0, 2]
    assert _largest(torch.zeros(3, 2), 0.1).tolist() == []


def rows_with_gradients(loss):
    rows = []
    loss.model[0].register_forward_pre_hook(
        lambda _, args: rows.append(torch.is_grad_enabled() * len(args[0]["input_ids"]))
    )
    return step(loss), sum(rows)


def test_skipping_reads_fewer_passages_again_and_keeps_the_gradient(tiny_model_dir):
    def run(skip):
        made = MLRModel.from_pretrained(tiny_model_dir, pooling="last").train()
        return rows_with_gradients(ListLoss(made, ListwiseKL(0.05), 20, skip_gradient=skip))

    (value, gradient), rows = run(0.0)
    (same, nearly), all_rows = run(1e-9)
    (less, skipped), fewer = run(0.5)
    assert rows == all_rows == 3 + 6
    assert 3 < fewer < rows
    assert value == same == less
    assert torch.allclose(nearly, gradient, atol=1e-6)
    assert 0.5 < torch.cosine_similarity(skipped, gradient, dim=0) < 1


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "euclid"},
        {"mini_batch_num_tokens": 0},
        {"mini_batch_num_tokens": 1.5},
        {"skip_gradient": 1.0},
        {"skip_gradient": -0.1},
        {"skip_gradient": 0.1, "dropout": True},
        {"skip_gradient": 0.1, "gradient_cache": False},
    ],
)
def test_options_that_mean_nothing_are_refused(model, options):
    with pytest.raises(InvalidInputError):
        ListLoss(model, **options)


def test_gradient_checkpointing_without_dropout_is_refused(model):
    backbone = model[0].model
    getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)()
    with pytest.raises(InvalidInputError, match="dropout=True"):
        ListLoss(model)(*inputs(model))


def test_layers_are_told_by_their_number_and_win_in_shares(model):
    loss = ListLoss(model, SelfContrastive(layer_scales=[1000.0]))
    assert loss.layer_wins() == {}
    step(loss)
    shares = loss.layer_wins()
    assert list(shares) == [3, 1]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[1] > shares[3], "with such a scale the first layer must win"


def warnings_of_a_layer_that_never_wins(loss, caplog, steps):
    """What was logged after each step."""
    scores, counts = torch.tensor([[0.9, 0.1], [0.8, 0.2]]).expand(2, 2, 2).clone(), []
    with caplog.at_level(logging.WARNING, "mlr_rag"):
        for _ in range(steps):
            vectors = [[torch.eye(2)[:, None].requires_grad_()], [scores.clone().requires_grad_()]]
            label = {
                "index": torch.tensor([[0, 1], [1, 0]]),
                "teacher": torch.full((2, 2), -math.inf),
                "labels": torch.tensor([[1.0, 0.0], [1.0, 0.0]]),
                "keys": torch.arange(2),
            }
            with torch.no_grad():  # the last layer is the better one for both queries
                vectors[1][0][:, 0] = 0.9
                vectors[1][0][:, 1] = 0.1
            loss.calculate_loss(vectors, label, with_backward=True)
            counts.append(len(caplog.records))
    return counts


def test_a_dead_layer_is_named_once(model, caplog):
    counts = warnings_of_a_layer_that_never_wins(ListLoss(model, SelfContrastive()), caplog, 250)
    assert counts == [0] * 99 + [1] * 151
    assert "Layer 1 never wins" in caplog.records[0].message


@pytest.mark.parametrize(
    ("objective", "similarity", "advice"),
    [
        (SelfContrastive(), "cosine", "maximum. Use reduce='logsumexp' or layer_scales."),
        (SelfContrastive(layer_scales=[0.5]), "cosine", "maximum. Use reduce='logsumexp' or larger layer_scales."),
        (SelfContrastive(), "dot", "maximum. Use unit vectors (similarity='cosine'). Use reduce="),
    ],
)
def test_the_advice_on_a_dead_layer_is_what_is_not_done_yet(model, caplog, objective, similarity, advice):
    warnings_of_a_layer_that_never_wins(ListLoss(model, objective, similarity=similarity), caplog, 100)
    assert advice in caplog.records[0].message


def test_no_layer_is_called_dead_where_every_layer_gets_a_gradient(model, caplog):
    loss = ListLoss(model, SelfContrastive(reduce="logsumexp"))
    assert warnings_of_a_layer_that_never_wins(loss, caplog, 100)[-1] == 0


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


SHARED = [*LISTS, TrainingList("river", (TEXTS[3], TEXTS[1], TEXTS[2]), scores=(9, 1, 2))]


def _one_of_two(rank, port, folder, answers):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    made = MLRModel.from_pretrained(folder, layers=(1, 3), pooling="self_contrastive").train()
    value, gradient = step(ListLoss(made, SelfContrastive(), 20, gather=True), SHARED[2 * rank : 2 * rank + 2])
    answers.put((rank, value, gradient.numpy()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_that_gather_train_as_one_with_the_whole_batch(tiny_model_dir):
    context, port = multiprocessing.get_context("spawn"), _free_port()
    answers = context.Queue()
    processes = [context.Process(target=_one_of_two, args=(rank, port, tiny_model_dir, answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(30)
    made = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 3), pooling="self_contrastive").train()
    value, gradient = step(ListLoss(made, SelfContrastive(), 20), SHARED)
    assert sum(each[1] for each in found) / 2 == pytest.approx(value, abs=1e-5)
    mean = sum(torch.tensor(each[2]) for each in found) / 2
    assert torch.allclose(mean, gradient, atol=1e-4 * float(gradient.abs().max()))
    alone = step(ListLoss(made, SelfContrastive(), 20), SHARED[:2])[0]
    assert alone != pytest.approx(next(each[1] for each in found if each[0] == 0), abs=1e-3)


def test_gathering_alone_changes_nothing(model):
    gathered, own = (step(ListLoss(model, InfoNCE(), gather=gather))[0] for gather in (True, False))
    assert gathered == own
