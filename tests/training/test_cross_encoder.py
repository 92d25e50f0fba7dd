"""train_cross_encoder: that it learns, goes on after a kill, trains nothing twice, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlr_rag import MLRModel
from mlr_rag.errors import InvalidInputError, ModelError, UnsafeModelError
from mlr_rag.training.teachers import cross_encoder_trainer
from mlr_rag.training.teachers.cross_encoder import TrainedTeacher, train_cross_encoder
from mlr_rag.training.teachers.models import CrossEncoderTeacher
from mlr_rag.training.teachers.teacher import as_teacher
from tests.training.crossing import build_cross_encoder

WORDS = "paris water river stone bridge kettle stove kitchen roads line".split()
CORPUS = {f"{word} {n}": f"{word} {'old' if n else 'two'} {word} part" for word in WORDS for n in range(2)}
QUERIES = {word: f"what is the {word}" for word in WORDS}
QRELS = {word: {f"{word} 0": 1, f"{word} 1": 2} for word in WORDS[:8]}
DEV = {word: {f"{word} 0": 1} for word in WORDS[8:]}
RUN = {word: {id: 1 / (1 + place) for place, id in enumerate(CORPUS)} for word in WORDS}
FAST: dict[str, Any] = {"length": 6, "epochs": 2, "batch_size": 4, "max_length": 32}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(base: Any, output: Path, **changed: Any) -> TrainedTeacher:
    given = {"queries": QUERIES, "qrels": QRELS, "corpus": CORPUS, "run": RUN} | FAST | changed
    return train_cross_encoder(base, output=output, **given)


def count_steps(monkeypatch: pytest.MonkeyPatch, kill_at: int = 0) -> list[int]:
    steps: list[int] = []
    step = cross_encoder_trainer._Trainer.training_step

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(steps) + 1 == kill_at:
            raise KeyboardInterrupt
        steps.append(self.state.global_step)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(cross_encoder_trainer._Trainer, "training_step", counted)
    return steps


def test_it_learns_to_rank_the_relevant_first(tiny_model_dir: Path, tmp_path: Path) -> None:
    old = [id for id, text in CORPUS.items() if "old" in text]  # a random model of 3 layers learns no more than a word
    qrels = {word: dict.fromkeys(old, 1) for word in WORDS[:8]}
    trained = train(tiny_model_dir, tmp_path / "teacher", qrels=qrels, epochs=30, learning_rate=1e-3)
    assert trained.counts.lists == 8
    for word in WORDS:
        scores = trained.teacher.score([(QUERIES[word], text) for text in CORPUS.values()])
        assert {list(CORPUS)[place] for place in np.argsort(-scores)[: len(old)]} == set(old)
    opened = as_teacher(trained.folder)
    assert isinstance(opened, CrossEncoderTeacher)
    assert opened.fingerprint == trained.teacher.fingerprint
    assert opened.truncation == "32 tokens"


def test_held_out_judgments_tell_how_good_it_is_and_what_it_had_to_beat(tiny_model_dir: Path, tmp_path: Path) -> None:
    trained = train(tiny_model_dir, tmp_path / "teacher", dev_qrels=DEV, dev_depth=20)
    place = [list(CORPUS).index(f"{word} 0") for word in DEV]
    assert place == [16, 18]
    assert trained.candidates_ndcg == 0
    assert 0 <= trained.ndcg <= 1
    assert train(tiny_model_dir, tmp_path / "teacher", dev_qrels=DEV).ndcg == trained.ndcg
    perfect = {word: {f"{word} 0": 2.0, "paris 0": 1.0} for word in DEV}
    assert train(tiny_model_dir, tmp_path / "other", run=RUN | perfect, dev_qrels=DEV).candidates_ndcg == 1


def test_a_finished_teacher_of_the_same_input_is_loaded_and_not_trained(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = count_steps(monkeypatch)
    first = train(tiny_model_dir, tmp_path / "teacher")
    assert len(steps) == 4
    again = train(tiny_model_dir, tmp_path / "teacher")
    assert len(steps) == 4
    assert again.teacher.fingerprint == first.teacher.fingerprint


def test_a_killed_run_goes_on_to_the_weights_of_one_that_was_not(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_encoder_trainer, "_SAVE_STEPS", 2)
    whole = train(tiny_model_dir, tmp_path / "whole", epochs=4)
    with monkeypatch.context() as killed:
        count_steps(killed, kill_at=6)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_model_dir, tmp_path / "killed", epochs=4)
    steps = count_steps(monkeypatch)
    resumed = train(tiny_model_dir, tmp_path / "killed", epochs=4)
    assert steps == [4, 5, 6, 7]
    assert resumed.teacher.fingerprint == whole.teacher.fingerprint


def test_a_run_of_other_input_is_not_gone_on_with(tiny_model_dir: Path, tmp_path: Path) -> None:
    first = train(tiny_model_dir, tmp_path / "teacher")
    fewer = dict(list(QRELS.items())[:4])
    for changed in ({"qrels": fewer}, {"epochs": 1}, {"seed": 1}):
        with pytest.raises(InvalidInputError, match="resume=False"):
            train(tiny_model_dir, tmp_path / "teacher", **changed)
    anew = train(tiny_model_dir, tmp_path / "teacher", seed=1, resume=False)
    assert anew.teacher.fingerprint != first.teacher.fingerprint


def test_no_text_is_written_at_any_time(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_encoder_trainer, "_SAVE_STEPS", 1)
    queries = {word: f"{text} secret one" for word, text in QUERIES.items()}
    with monkeypatch.context() as killed:
        count_steps(killed, kill_at=3)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_model_dir, tmp_path / "teacher", queries=queries)
    assert list((tmp_path / "teacher").glob("checkpoint-*"))
    for _ in range(2):
        files = [file for file in (tmp_path / "teacher").rglob("*") if file.is_file()]
        assert not [file for file in files if b"secret" in file.read_bytes() or file.name == "README.md"]
        train(tiny_model_dir, tmp_path / "teacher", queries=queries)
    assert not list((tmp_path / "teacher").glob("checkpoint-*"))


def test_a_cross_encoder_and_a_multi_layer_model_can_be_the_base(tiny_model: MLRModel, tmp_path: Path) -> None:
    base = build_cross_encoder(tmp_path / "cross")
    pair = [(QUERIES["paris"], CORPUS["paris 0"])]
    before = CrossEncoderTeacher(base).score(pair)
    trained = train(base, tmp_path / "one", learning_rate=1e-9)
    np.testing.assert_allclose(trained.teacher.score(pair), before, atol=1e-4)
    tiny_model.save(tmp_path / "mlr")
    weights = tiny_model[0].model.embeddings.word_embeddings.weight
    teacher = train(tmp_path / "mlr", tmp_path / "two", learning_rate=1e-9).teacher
    torch.testing.assert_close(
        teacher.model[0].model.bert.embeddings.word_embeddings.weight, weights, atol=1e-5, rtol=0
    )


def test_a_base_that_would_run_code_is_refused(tmp_path: Path) -> None:
    base = build_cross_encoder(tmp_path / "cross")
    config = json.loads((base / "config.json").read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}
    for architectures in (["BertModel"], ["BertForSequenceClassification"]):
        (base / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
        with pytest.raises(UnsafeModelError):
            train(base, tmp_path / "teacher")


@pytest.mark.parametrize("qrels", [{}, {"paris": {"paris 0": 0}}, {"unknown": {"paris 0": 1}}])
def test_nothing_to_learn_from_is_an_error(tiny_model_dir: Path, tmp_path: Path, qrels: Any) -> None:
    with pytest.raises(InvalidInputError, match="nothing to learn from"):
        train(tiny_model_dir, tmp_path / "teacher", qrels=qrels)
    assert not (tmp_path / "teacher").exists()


def test_held_out_queries_must_be_others(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="held-out queries are among"):
        train(tiny_model_dir, tmp_path / "teacher", dev_qrels=DEV | {"paris": {"paris 0": 1}})


def test_a_folder_with_another_model_is_left_as_it_is(tmp_path: Path, tiny_model_dir: Path) -> None:
    mine = build_cross_encoder(tmp_path / "mine")
    before = {file.name: file.read_bytes() for file in mine.iterdir()}
    with pytest.raises(InvalidInputError, match="not trained here"):
        train(tiny_model_dir, mine)
    assert before.items() <= {file.name: file.read_bytes() for file in mine.iterdir()}.items()


def test_a_teacher_that_was_changed_since_is_not_taken_for_the_trained_one(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    trained = train(tiny_model_dir, tmp_path / "teacher")
    with torch.no_grad():
        next(trained.teacher.model.parameters()).add_(1)
    trained.teacher.model.save_pretrained(str(tmp_path / "teacher"), create_model_card=False)
    with pytest.raises(ModelError, match="has changed"):
        train(tiny_model_dir, tmp_path / "teacher")
