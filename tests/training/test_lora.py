"""LoRA: the same vectors before, little to train, and a plain model after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mlr_rag import InvalidInputError, MLRModel
from mlr_rag.errors import TrainingError
from mlr_rag.training.trainer.lora import add_lora, has_lora, merge_lora
from mlr_rag.training.trainer.trainer import MLRTrainer
from tests import tiny
from tests.training.material import arguments, evaluator, lists, one_thread  # noqa: F401
from tests.training.test_trainer import Scripted

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ["the river", "a stone bridge by the road", "what boils?"]


def disturb(model: MLRModel) -> None:
    """Give every update a value, as training does."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))


def test_an_untrained_update_changes_no_vector_and_is_all_of_the_backbone_that_trains(tiny_model: MLRModel) -> None:
    before = tiny_model.encode_layers(TEXTS)
    assert add_lora(tiny_model, rank=2) is tiny_model
    assert np.array_equal(tiny_model.encode_layers(TEXTS), before)
    trained = [name for name, parameter in tiny_model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name for name in trained if name.startswith("0."))
    assert [name for name in trained if not name.startswith("0.")] == ["1.layer_weights"]
    assert len(trained) == 1 + 2 * 6 * 3  # A and B of six matrices in each of three layers


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_a_merged_model_is_plain_and_has_the_adapted_vectors(tmp_path: Path, kind: str) -> None:
    model = MLRModel.from_pretrained(tiny.build(kind, tmp_path / "base"), layers=(1, 3), pooling="mean", start="paper")
    plain, names = model.encode_document(TEXTS), list(model.state_dict())
    add_lora(model)
    disturb(model)
    documents, layers = model.encode_document(TEXTS), model.encode_layers(TEXTS)
    assert not np.allclose(documents, plain, atol=1e-2)
    merge_lora(model)
    assert model.encode_document(TEXTS) == pytest.approx(documents, abs=1e-5)
    assert model.encode_layers(TEXTS) == pytest.approx(layers, abs=1e-5)
    assert list(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save(tmp_path / "saved")
    assert np.array_equal(MLRModel.load(tmp_path / "saved").encode_document(TEXTS), model.encode_document(TEXTS))


def test_an_update_that_is_not_merged_is_not_saved_as_if_it_were_a_model(tiny_model: MLRModel, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"has LoRA that is not merged.*merge_lora\(model\) first"):
        add_lora(tiny_model).save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_merged_model_exports(tiny_model: MLRModel, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    disturb(add_lora(tiny_model))
    merge_lora(tiny_model).export_portable(tmp_path / "portable")
    stock = SentenceTransformer(str(tmp_path / "portable"), device="cpu")
    assert stock.encode_document(TEXTS) == pytest.approx(tiny_model.encode_document(TEXTS), abs=1e-5)


def test_the_same_seed_makes_the_same_start_and_draws_nothing_else(tiny_model_dir: Path) -> None:
    prints = []
    for seed in (0, 0, 1):
        state = torch.random.get_rng_state()
        prints.append(add_lora(MLRModel.from_pretrained(tiny_model_dir), seed=seed).fingerprint)
        torch.rand(1)
        assert not torch.equal(torch.random.get_rng_state(), state)
    assert prints[0] == prints[1] != prints[2]


def test_training_moves_only_what_is_low_in_rank(tiny_model: MLRModel, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    args = arguments(tmp_path, learning_rate=1e-2)
    trainer = MLRTrainer(add_lora(tiny_model, rank=2), lists(), args=args, evaluator=evaluator())
    result = trainer.train()
    assert result.improved
    assert not has_lora(tiny_model)
    after = tiny_model.state_dict()
    assert list(after) == list(before)
    moved = {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}
    matrices = {name for name in moved if name.startswith("0.")}
    assert matrices
    assert all(torch.linalg.matrix_rank(moved[name], rtol=1e-3) <= 2 for name in matrices)
    assert evaluator()(tiny_model)["dev_ndcg@10"] == pytest.approx(result.best, abs=1e-6)


def test_the_best_updates_are_restored_before_they_are_merged(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = add_lora(MLRModel.from_pretrained(tiny_model_dir))
    args = arguments(tmp_path, save_total_limit=None)
    result = MLRTrainer(model, lists(), args=args, evaluator=Scripted(0.1, 0.9, 0.5, 0.4)).train()
    assert result.best_step == 5
    expected = add_lora(MLRModel.from_pretrained(tiny_model_dir))
    best = load_file(tmp_path / "checkpoint-5" / "loss.safetensors")
    expected.load_state_dict({name.removeprefix("model."): value for name, value in best.items()}, strict=False)
    merge_lora(expected)
    assert expected.fingerprint == model.fingerprint


def test_a_start_that_nothing_beats_comes_back_as_it_was(tiny_model: MLRModel, tmp_path: Path) -> None:
    before = tiny_model.fingerprint
    add_lora(tiny_model)
    MLRTrainer(tiny_model, lists(), args=arguments(tmp_path), evaluator=Scripted(0.9, 0.8, 0.7, 0.6)).train()
    assert tiny_model.fingerprint == before


def test_checkpoints_hold_the_updates_alone(tiny_model_dir: Path, tmp_path: Path) -> None:
    for name, prepare in {"whole": lambda model: model, "lora": lambda model: add_lora(model, rank=1)}.items():
        model = prepare(MLRModel.from_pretrained(tiny_model_dir))
        MLRTrainer(model, lists(), args=arguments(tmp_path / name, num_train_epochs=1)).train()
    files = [(tmp_path / name / "checkpoint-5").rglob("*.safetensors") for name in ("whole", "lora")]
    sizes = [sum(file.stat().st_size for file in those) for those in files]
    assert sizes[1] < sizes[0] / 4
    assert not (tmp_path / "lora" / "checkpoint-5" / "modules.json").exists()


def test_a_run_at_its_end_is_loaded_into_a_fresh_model_with_lora(tiny_model_dir: Path, tmp_path: Path) -> None:
    def train(model: MLRModel) -> MLRModel:
        MLRTrainer(model, lists(), args=arguments(tmp_path, num_train_epochs=1)).train()
        return model

    first = train(add_lora(MLRModel.from_pretrained(tiny_model_dir)))
    again = train(add_lora(MLRModel.from_pretrained(tiny_model_dir)))
    assert again.fingerprint == first.fingerprint
    assert not has_lora(again)


def test_a_merged_model_is_not_trained_again_by_the_trainer_that_merged_it(
    tiny_model: MLRModel, tmp_path: Path
) -> None:
    trainer = MLRTrainer(add_lora(tiny_model), lists(), args=arguments(tmp_path, num_train_epochs=1))
    trainer.train()
    with pytest.raises(TrainingError, match="needs add_lora again"):
        trainer.train()


def test_what_was_frozen_before_stays_frozen_after(tiny_model: MLRModel) -> None:
    tiny_model[0].model.embeddings.requires_grad_(False)
    merge_lora(add_lora(tiny_model))
    frozen = [name for name, parameter in tiny_model.named_parameters() if not parameter.requires_grad]
    assert frozen
    assert all(".embeddings." in name for name in frozen)


@pytest.mark.parametrize("rank", [0, -1, 1.5, True])
def test_a_rank_that_is_none_is_refused(tiny_model: MLRModel, rank: Any) -> None:
    with pytest.raises(InvalidInputError, match="the rank"):
        add_lora(tiny_model, rank=rank)
    assert not has_lora(tiny_model)


def test_lora_twice_or_merged_without_is_refused(tiny_model: MLRModel) -> None:
    with pytest.raises(InvalidInputError, match="no LoRA to merge"):
        merge_lora(tiny_model)
    with pytest.raises(InvalidInputError, match="has LoRA already"):
        add_lora(add_lora(tiny_model))


def test_a_separate_query_encoder_is_refused(tiny_model_dir: Path) -> None:
    """LoRA would reach the documents alone, and all of the queries' copy would be trained."""
    model = MLRModel.from_pretrained(tiny_model_dir, separate_query_encoder=True)
    with pytest.raises(InvalidInputError, match="documents' backbone alone"):
        add_lora(model)
    assert not has_lora(model)


def test_a_frozen_backbone_is_refused(tiny_model: MLRModel) -> None:
    adapted = tiny_model.add_query_adapter(2)
    adapted.freeze_documents()
    documents = adapted.encode_document(TEXTS)
    with pytest.raises(InvalidInputError, match="frozen"):
        add_lora(adapted)
    assert not has_lora(adapted)
    assert np.array_equal(adapted.encode_document(TEXTS), documents)
    add_lora(adapted.requires_grad_(True))
    assert has_lora(adapted)
