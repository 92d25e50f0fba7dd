"""A run that is killed ends as one that nothing stopped; folders of other runs are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlr_rag import InvalidInputError, MLRModel, StoreLockedError
from mlr_rag.errors import TrainingError
from mlr_rag.folders import lock_folder
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.objectives import InfoNCE
from mlr_rag.training.trainer import run_identity
from mlr_rag.training.trainer.trainer import MLRTrainer, TrainingResult
from tests.training.material import arguments, evaluator, lists, one_thread  # noqa: F401
from tests.training.test_trainer import Scripted

pytestmark = pytest.mark.usefixtures("one_thread")


def trainer(folder: Path, model_dir: Path, **changes: Any) -> MLRTrainer:
    """One epoch of five steps, evaluated at its end."""
    parts = {"lists": lists(), "objective": None, "evaluator": evaluator(), **changes}
    settings, prepare = parts.pop("settings", {}), parts.pop("prepare", None)
    args = arguments(folder, **{"num_train_epochs": 1, **settings})
    model = MLRModel.from_pretrained(model_dir)
    if prepare:
        prepare(model)
    return MLRTrainer(model, args=args, **parts)


class Stop(Exception):
    """In place of a kill."""


def interrupt(running: MLRTrainer, step: int) -> None:
    """Train until the given step has begun."""
    original = running.training_step

    def training_step(*args: Any) -> Any:
        if running.state.global_step == step:
            raise Stop
        return original(*args)

    running.training_step = training_step  # type: ignore[method-assign]
    with pytest.raises(Stop):
        running.train()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("kind", "kills"), [("full", 8), ("lora", 5)])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    tiny_model_dir: Path, tmp_path: Path, kind: str, kills: int
) -> None:
    command = [sys.executable, "-m", "tests.training.killed", str(tiny_model_dir), str(tmp_path), kind, str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" -9 ") > kills // 2, done.stdout
    whole, killed = _weights(tmp_path / "whole" / "final"), _weights(tmp_path / "killed" / "final")
    assert whole
    assert whole == killed
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed")]
    assert results[0]["steps"] == 9
    assert _without_wins(results[0]) == _without_wins(results[1])


def _weights(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.safetensors")}


def _without_wins(result: dict[str, Any]) -> dict[str, Any]:
    """The counts of layers are of one process."""
    history = [{k: v for k, v in entry.items() if not k.endswith("_wins")} for entry in result["history"]]
    return {**result, "history": history}


def test_a_run_at_its_end_is_loaded_and_not_trained_again(tiny_model_dir: Path, tmp_path: Path) -> None:
    first = trainer(tmp_path / "run", tiny_model_dir)
    result = first.train()
    again = trainer(tmp_path / "run", tiny_model_dir)
    again.training_step = None  # type: ignore[assignment, method-assign]
    assert again.train() == result
    assert again.model.fingerprint == first.model.fingerprint
    assert not again.model.training


@pytest.mark.parametrize("measures", [True, False])
def test_a_run_that_is_killed_at_its_last_step_in_an_epoch_takes_no_step_more(
    measures: bool, tiny_model_dir: Path, tmp_path: Path
) -> None:
    parts = {"settings": {"max_steps": 3}, "evaluator": evaluator() if measures else None}
    whole = trainer(tmp_path / "run", tiny_model_dir, **parts)
    expected = whole.train()
    (tmp_path / "run" / "result.json").unlink()
    again = trainer(tmp_path / "run", tiny_model_dir, **parts)
    assert again.train() == expected
    assert again.model.fingerprint == whole.model.fingerprint
    assert expected.steps == 3


def test_half_a_checkpoint_is_thrown_away(tiny_model_dir: Path, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", tiny_model_dir, settings={"save_strategy": "steps", "save_steps": 2})
    expected = whole.train()
    part = trainer(tmp_path / "part", tiny_model_dir, settings={"save_strategy": "steps", "save_steps": 2})
    interrupt(part, 3)
    half = tmp_path / "part" / ".partial" / "checkpoint-4"
    half.mkdir(parents=True)
    (half / "trainer_state.json").write_text("{")
    assert (
        trainer(tmp_path / "part", tiny_model_dir, settings={"save_strategy": "steps", "save_steps": 2}).train()
        == expected
    )
    assert not half.exists()


def test_a_run_that_patience_ended_is_not_taken_further(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_train_epochs": 6, "early_stopping_patience": 1, "learning_rate": 1e-9}
    killed = trainer(tmp_path / "run", tiny_model_dir, settings=settings)

    def kill(*_: Any) -> TrainingResult:
        raise Stop

    monkeypatch.setattr(killed, "_outcome", kill)
    with pytest.raises(Stop):
        killed.train()
    result = trainer(tmp_path / "run", tiny_model_dir, settings=settings).train()
    assert (result.steps, result.best_step, result.stopped_early) == (5, 0, True)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"settings": {"learning_rate": 2e-3}}, "learning_rate 0.001, here 0.002"),
        ({"settings": {"seed": 7}}, "seed 42, here 7"),
        ({"lists": lists()[1:]}, "other lists"),
        ({"objective": InfoNCE()}, "loss.objective 'WeightedSum', here 'InfoNCE'"),
        ({"objective": InfoNCE(temperature=0.5)}, "here 0.5"),
        ({"evaluator": None}, "other evaluator"),
        ({"prepare": lambda model: setattr(model[0].model.embeddings.dropout, "p", 0.3)}, "other dropout"),
        ({"prepare": lambda model: model[0].model.embeddings.requires_grad_(False)}, "other trained parameters"),
    ],
)
def test_another_run_is_refused_and_told_apart(
    tiny_model_dir: Path, tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    trainer(tmp_path, tiny_model_dir, settings={"max_steps": 1}).train()
    other = trainer(
        tmp_path, tiny_model_dir, **{**changes, "settings": {"max_steps": 1, **changes.get("settings", {})}}
    )
    before = other.model.fingerprint
    with pytest.raises(InvalidInputError, match="holds another run") as raised:
        other.train()
    assert difference in str(raised.value.found)
    assert "another output_dir" in raised.value.remedy
    assert "resume=False" in raised.value.remedy
    assert other.model.fingerprint == before


def test_another_version_of_what_trains_is_another_run(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(tmp_path, tiny_model_dir, settings={"max_steps": 1}).train()
    monkeypatch.setattr(run_identity, "version", lambda name: "9.9")
    with pytest.raises(InvalidInputError, match=r"holds another run: .*torch '.*', here '9.9'"):
        trainer(tmp_path, tiny_model_dir, settings={"max_steps": 1}).train()


class Custom(nn.Module):
    """An objective of a user's, with settings of any type."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, scores: Any, batch: Any) -> Any:
        return InfoNCE()(scores, batch)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ({"a": 1, "b": {0, 8}}, {"b": {8, 0}, "a": 1}, {"a": 1, "b": {0}}),
        (torch.arange(5000), torch.arange(5000), torch.arange(5000).roll(2500)),
        ([torch.ones(2)], [torch.ones(2)], [torch.zeros(2)]),
        (Path("a"), Path("a"), Path("b")),
    ],
)
def test_settings_of_any_type_tell_two_objectives_apart(
    tiny_model_dir: Path, tmp_path: Path, one: Any, same: Any, other: Any
) -> None:
    parts = [trainer(tmp_path, tiny_model_dir, objective=Custom(each)).folder.parts for each in (one, same, other)]
    assert parts[0] == parts[1]
    assert parts[0] != parts[2]


def test_a_setting_that_cannot_be_told_from_another_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"loss.objective.settings cannot be told .*a name that begins with _"):
        trainer(tmp_path, tiny_model_dir, objective=Custom([lambda scores: scores]))


class Nameless(Scripted):
    """An evaluator without a fingerprint, one of many of its class."""


def test_the_result_of_another_evaluator_is_not_taken_for_this_ones(tiny_model_dir: Path, tmp_path: Path) -> None:
    result = trainer(tmp_path, tiny_model_dir, evaluator=Nameless(0.1, 0.5)).train()
    assert trainer(tmp_path, tiny_model_dir, evaluator=Nameless(0.5)).train() == result
    with pytest.raises(
        TrainingError, match=r"checkpoint-5 is not as good .*found 0.7, expected 0.5.*another evaluator"
    ):
        trainer(tmp_path, tiny_model_dir, evaluator=Nameless(0.7)).train()


def test_a_run_without_a_checkpoint_gives_way_to_a_corrected_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    def stop() -> None:
        raise Stop

    killed = trainer(tmp_path, tiny_model_dir)
    killed.save_start = stop  # type: ignore[method-assign]
    with pytest.raises(Stop):
        killed.train()
    corrected = trainer(tmp_path, tiny_model_dir, settings={"learning_rate": 2e-3, "max_steps": 1})
    assert corrected.train().steps == 1
    with pytest.raises(InvalidInputError, match=r"learning_rate 0\.002, here 0\.001"):
        trainer(tmp_path, tiny_model_dir).train()


def test_another_model_is_another_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    first = trainer(tmp_path, tiny_model_dir, evaluator=None)
    first.train()
    with pytest.raises(InvalidInputError, match="other model"):
        MLRTrainer(first.model, lists(), args=arguments(tmp_path, num_train_epochs=1)).train()


def test_what_changes_no_weight_makes_no_other_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    first = trainer(tmp_path / "one", tiny_model_dir)
    settings = {
        "logging_steps": 1, "logging_first_step": True, "log_level": "error", "run_name": "a", "save_total_limit": 5,
        "dataloader_num_workers": 1, "dataloader_prefetch_factor": 2, "dataloader_persistent_workers": True,
        "per_device_eval_batch_size": 3, "disable_tqdm": True, "report_to": [], "hub_model_id": "a/b",
    }  # fmt: skip
    assert trainer(tmp_path / "two", tiny_model_dir, settings=settings).folder.parts == first.folder.parts


def test_resume_false_begins_anew_in_the_same_folder(tiny_model_dir: Path, tmp_path: Path) -> None:
    trainer(tmp_path, tiny_model_dir).train()
    other = trainer(tmp_path, tiny_model_dir, settings={"max_steps": 2})
    assert other.train(resume=False).steps == 2
    assert sorted(item.name for item in tmp_path.glob("checkpoint-*")) == ["checkpoint-0", "checkpoint-2"]


def test_a_trained_model_does_not_begin_anew_as_if_it_were_the_start(tiny_model_dir: Path, tmp_path: Path) -> None:
    done = trainer(tmp_path, tiny_model_dir, evaluator=None)
    done.train()
    with pytest.raises(InvalidInputError, match="has changed since"):
        done.train(resume=False)


def test_checkpoints_of_others_are_never_touched(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-7").mkdir()
    for resume in (True, False):
        with pytest.raises(InvalidInputError, match="not written by mlr_rag"):
            trainer(tmp_path, tiny_model_dir).train(resume)
    assert (tmp_path / "checkpoint-7").exists()


def test_two_processes_do_not_train_in_one_folder(tiny_model_dir: Path, tmp_path: Path) -> None:
    lock = lock_folder(tmp_path, ".lock", "")
    try:
        with pytest.raises(StoreLockedError):
            trainer(tmp_path, tiny_model_dir).train()
    finally:
        lock.release()


def test_only_the_best_and_the_last_checkpoints_are_kept(tiny_model_dir: Path, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-9, "save_strategy": "steps", "save_steps": 1}  # nothing beats the start
    trainer(tmp_path, tiny_model_dir, settings=settings).train()
    assert sorted(item.name for item in tmp_path.glob("checkpoint-*")) == ["checkpoint-0", "checkpoint-5"]


def test_lists_that_differ_in_a_text_only_are_other_lists(tiny_model_dir: Path, tmp_path: Path) -> None:
    changed = [*lists()[:-1], TrainingList("another", ("one", "two"), (1.0, 0.0))]
    parts = [trainer(tmp_path, tiny_model_dir, lists=given).folder.parts["lists"] for given in (lists(), changed)]
    assert parts[0] != parts[1]
