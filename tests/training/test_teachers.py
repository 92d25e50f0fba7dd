"""Teachers: what each scores, what changes its fingerprint, and what as_teacher makes of things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from mlr_rag import MLRModel
from mlr_rag.errors import InvalidInputError, ModelNotFoundError, UnsafeModelError, UnsupportedModelError
from mlr_rag.testing import HashEncoder
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.teachers.models import BiEncoderTeacher, CrossEncoderTeacher
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import CallableTeacher, MeanTeacher, as_teacher
from tests.training.crossing import build_cross_encoder
from tests.training.scoring import HashTeacher, pairs_of

PAIRS = [
    ("what is the capital of france", "paris is the capital of france"),
    ("kettle", "the kettle on the stove sings before anyone in the kitchen is awake"),
    ("", "old roads"),
    ("river", "the river " * 60),  # longer than is read
    ("what is the capital of france", "stone bridge"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_cross_encoder(tmp_path_factory.mktemp("cross") / "encoder")


@pytest.fixture
def cross(folder: Path) -> CrossEncoderTeacher:
    return CrossEncoderTeacher(folder)


# CrossEncoderTeacher


def test_a_cross_encoder_gives_the_raw_logits_of_predict_in_the_order_of_the_pairs(
    folder: Path, cross: CrossEncoderTeacher
) -> None:
    expected = CrossEncoder(str(folder), local_files_only=True).predict(PAIRS, activation_fn=torch.nn.Identity())
    scores = cross.score(PAIRS)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.ptp(scores) > 0.05
    assert cross.score([]).shape == (0,)


def test_a_saved_sigmoid_does_not_reach_the_scores(folder: Path, tmp_path: Path, cross: CrossEncoderTeacher) -> None:
    model = CrossEncoder(str(folder), local_files_only=True, activation_fn=torch.nn.Sigmoid())
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    np.testing.assert_allclose(CrossEncoderTeacher(model).score(PAIRS), cross.score(PAIRS), atol=1e-6)
    np.testing.assert_allclose(CrossEncoderTeacher(tmp_path / "saved").score(PAIRS), cross.score(PAIRS), atol=1e-6)


def test_a_model_left_in_training_mode_is_asked_without_dropout(folder: Path, cross: CrossEncoderTeacher) -> None:
    model = CrossEncoder(str(folder), local_files_only=True).train()
    np.testing.assert_allclose(CrossEncoderTeacher(model).score(PAIRS), cross.score(PAIRS), atol=1e-6)


def test_the_fingerprint_is_that_of_the_weights_not_of_the_folder_or_the_object(
    folder: Path, tmp_path: Path, cross: CrossEncoderTeacher
) -> None:
    cross.model.save_pretrained(str(tmp_path / "copy"), create_model_card=False)
    assert CrossEncoderTeacher(tmp_path / "copy").fingerprint == cross.fingerprint
    other = build_cross_encoder(tmp_path / "other", seed=1)
    assert CrossEncoderTeacher(other).fingerprint != cross.fingerprint


def test_training_it_further_changes_the_fingerprint(cross: CrossEncoderTeacher) -> None:
    before = cross.fingerprint
    with torch.no_grad():
        next(cross.model.parameters())[5, 3] += 1e-3
    assert cross.fingerprint != before


def test_a_prompt_changes_scores_and_fingerprint(folder: Path, cross: CrossEncoderTeacher) -> None:
    prompted = CrossEncoderTeacher(
        CrossEncoder(str(folder), local_files_only=True, prompts={"rank": "paris bridge "}, default_prompt_name="rank")
    )
    expected = prompted.model.predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(prompted.score(PAIRS), expected, atol=1e-5)
    assert np.abs(prompted.score(PAIRS) - cross.score(PAIRS)).max() > 1e-3
    assert prompted.fingerprint != cross.fingerprint


def test_max_length_is_what_it_reads_and_part_of_the_cache_s_key(folder: Path, cross: CrossEncoderTeacher) -> None:
    short = CrossEncoderTeacher(folder, max_length=16)
    assert (cross.truncation, short.truncation) == ("64 tokens", "16 tokens")
    same = np.isclose(short.score(PAIRS), cross.score(PAIRS), atol=1e-6)
    assert same.tolist() == [True, False, True, False, True]
    cache = ScoreCache()
    cache.score(cross, PAIRS)
    assert not cache.known(short, PAIRS).any()


@pytest.mark.parametrize("bad", [0, 7, 65])
def test_a_max_length_that_the_model_cannot_read_is_refused(folder: Path, bad: int) -> None:
    with pytest.raises(InvalidInputError, match="expected 8 to 64"):
        CrossEncoderTeacher(folder, max_length=bad)


def test_a_cross_encoder_of_several_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="found 3 labels"):
        CrossEncoderTeacher(build_cross_encoder(tmp_path / "three", num_labels=3))


def test_an_encoder_is_no_cross_encoder_whose_head_would_be_random(tiny_model_dir: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="train_cross_encoder"):
        CrossEncoderTeacher(tiny_model_dir)


def test_a_cross_encoder_that_would_run_code_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    unsafe = build_cross_encoder(tmp_path / "unsafe")
    (unsafe / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(UnsafeModelError, match="auto_map"):
        CrossEncoderTeacher(unsafe)
    pickled = build_cross_encoder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(UnsafeModelError, match="pickled"):
        CrossEncoderTeacher(pickled)


# BiEncoderTeacher


def test_a_bi_encoder_gives_the_cosine_of_query_and_document(asymmetric_model: MLRModel) -> None:
    queries = asymmetric_model.encode_query([query for query, _ in PAIRS])
    documents = asymmetric_model.encode_document([passage for _, passage in PAIRS])
    teacher = BiEncoderTeacher(asymmetric_model)
    np.testing.assert_allclose(teacher.score(PAIRS), (queries * documents).sum(1), atol=1e-5)
    assert teacher.score([]).shape == (0,)


def test_several_vectors_a_document_give_the_best_of_them(tiny_model_dir: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 3), pooling="multi_vector")
    queries = model.encode_query([query for query, _ in PAIRS])
    documents = model.encode_document([passage for _, passage in PAIRS])
    expected = np.einsum("nd,nmd->nm", queries, documents).max(1)
    np.testing.assert_allclose(BiEncoderTeacher(model).score(PAIRS), expected, atol=1e-5)


def test_each_distinct_text_is_encoded_once_a_call() -> None:
    encoder, asked = HashEncoder(), []
    encode = encoder.encode_document
    encoder.encode_document = lambda texts: (asked.extend(texts), encode(texts))[1]
    BiEncoderTeacher(encoder).score([("a", "one"), ("b", "one"), ("c", "two"), ("a", "two")])
    assert sorted(asked) == ["one", "two"]


def test_vectors_are_looked_up_in_a_cache(tiny_model: MLRModel, tmp_path: Path) -> None:
    vectors = VectorCache(tmp_path / "vectors.db")
    first = BiEncoderTeacher(tiny_model, vectors).score(PAIRS)
    assert vectors._content.count() == len({*(q for q, _ in PAIRS)}) + len({*(p for _, p in PAIRS)})
    np.testing.assert_allclose(BiEncoderTeacher(tiny_model, vectors).score(PAIRS), first)


def test_a_bi_encoder_s_fingerprint_is_its_encoder_s(tiny_model: MLRModel) -> None:
    teacher = BiEncoderTeacher(tiny_model)
    before = teacher.fingerprint
    assert tiny_model.fingerprint in before
    with torch.no_grad():
        next(tiny_model.parameters())[5, 3] += 1e-3
    assert teacher.fingerprint != before


# MeanTeacher


def scaled(factor: float, name: str) -> CallableTeacher:
    return CallableTeacher(lambda pairs: [factor * len(passage) for _, passage in pairs], name)


def test_a_mean_of_teachers_weighs_them_alike_whatever_their_scales() -> None:
    pairs = pairs_of(40)
    opposite = CallableTeacher(lambda pairs: [-0.001 * len(passage) for _, passage in pairs], "opposite")
    mean = MeanTeacher([scaled(1000, "lengths"), opposite]).fit(pairs)
    np.testing.assert_allclose(mean.score(pairs), 0, atol=1e-9)
    hashes = HashTeacher()
    mean = MeanTeacher([hashes, scaled(3, "lengths")]).fit(pairs)
    columns = [hashes.score(pairs), np.array([3.0 * len(passage) for _, passage in pairs])]
    expected = np.mean([(column - column.mean()) / column.std() for column in columns], axis=0)
    np.testing.assert_allclose(mean.score(pairs[:7]), expected[:7], atol=1e-9)


def test_a_mean_s_members_are_asked_once_for_fit_and_score() -> None:
    hashes = HashTeacher()
    mean = MeanTeacher([hashes, scaled(3, "lengths")]).fit(pairs_of(20))
    mean.score(pairs_of(20))
    assert sum(map(len, hashes.calls)) == 20


def test_a_mean_refuses_to_score_before_it_knows_the_scales() -> None:
    mean = MeanTeacher([HashTeacher(), scaled(1, "lengths")])
    for use in (lambda: mean.score(pairs_of(2)), lambda: ScoreCache().score(mean, pairs_of(2))):
        with pytest.raises(InvalidInputError, match=r"fit\(pairs\)"):
            use()


def test_a_mean_s_fingerprint_changes_with_its_scales_and_members() -> None:
    def made(name: str, count: int) -> str:
        return MeanTeacher([HashTeacher(name), scaled(1, "lengths")]).fit(pairs_of(count)).fingerprint

    assert made("hash", 20) == made("hash", 20)
    assert len({made("hash", 20), made("other", 20), made("hash", 21)}) == 3


def test_a_mean_of_one_or_of_a_teacher_that_tells_nothing_apart_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="expected 2 or more"):
        MeanTeacher([HashTeacher()])
    with pytest.raises(InvalidInputError, match="tells none of the pairs"):
        MeanTeacher([HashTeacher(), scaled(0, "zero")]).fit(pairs_of(5))


# as_teacher


def test_names_and_folders_are_told_apart_by_their_files(folder: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    assert isinstance(as_teacher(folder), CrossEncoderTeacher)
    assert isinstance(as_teacher(str(tiny_model_dir)), BiEncoderTeacher)
    CrossEncoder(str(folder), local_files_only=True).save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert isinstance(as_teacher(tmp_path / "saved"), CrossEncoderTeacher)
    assert isinstance(as_teacher(tiny_model_dir / ""), BiEncoderTeacher)
    with pytest.raises(ModelNotFoundError):
        as_teacher(tmp_path / "nothing")


def test_models_functions_and_lists_become_teachers(folder: Path, tiny_model_dir: Path, tiny_model: MLRModel) -> None:
    cross = CrossEncoder(str(folder), local_files_only=True)
    function = as_teacher(lambda pairs: [1.0] * len(pairs), fingerprint="ones")
    made = {
        CrossEncoderTeacher: as_teacher(cross),
        BiEncoderTeacher: as_teacher(SentenceTransformer(str(tiny_model_dir), device="cpu")),
        CallableTeacher: function,
        MeanTeacher: as_teacher([tiny_model, folder]),
    }
    for kind, teacher in made.items():
        assert isinstance(teacher, kind)
        assert as_teacher(teacher) is teacher
    assert as_teacher(tiny_model).fingerprint == made[MeanTeacher].teachers[0].fingerprint
    assert function.score(pairs_of(3)).tolist() == [1.0] * 3


def test_whatever_embeds_keeps_its_vectors_where_it_is_told(
    tiny_model_dir: Path, tiny_model: MLRModel, tmp_path: Path
) -> None:
    texts = len({*(q for q, _ in PAIRS)}) + len({*(p for _, p in PAIRS)})
    stock = SentenceTransformer(str(tiny_model_dir), device="cpu")
    constant = CallableTeacher(lambda pairs: [1.0] * len(pairs), "ones")
    for number, source in enumerate((tiny_model, str(tiny_model_dir), stock, [tiny_model, constant])):
        with VectorCache(tmp_path / f"{number}.db") as vectors:
            teacher = as_teacher(source, vectors=vectors)
            member = teacher.teachers[0] if isinstance(teacher, MeanTeacher) else teacher
            member.score(PAIRS)
            assert vectors._content.count() == texts
    nameless = HashEncoder()
    nameless.fingerprint = ""
    assert len(as_teacher(nameless, "mine-1", tmp_path / "none.db").score(PAIRS)) == len(PAIRS)
    assert not (tmp_path / "none.db").exists(), "nobody could tell whose vectors they are"


def test_a_function_needs_a_fingerprint() -> None:
    with pytest.raises(InvalidInputError, match='fingerprint="my-scores-1"'):
        as_teacher(len)


@pytest.mark.parametrize("bad", [None, 3, object(), {"a": 1}])
def test_what_is_no_teacher_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="not a teacher"):
        as_teacher(bad)


def test_embeddings_without_a_fingerprint_are_kept_under_the_one_that_is_given() -> None:
    class Embeddings:
        def embed_query(self, text: str) -> list[float]:
            return HashEncoder().encode_query([text])[0].tolist()

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return HashEncoder().encode_document(texts).tolist()

    cache = ScoreCache()
    with pytest.raises(InvalidInputError, match="no fingerprint"):
        cache.score(as_teacher(Embeddings()), PAIRS[:1])
    named = as_teacher(Embeddings(), fingerprint="mine-1")
    assert cache.score(named, PAIRS[:1]).shape == (1,)
