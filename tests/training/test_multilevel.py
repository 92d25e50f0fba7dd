"""Multi-level distillation (our own reading of MD2PR's abstract): attention, words, the dynamic filter, the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from sentence_transformers import CrossEncoder
from torch import Tensor

from mlr_rag import MLRModel
from mlr_rag.errors import InvalidInputError, UnsupportedModelError
from mlr_rag.training.collator import ListCollator
from mlr_rag.training.lists import ListBatch, TrainingList
from mlr_rag.training.multilevel.attention import CrossAttention, check_shared_tokenizer
from mlr_rag.training.multilevel.dynamic_filter import DynamicFalseNegativeFilter, DynamicInfoNCE
from mlr_rag.training.multilevel.loss import MultiLevelLoss, multi_level_objective
from mlr_rag.training.objectives import ListwiseKL
from mlr_rag.training.trainer.arguments import MLRTrainingArguments
from mlr_rag.training.trainer.trainer import MLRTrainer
from mlr_rag.training.trainer.weights import load_weights
from tests.tiny import CONFIGS, tokenizer

INF = math.inf
LISTS = [
    TrainingList(
        "what water boils", ("water boils in a kettle", "old roads meet", "the stone bridge"), (4.0, 1.0, 0.5)
    ),
    TrainingList("capital of france", ("paris is the capital of france", "water boils in a kettle"), (3.0, -1.0)),
    TrainingList(
        "how to read a file", ("read a file line by line", "the stone bridge", "loading all"), (2.0, 0.0, 1.0)
    ),
]
_CLASSIFIERS = {
    "bert": hf.BertForSequenceClassification,
    "roberta": hf.RobertaForSequenceClassification,
    "mpnet": hf.MPNetForSequenceClassification,
    "distilbert": hf.DistilBertForSequenceClassification,
    "modernbert": hf.ModernBertForSequenceClassification,
    "qwen": hf.Qwen3ForSequenceClassification,
}


def build_cross_encoder(kind: str, folder: Path) -> CrossEncoder:
    torch.manual_seed(1)
    config = CONFIGS[kind]()
    config.num_labels = 1
    classifier: Any = _CLASSIFIERS[kind](config)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    classifier.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return CrossEncoder(str(folder), max_length=64, device="cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost tiny tensors more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    return build_cross_encoder("bert", tmp_path_factory.mktemp("cross"))


def ids(text: str) -> list[int]:
    found: list[int] = tokenizer()(text, add_special_tokens=False)["input_ids"]
    return found


def step(loss: MultiLevelLoss, lists: list[TrainingList] = LISTS) -> dict[str, Tensor]:
    """The parts of the loss of one batch, as the trainer hands it over."""
    inputs = ListCollator(loss.model)(lists)
    sides = [
        {key.removeprefix(side): value for key, value in inputs.items() if key.startswith(side)}
        for side in ("query_", "passage_")
    ]
    return loss(sides, inputs["label"])


def gradients(loss: MultiLevelLoss, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    loss.zero_grad()
    torch.stack(list(parts.values())).sum().backward()
    return {name: each.grad.clone() for name, each in loss.model.named_parameters() if each.grad is not None}


# --- the teacher's attention ---


def test_maps_are_the_models_own_attention_between_query_and_document_words(cross_encoder: CrossEncoder) -> None:
    query, document = "what boils", "water boils in a kettle"
    found = CrossAttention(cross_encoder)([(ids(query), ids(document))])[0].double()
    features = tokenizer()(query, document, return_tensors="pt")
    model = cross_encoder.model
    assert model is not None
    model.set_attn_implementation("eager")
    with torch.no_grad():
        whole = model(**features, output_attentions=True).attentions[-1][0].mean(0).double()
    model.set_attn_implementation("sdpa")
    sides = features.sequence_ids(0)
    part = whole[[side == 0 for side in sides]][:, [side == 1 for side in sides]]
    torch.testing.assert_close(found, part / part.sum(1, keepdim=True), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_maps_of_several_architectures_sum_to_one(kind: str, tmp_path: Path) -> None:
    pairs = [(ids("what boils"), ids("water boils in a kettle")), (ids("bridge"), ids("old roads"))]
    first, second = CrossAttention(build_cross_encoder(kind, tmp_path))(pairs)
    assert (first.shape, second.shape) == ((2, 5), (1, 2))
    torch.testing.assert_close(first.float().sum(1), torch.ones(2), atol=2e-3, rtol=0.0)


def test_a_decoder_is_refused_because_its_query_cannot_see_the_document(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="do not look at the document"):
        CrossAttention(build_cross_encoder("qwen", tmp_path))


def test_an_architecture_that_gives_no_attention_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="gives no attention"):
        CrossAttention(build_cross_encoder("mpnet", tmp_path))


def test_the_other_pairs_of_a_batch_do_not_change_a_map(cross_encoder: CrossEncoder) -> None:
    short, long = (ids("bridge"), ids("old roads")), (ids("what boils"), ids("water boils in a kettle on stove"))
    together = CrossAttention(cross_encoder)([short, long, short])
    alone = CrossAttention(cross_encoder)([short])[0]
    torch.testing.assert_close(together[0], alone, atol=1e-3, rtol=1e-3)
    assert torch.equal(together[0], together[2])


def test_the_cross_encoders_attention_is_switched_back(cross_encoder: CrossEncoder) -> None:
    CrossAttention(cross_encoder)([(ids("bridge"), ids("old roads"))])
    assert cross_encoder.model is not None
    assert cross_encoder.model.config._attn_implementation == "sdpa"


def test_a_pair_that_was_read_is_not_read_again_until_memory_is_short(cross_encoder: CrossEncoder) -> None:
    pairs = [(ids("bridge"), ids(document)) for document in ("old roads", "water boils", "the kettle")]
    attention = CrossAttention(cross_encoder)
    first, again = attention(pairs), attention(pairs[::-1])[::-1]
    assert attention.asked == 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    small = CrossAttention(cross_encoder, memory=80)  # two maps of 4 bytes with keys of 32
    small(pairs)
    small(pairs[1:])
    assert small.asked == 3
    small(pairs[:1])
    assert small.asked == 4


def test_a_long_pair_loses_the_end_of_its_document_and_a_long_query_its_own(cross_encoder: CrossEncoder) -> None:
    room = 64 - 3
    long_document, long_both = CrossAttention(cross_encoder)(
        [(ids("bridge " * 5), ids("roads " * 200)), (ids("bridge " * 200), ids("roads " * 200))]
    )
    assert long_document.shape == (5, room - 5)
    assert long_both.shape == (room // 2, room - room // 2)


# --- one tokenizer ---


def test_a_shared_tokenizer_is_accepted(tiny_model: MLRModel, cross_encoder: CrossEncoder) -> None:
    check_shared_tokenizer(tiny_model, cross_encoder)


def test_another_vocabulary_is_refused(tiny_model: MLRModel, tmp_path: Path) -> None:
    teacher = build_cross_encoder("bert", tmp_path)
    teacher.tokenizer.add_tokens(["zebra"])
    with pytest.raises(UnsupportedModelError, match=r"different vocabularies.*one tokenizer"):
        MultiLevelLoss(tiny_model, teacher)


def test_the_same_vocabulary_that_cuts_differently_is_refused(tiny_model: MLRModel, tmp_path: Path) -> None:
    from tokenizers import normalizers

    teacher = build_cross_encoder("bert", tmp_path)
    teacher.tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    with pytest.raises(UnsupportedModelError, match="into different words"):
        check_shared_tokenizer(tiny_model, teacher)


# --- the dynamic filter ---


def test_the_filter_drops_by_the_ratio_of_probabilities_by_hand() -> None:
    # 0.3 ln(0.6) = -0.153: what the teacher scores less than that below the positive is dropped.
    teacher = torch.tensor([[1.0, 0.86, 0.84, -INF, 1.2]])
    mask = DynamicFalseNegativeFilter().eval()(teacher, torch.tensor([0]))
    assert mask.tolist() == [[False, True, False, False, True]]


def test_the_threshold_follows_the_quantile_by_hand() -> None:
    found = DynamicFalseNegativeFilter(start=0.6, momentum=0.25, quantile=0.5, temperature=1.0)
    teacher = torch.tensor([[0.0, math.log(0.2), math.log(0.4), -INF], [5.0, 0.0, 5.0 + math.log(0.3), 9.0]])
    found(teacher, torch.tensor([0, 0]))  # ratios 0.2, 0.4, e^-5, 0.3 and 1 (e^4, capped): the median is 0.3
    assert found.theta.item() == pytest.approx(0.75 * 0.6 + 0.25 * 0.3)


def test_a_candidate_that_the_teacher_prefers_to_the_positive_counts_as_its_equal() -> None:
    found = DynamicFalseNegativeFilter(start=0.6, momentum=0.25, quantile=1.0)
    found(torch.tensor([[0.0, 5.0, -1.0]]), torch.tensor([0]))
    assert found.theta.item() == pytest.approx(0.75 * 0.6 + 0.25 * 1.0)


def test_the_threshold_converges_to_the_quantile_that_the_data_has() -> None:
    found = DynamicFalseNegativeFilter(start=0.0, quantile=0.8)
    teacher = torch.rand(32, 20, generator=torch.Generator().manual_seed(0))
    best = teacher.argmax(1)
    for _ in range(100):
        mask = found(teacher, best)
    assert mask.sum() / (32 * 19) == pytest.approx(0.2, abs=0.01)


def test_the_threshold_rests_in_evaluation_and_without_gradients() -> None:
    found = DynamicFalseNegativeFilter()
    teacher, best = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    with torch.no_grad():
        found(teacher, best)
    found.eval()(teacher, best)
    assert found.theta.item() == pytest.approx(0.6)


def test_the_threshold_is_saved_with_the_state() -> None:
    found, other = DynamicFalseNegativeFilter(), DynamicFalseNegativeFilter()
    found(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    other.load_state_dict(found.state_dict())
    assert other.theta == found.theta != 0.6


def test_a_list_without_scores_keeps_all_and_moves_nothing() -> None:
    found = DynamicFalseNegativeFilter()
    mask = found(torch.full((1, 3), -INF), torch.tensor([1]))
    assert (mask.any().item(), found.theta.item()) == (False, pytest.approx(0.6))


@pytest.mark.parametrize("name", ["start", "momentum", "quantile"])
def test_options_of_the_filter_out_of_range(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is out of range"):
        DynamicFalseNegativeFilter(**{name: 1.5})


def test_dynamic_infonce_leaves_out_what_the_filter_drops_and_what_else_is_relevant() -> None:
    # min_max gives 1, 0.9, 0 and 0.1: the second passage is dropped; the fourth is relevant; another query's stays.
    batch = ListBatch(
        index=torch.tensor([[0, 1, 2, 3]]),
        teacher=torch.tensor([[10.0, 9.0, 0.0, 1.0]]),
        labels=torch.tensor([[2.0, 0.0, 0.0, 1.0]]),
    )
    scores = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.3]])[..., None]
    value = DynamicInfoNCE(temperature=0.5).loss(scores, batch).item()
    top, *others = (math.exp(x / 0.5) for x in (0.1, 0.2, 0.3))
    assert value == pytest.approx(-math.log(top / (top + sum(others))), abs=1e-6)


# --- the loss ---


def slow_word_level(loss: MultiLevelLoss, lists: list[TrainingList]) -> float:
    """The word level from its definition: each text alone, each pair alone, each query word alone."""
    model, teacher, total, pairs = loss.model, CrossAttention(loss.attention.cross_encoder), 0.0, 0
    for each in lists:
        for passage in each.passages:
            attention = teacher([(ids(each.query), ids(passage))])[0].double()
            states = [
                model(model.preprocess([text], task=task), task=task)["token_embeddings"][0, 1:-1].double()
                for text, task in ((each.query, "query"), (passage, "document"))
            ]
            logits = states[0] @ states[1].T / math.sqrt(states[0].shape[1])
            rows = [
                sum(p * (math.log(p) - float(log_q)) for p, log_q in zip(row.tolist(), line, strict=True) if p)
                for row, line in zip(attention / attention.sum(1, keepdim=True), logits.log_softmax(1), strict=True)
            ]
            total, pairs = total + sum(rows) / len(rows), pairs + 1
    return total / pairs


@pytest.mark.parametrize("gradient_cache", [True, False])
def test_the_word_level_is_its_definition(
    tiny_model: MLRModel, cross_encoder: CrossEncoder, gradient_cache: bool
) -> None:
    loss = MultiLevelLoss(tiny_model, cross_encoder, gradient_cache=gradient_cache)
    with torch.no_grad():
        expected = slow_word_level(loss, LISTS)
    assert step(loss)["word_kl"].item() == pytest.approx(expected, rel=1e-4)


def test_prompts_and_special_tokens_are_no_words(tiny_model: MLRModel, cross_encoder: CrossEncoder) -> None:
    tiny_model.prompts = {"query": "what is ", "document": ""}
    loss = MultiLevelLoss(tiny_model, cross_encoder)
    inputs = ListCollator(tiny_model)([TrainingList("what is a river", ("the old bridge", "roads"), (1.0, 0.0))])
    queries = loss._words({"input_ids": inputs["query_input_ids"], "task": "query"} | _mask(inputs, "query"))
    passages = loss._words({"input_ids": inputs["passage_input_ids"], "task": "document"} | _mask(inputs, "passage"))
    assert queries[0][1] == ids("what is a river")
    assert [words for _, words in passages] == [ids("the old bridge"), ids("roads")]


def _mask(inputs: dict[str, Any], side: str) -> dict[str, Any]:
    return {"attention_mask": inputs[f"{side}_attention_mask"]}


@pytest.mark.parametrize("pooling", ["scalar_mix", "self_contrastive", "multi_vector"])
def test_gradients_are_the_same_with_and_without_the_gradient_cache(
    tiny_model_dir: Path, cross_encoder: CrossEncoder, pooling: Any
) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, pooling=pooling).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found = []
    for cache in (True, False):
        loss = MultiLevelLoss(model, cross_encoder, mini_batch_num_tokens=16, gradient_cache=cache)
        found.append(gradients(loss, step(loss)))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_skipping_passages_is_refused_as_their_words_have_gradients(
    tiny_model: MLRModel, cross_encoder: CrossEncoder
) -> None:
    with pytest.raises(InvalidInputError, match="skip_gradient"):
        MultiLevelLoss(tiny_model, cross_encoder, skip_gradient=0.1)


def test_the_word_level_alone_has_a_gradient_in_the_student_and_none_in_the_teacher(
    tiny_model: MLRModel, cross_encoder: CrossEncoder
) -> None:
    both, without = (MultiLevelLoss(tiny_model, cross_encoder, ListwiseKL(), weight) for weight in (1.0, 1e-9))
    one, other = (gradients(loss, step(loss)) for loss in (both, without))
    name = "0.model.encoder.layer.2.output.dense.weight"
    assert (one[name] - other[name]).norm() > 1e-4
    assert all(parameter.grad is None for parameter in cross_encoder.parameters())
    assert not {id(p) for p in cross_encoder.parameters()} & {id(p) for p in both.parameters()}


def test_the_teacher_reads_each_pair_of_a_list_once_over_the_epochs(
    tiny_model: MLRModel, cross_encoder: CrossEncoder
) -> None:
    loss = MultiLevelLoss(tiny_model, cross_encoder)
    step(loss)
    step(loss, LISTS[::-1])
    assert loss.attention.asked == sum(len(each.passages) for each in LISTS)


def test_the_threshold_moves_once_an_iteration_with_the_gradient_cache_too(
    tiny_model: MLRModel, cross_encoder: CrossEncoder
) -> None:
    moved = []
    for cache in (True, False):
        found = DynamicFalseNegativeFilter()
        loss = MultiLevelLoss(tiny_model, cross_encoder, multi_level_objective(filter=found), gradient_cache=cache)
        torch.stack(list(step(loss).values())).sum().backward()
        moved.append(found.theta.item())
    assert moved[0] == moved[1] != pytest.approx(0.6)


def test_a_text_longer_than_the_teacher_reads_is_compared_where_both_read(tiny_model: MLRModel, tmp_path: Path) -> None:
    teacher = build_cross_encoder("bert", tmp_path)
    teacher.max_seq_length = 16
    long = TrainingList("the bridge", ("old roads " * 40, "water boils"), (1.0, 0.0))
    parts = step(MultiLevelLoss(tiny_model, teacher), [long])
    assert parts["word_kl"].isfinite()
    shorter = TrainingList("the bridge", ("old roads " * 20, "water boils"), (1.0, 0.0))
    assert step(MultiLevelLoss(tiny_model, teacher), [shorter])["word_kl"].item() > 0


def test_a_query_without_words_is_left_out_and_a_batch_of_them_refused(
    tiny_model: MLRModel, cross_encoder: CrossEncoder
) -> None:
    blank = TrainingList("[PAD]", ("old roads", "water boils"), (1.0, 0.0))
    loss = MultiLevelLoss(tiny_model, cross_encoder)
    alone = step(loss, LISTS[1:2])["word_kl"].item()
    assert step(loss, [LISTS[1], blank])["word_kl"].item() == pytest.approx(alone, rel=1e-5)
    with pytest.raises(InvalidInputError, match="no words in any list"):
        step(loss, [blank])


@pytest.mark.parametrize("name", ["word_weight", "word_temperature"])
def test_options_that_cannot_be_used(tiny_model: MLRModel, cross_encoder: CrossEncoder, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} cannot be used"):
        MultiLevelLoss(tiny_model, cross_encoder, **{name: 0.0})


def test_it_trains_at_both_levels_in_the_trainer_and_a_checkpoint_holds_the_threshold(
    tiny_model: MLRModel, cross_encoder: CrossEncoder, tmp_path: Path
) -> None:
    loss = MultiLevelLoss(tiny_model, cross_encoder)
    args = MLRTrainingArguments(
        output_dir=str(tmp_path / "run"), num_train_epochs=15, per_device_train_batch_size=3, learning_rate=1e-3,
        save_strategy="steps", save_steps=15, logging_steps=1,
    )  # fmt: skip
    result = MLRTrainer(tiny_model, LISTS, objective=loss, args=args).train()
    history = [entry for entry in result.history if "word_kl" in entry]
    assert len(history) == 15
    for name in ("listwise_kl", "word_kl"):
        assert history[-1][name] < 0.7 * history[0][name], name
    fresh = MultiLevelLoss(MLRModel.from_pretrained(tiny_model.name), cross_encoder)
    load_weights(fresh, tmp_path / "run" / "checkpoint-15")
    theta = "objective.terms.1.filter.theta"
    assert fresh.state_dict()[theta].item() == loss.state_dict()[theta].item() != pytest.approx(0.6)
