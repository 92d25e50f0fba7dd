"""MLRTrainer: the best model is really there, nothing of the texts is written, and what cannot work is refused."""

from __future__ import annotations

import json
import logging
import math
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn

from mlr_rag import InvalidInputError, MLRModel
from mlr_rag import progress as progress_module
from mlr_rag.errors import TrainingError
from mlr_rag.training.collator import ListCollator
from mlr_rag.training.lists import TrainingList, check_lists
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.objectives import InfoNCE, ListwiseKL, SelfContrastive
from mlr_rag.training.trainer import arguments as arguments_module
from mlr_rag.training.trainer.arguments import MLRTrainingArguments
from mlr_rag.training.trainer.trainer import MLRTrainer
from tests.training.material import arguments, evaluator, lists, one_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(tiny_model_dir: Path) -> MLRModel:
    """A tiny one that learns the task in a few steps."""
    return MLRModel.from_pretrained(tiny_model_dir)


class Scripted(BaseEvaluator):
    """An evaluator that gives these values, whatever the model, and the same again for the same weights."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.primary_metric = "dev_ndcg@10"
        self._values, self._known = list(values), {}

    def __call__(self, model: MLRModel, **_: Any) -> dict[str, float]:
        key = model.fingerprint
        if key not in self._known:
            self._known[key] = self._values.pop(0)
        return {self.primary_metric: self._known[key]}


def test_it_learns_and_keeps_the_best_of_its_checkpoints(model: MLRModel, tmp_path: Path) -> None:
    start = evaluator()(model)["dev_ndcg@10"]
    result = MLRTrainer(model, lists(), args=arguments(tmp_path), evaluator=evaluator()).train()
    assert result.start == start
    assert result.improved
    assert evaluator()(model)["dev_ndcg@10"] == result.best
    assert result.best == max(entry["dev_ndcg@10"] for entry in result.history if "dev_ndcg@10" in entry)
    assert MLRModel.load(tmp_path / f"checkpoint-{result.best_step}").fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("values", "best_step"), [((0.5, 0.7, 0.6, 0.4), 5), ((0.5, 0.5, 0.5, 0.5), 0), ((0.1, 0.2, 0.3, 0.4), 15)]
)
def test_the_weights_are_those_of_the_first_of_the_best(
    model: MLRModel, tmp_path: Path, values: tuple[float, ...], best_step: int
) -> None:
    scripted = Scripted(*values)
    args = arguments(tmp_path, save_total_limit=None)
    result = MLRTrainer(model, lists(), args=args, evaluator=scripted).train()
    assert (result.best_step, result.best, result.improved) == (best_step, max(values), best_step > 0)
    assert scripted(model)["dev_ndcg@10"] == max(values)
    assert MLRModel.load(tmp_path / f"checkpoint-{best_step}").fingerprint == model.fingerprint


def test_a_start_that_nothing_beats_is_restored_bit_for_bit(model: MLRModel, tmp_path: Path) -> None:
    before = model.fingerprint
    result = MLRTrainer(model, lists(), args=arguments(tmp_path), evaluator=Scripted(0.9, 0.8, 0.7, 0.6)).train()
    assert (result.best_step, result.steps, result.improved) == (0, 15, False)
    assert model.fingerprint == before


def test_a_best_checkpoint_that_is_not_as_good_as_it_was_is_an_error(model: MLRModel, tmp_path: Path) -> None:
    class Moody(Scripted):
        def __call__(self, model: MLRModel, **_: Any) -> dict[str, float]:
            return {self.primary_metric: self._values.pop(0)}

    trainer = MLRTrainer(model, lists(), args=arguments(tmp_path), evaluator=Moody(0.1, 0.2, 0.3, 0.4, 0.35))
    with pytest.raises(TrainingError, match=r"checkpoint-15 is not as good .* found 0.35, expected 0.4"):
        trainer.train()


def test_a_best_checkpoint_that_cannot_be_read_is_an_error(
    model: MLRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = MLRTrainer(model, lists(), args=arguments(tmp_path), evaluator=Scripted(0.5, 0.4, 0.3, 0.2))
    original = trainer.log

    def log(logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_loss" in logs:  # all steps are done
            (tmp_path / "checkpoint-0" / "loss.safetensors").unlink()
        original(logs, start_time)

    monkeypatch.setattr(trainer, "log", log)
    with pytest.raises(FileNotFoundError):
        trainer.train()


def test_patience_ends_a_run(model: MLRModel, tmp_path: Path) -> None:
    args = arguments(tmp_path, num_train_epochs=9, early_stopping_patience=2)
    values = (0.1, 0.3, 0.2, 0.25, *(0.9,) * 6)
    result = MLRTrainer(model, lists(), args=args, evaluator=Scripted(*values)).train()
    assert (result.steps, result.best_step, result.best, result.stopped_early) == (15, 5, 0.3, True)


def test_without_an_evaluator_the_last_weights_are_kept(model: MLRModel, tmp_path: Path) -> None:
    before = model.fingerprint
    result = MLRTrainer(model, lists(), args=arguments(tmp_path, num_train_epochs=1)).train()
    assert (result.best_step, result.metric, result.start, result.best, result.improved) == (5, "", None, None, False)
    assert model.fingerprint == MLRModel.load(tmp_path / "checkpoint-5").fingerprint != before


def test_without_arguments_it_trains_in_a_temporary_folder(
    model: MLRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = model.fingerprint
    assert MLRTrainer(model, lists()[:4]).train().steps == 3
    assert model.fingerprint != before
    assert not list(tmp_path.iterdir())


def test_one_seed_gives_one_model_and_another_seed_another(tiny_model_dir: Path, tmp_path: Path) -> None:
    prints = []
    for place, (seed, noise) in enumerate([(1, 5), (1, 6), (2, 5)]):
        model = MLRModel.from_pretrained(tiny_model_dir)
        trainer = MLRTrainer(model, lists(), args=arguments(tmp_path / str(place), num_train_epochs=1, seed=seed))
        torch.manual_seed(noise)  # what else the process has drawn counts for nothing
        trainer.train()
        prints.append(model.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_evaluating_more_often_trains_the_same_weights(tiny_model_dir: Path, tmp_path: Path) -> None:
    class Drawing(Scripted):
        def __call__(self, model: MLRModel, **_: Any) -> dict[str, float]:
            torch.rand(1)  # which dropout would get in its place
            return super().__call__(model)

    prints = []
    for name, changes in {"often": {"save_strategy": "steps", "save_steps": 1}, "once": {}}.items():
        model = MLRModel.from_pretrained(tiny_model_dir)
        args = arguments(tmp_path / name, num_train_epochs=1, **changes)
        rising = Drawing(*(0.1 * step for step in range(6)))
        MLRTrainer(model, lists(), ListLoss(model, dropout=True), args, rising).train()
        prints.append(model.fingerprint)
    assert prints[0] == prints[1]


def test_no_file_holds_a_text_of_the_lists_or_the_evaluator(model: MLRModel, tmp_path: Path) -> None:
    MLRTrainer(model, lists(), args=arguments(tmp_path, save_total_limit=None), evaluator=evaluator()).train()
    texts = {text for each in lists() for text in (each.query, *each.passages)} | set(evaluator()._corpus.values())
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 40
    for file in files:
        content = file.read_bytes()
        assert file.suffix != ".md"
        assert not [text for text in texts if text.encode() in content], file
        assert not [text for text in texts if json.dumps(text).encode() in content], file


def test_what_the_loss_learns_is_trained_saved_and_restored(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, pooling="self_contrastive")
    loss = ListLoss(model, SelfContrastive(layer_scales=[1.0], temperature=0.5, reduce="logsumexp"))
    values = Scripted(0.1, 0.9, 0.5, 0.4)
    args = arguments(tmp_path, save_total_limit=None)
    MLRTrainer(model, lists(), loss, args, values).train()
    best, last = (load_file(tmp_path / f"checkpoint-{step}" / "loss.safetensors") for step in (5, 15))
    name = "objective.layer_scales"
    assert best.keys() == last.keys() == {name}
    assert not torch.equal(best[name], last[name])
    assert torch.equal(loss.objective.layer_scales, best[name])


def test_the_share_of_each_layer_is_logged(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, pooling="self_contrastive")
    args = arguments(tmp_path, num_train_epochs=1, logging_steps=1)
    result = MLRTrainer(model, lists(), SelfContrastive(), args).train()
    shares = [[entry[f"layer_{layer}_wins"] for layer in (2, 3)] for entry in result.history]
    assert len(shares) == 5
    assert all(sum(share) == pytest.approx(1, abs=1e-3) for share in shares)


class Spoilt(nn.Module):
    """An objective that is no number, or has scores or a gradient that are none, in its third step."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self._calls = kind, 0

    def forward(self, scores: Any, batch: Any) -> Any:
        self._calls += 1
        if self._calls != 3:
            return InfoNCE()(scores, batch)
        if self.kind == "gradient":  # sqrt has none at 0
            return (scores - scores.detach()).sum().abs().sqrt()
        if self.kind == "scores":
            return InfoNCE()(scores * math.nan, batch)
        return scores.sum() * math.nan


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("loss", "the loss of step 3 is no number, in the batch of 'what "),
        ("scores", "the scores of step 3 are no numbers, in the batch of 'what .* Lower learning_rate"),
        ("gradient", "the gradient of step 3"),
    ],
)
def test_a_loss_or_gradient_that_is_no_number_ends_the_run_and_keeps_the_checkpoints(
    model: MLRModel, tmp_path: Path, kind: str, message: str
) -> None:
    args = arguments(tmp_path, save_strategy="steps", save_steps=2)
    with pytest.raises(TrainingError, match=message):
        MLRTrainer(model, lists(), Spoilt(kind), args).train()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert [item.name for item in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-0", "checkpoint-2"]
    MLRModel.load(tmp_path / "checkpoint-2")
    assert not model.training


def test_weights_that_explode_end_the_run_and_are_not_saved(model: MLRModel, tmp_path: Path) -> None:
    args = arguments(tmp_path, learning_rate=1e30, warmup_steps=0, save_strategy="steps", save_steps=1)
    with pytest.raises(TrainingError, match=r"the weights after step 1 are no numbers: .* Lower learning_rate"):
        MLRTrainer(model, lists(), args=args, evaluator=Scripted(*[0.5] * 16)).train()
    assert [item.name for item in tmp_path.glob("checkpoint-*")] == ["checkpoint-0"]


def test_a_teacher_score_that_no_loss_can_take_is_not_told_of_the_learning_rate(
    model: MLRModel, tmp_path: Path
) -> None:
    huge = TrainingList("what river", ("the river", "a stone"), (1e39, 0.0))  # infinite in float32
    with pytest.raises(InvalidInputError, match=r"teacher\[0, 0\] is not finite"):
        MLRTrainer(model, [huge], args=arguments(tmp_path)).train()


def test_a_trained_model_is_as_free_as_it_was(model: MLRModel, tmp_path: Path) -> None:
    MLRTrainer(model, lists(), args=arguments(tmp_path, num_train_epochs=1), evaluator=evaluator()).train()
    copied = pickle.loads(pickle.dumps(model))
    assert copied.fingerprint == model.fingerprint
    assert not model.training
    model.save(tmp_path / "saved")
    assert MLRModel.load(tmp_path / "saved").fingerprint == model.fingerprint


def test_training_reads_texts_as_encoding_does(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, pooling="mean", start="paper", layers=(1, 3))
    model.prompts = {"query": "what ", "document": "the "}
    trainer = MLRTrainer(model, lists(), args=arguments(tmp_path))
    batch = trainer.data_collator([trainer.train_dataset[0]])
    features, _ = trainer.collect_features(batch)
    with torch.no_grad():
        query, passages = (model(each)["sentence_embedding"].numpy() for each in features)
    each = lists()[0]
    assert query == pytest.approx(model.encode_query([each.query]), abs=1e-5)
    assert sorted(passages.sum(1)) == pytest.approx(sorted(model.encode_document(list(each.passages)).sum(1)), abs=1e-5)


def test_a_collator_that_stamps_no_task_is_refused_before_the_first_step(model: MLRModel, tmp_path: Path) -> None:
    class Mute(ListCollator):
        def __call__(self, rows: Any) -> dict[str, Any]:
            return {key: value for key, value in super().__call__(rows).items() if not key.endswith("_task")}

    trainer = MLRTrainer(model, lists(), args=arguments(tmp_path / "run"))
    trainer.data_collator = Mute(model)
    with pytest.raises(InvalidInputError, match="does not tell queries from documents"):
        trainer.train()
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_dir": ""}, "no output_dir"),
        ({"prompts": {"query": "q: "}}, "prompts would differ"),
        ({"router_mapping": {"query": "document"}}, "router_mapping contradicts"),
        ({"eval_strategy": "steps"}, "eval_strategy='steps', expected save_strategy, 'epoch'"),
        ({"save_strategy": "steps", "eval_steps": 3}, "eval_steps=3, expected save_steps"),
        ({"save_strategy": "best"}, "save_strategy"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
        ({"fp16": True, "use_cpu": True}, "fp16 trains on GPUs only"),
        ({"save_only_model": True}, "save_only_model"),
        ({"push_to_hub": True}, "push_to_hub"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"batch_sampler": "no_duplicates"}, "batch_sampler='no_duplicates', expected the default"),
        ({"metric_for_best_model": "dev_mrr@10", "greater_is_better": False}, "the highest metric: .*_is_better=False"),
        ({"metric_for_best_model": "dev_loss"}, "the highest metric: .*'dev_loss'"),
    ],
)
def test_arguments_that_cannot_be_kept_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        MLRTrainingArguments(**{"output_dir": str(tmp_path), **changes})


def test_arguments_in_the_habit_of_sentence_transformers_are_taken(model: MLRModel, tmp_path: Path) -> None:
    args = arguments(tmp_path, eval_strategy="epoch", load_best_model_at_end=True, num_train_epochs=1)
    assert MLRTrainer(model, lists(), args=args, evaluator=evaluator()).train().steps == 5


def test_bfloat16_is_used_only_where_the_processor_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arguments_module, "has_bfloat16", lambda device: False)
    with caplog.at_level(logging.WARNING):
        assert not arguments(tmp_path, bf16=True, use_cpu=True).bf16
    assert "training in float32" in caplog.text
    monkeypatch.setattr(arguments_module, "has_bfloat16", lambda device: True)
    assert arguments(tmp_path, bf16=True, use_cpu=True).bf16


def test_a_model_trained_in_bfloat16_is_judged_and_left_in_float32(
    model: MLRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments_module, "has_bfloat16", lambda device: True)
    args = arguments(tmp_path, bf16=True, use_cpu=True, num_train_epochs=1)
    seen = []
    trainer = MLRTrainer(model, lists(), args=args, evaluator=evaluator())
    model[0].register_forward_hook(lambda *_: seen.append((model.training, torch.is_autocast_enabled("cpu"))))
    trainer.train()
    assert set(seen) == {(True, True), (False, False)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert "forward" not in vars(model)


@pytest.mark.parametrize(
    ("half", "expected"), [(True, {(True, "eager"), (False, "sdpa")}), (False, {(True, "sdpa"), (False, "sdpa")})]
)
def test_fused_attention_which_is_slow_in_bfloat16_gives_way_to_plain_while_training_alone(
    model: MLRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool, expected: set[tuple[bool, str]]
) -> None:
    monkeypatch.setattr(arguments_module, "has_bfloat16", lambda device: True)
    args = arguments(tmp_path, bf16=half, use_cpu=True, num_train_epochs=1)
    seen = []
    trainer = MLRTrainer(model, lists(), args=args, evaluator=evaluator())
    config = model[0].model.config
    model[0].register_forward_hook(lambda *_: seen.append((model.training, config._attn_implementation)))
    trainer.train()
    assert set(seen) == expected
    assert config._attn_implementation == "sdpa"


def test_progress_is_shown_through_our_hook_and_nowhere_else(
    model: MLRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown: list[Any] = []

    class Bar:
        def update(self, n: int) -> None:
            shown.append(n)

        def close(self) -> None:
            shown.append("closed")

    def start(description: str, total: int | None, show: bool | None) -> Bar:
        shown.append((description, total))
        return Bar()

    trainer = MLRTrainer(model, lists(), args=arguments(tmp_path, num_train_epochs=1))
    monkeypatch.setattr(progress_module, "start", start)
    capfd.readouterr()
    trainer.train()
    assert shown == [("Training", 5), 0, 1, 1, 1, 1, 1, "closed"]
    assert capfd.readouterr() == ("", "")


def test_what_is_no_model_of_ours_is_refused(model: MLRModel, tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"expected an MLRModel. Make one with MLRModel.from_pretrained"):
        MLRTrainer(SentenceTransformer(str(tiny_model_dir), device="cpu"), lists())  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="not an evaluator to choose checkpoints by: found BaseEvaluator"):
        MLRTrainer(model, lists(), args=arguments(tmp_path), evaluator=BaseEvaluator())
    other = ListLoss(MLRModel.from_pretrained(tiny_model_dir))
    with pytest.raises(InvalidInputError, match="the loss is of another model"):
        MLRTrainer(model, lists(), other)
    with pytest.raises(InvalidInputError, match="expected MLRTrainingArguments"):
        MLRTrainer(model, lists(), args=SentenceTransformerTrainingArguments(str(tmp_path)))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="no lists to train on"):
        MLRTrainer(model, [], args=arguments(tmp_path))
    checkpointing = arguments(tmp_path)
    checkpointing.gradient_checkpointing = True  # transformers warns of the name where it is passed
    falling = Scripted(0.5)
    falling.greater_is_better = False
    with pytest.raises(InvalidInputError, match=r"dev_ndcg@10 is lower when the model is better"):
        MLRTrainer(model, lists(), args=arguments(tmp_path), evaluator=falling)
    with pytest.raises(InvalidInputError, match="not an objective: found MultipleNegativesRankingLoss"):
        MLRTrainer(model, lists(), MultipleNegativesRankingLoss(model), arguments(tmp_path))
    with pytest.raises(InvalidInputError, match=r"gradient_checkpointing is .* expected ListLoss\(.*dropout=True\)"):
        MLRTrainer(model, lists(), args=checkpointing)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("odd", "objective", "found"),
    [
        (TrainingList("odd", ("one", "two"), labels=(1, 0)), None, "1 no_scores, of 41"),
        (TrainingList("odd", ("one", "two"), (2.0, 2.0), (1, 0)), ListwiseKL(), "1 equal_scores, of 41"),
        (TrainingList("odd", ("one", "two"), (2.0, 1.0), (0, 0)), InfoNCE(), "1 no_positives, of 41"),
        ({"query": "odd", "passages": ["one", "one"], "labels": [1, 0]}, InfoNCE(), "1 short, of 41"),
    ],
)
def test_lists_that_the_objective_cannot_learn_from_are_refused_before_training(
    model: MLRModel, tmp_path: Path, odd: Any, objective: Any, found: str
) -> None:
    given = [*lists(), odd]
    with pytest.raises(InvalidInputError, match="cannot learn from") as raised:
        MLRTrainer(model, given, objective, arguments(tmp_path))
    assert raised.value.found == found
    call = raised.value.remedy.removeprefix("Pass ").removesuffix(".")
    assert (
        len(MLRTrainer(model, eval(call, {"check_lists": check_lists, "lists": given}), objective).train_dataset) == 40
    )


def test_lists_that_the_objective_does_not_need_more_of_are_taken(model: MLRModel, tmp_path: Path) -> None:
    unscored = [TrainingList(each.query, each.passages, labels=each.labels) for each in lists()]
    ungraded = [TrainingList(each.query, each.passages, each.scores, (0,) * len(each.passages)) for each in lists()]
    MLRTrainer(model, unscored, InfoNCE(), arguments(tmp_path / "1", max_steps=1)).train()
    MLRTrainer(model, ungraded, ListwiseKL(), arguments(tmp_path / "2", max_steps=1)).train()


def test_dicts_are_lists_too_and_what_is_neither_is_named(model: MLRModel, tmp_path: Path) -> None:
    trainers = [
        MLRTrainer(model, given, args=arguments(tmp_path / "run", max_steps=1))
        for given in (lists(), [asdict(each) for each in lists()])
    ]
    assert trainers[0].folder.parts == trainers[1].folder.parts
    assert trainers[1].train().steps == 1
    with pytest.raises(InvalidInputError, match="list 1 is no list: found 7, expected a TrainingList"):
        MLRTrainer(model, [lists()[0], 7], args=arguments(tmp_path))  # type: ignore[list-item]


def test_only_what_requires_a_gradient_is_trained(model: MLRModel, tmp_path: Path) -> None:
    model.requires_grad_(False)
    with pytest.raises(InvalidInputError, match="nothing to train"):
        MLRTrainer(model, lists(), args=arguments(tmp_path))
    model[1].layer_weights.requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    MLRTrainer(model, lists(), InfoNCE(), arguments(tmp_path, learning_rate=0.1, num_train_epochs=1)).train()
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["1.layer_weights"]


def test_a_checkpoint_of_other_tensors_is_an_error(model: MLRModel, tmp_path: Path) -> None:
    trainer = MLRTrainer(model, lists(), args=arguments(tmp_path, num_train_epochs=1))
    trainer.train()
    save_file({"objective.other": torch.zeros(1)}, tmp_path / "checkpoint-5" / "loss.safetensors")
    with pytest.raises(TrainingError, match="0 tensors missing and 1 unknown, such as objective"):
        trainer.train()
