"""What cannot be worked with is an error before the long stages, which says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlr_rag import InvalidInputError, MLRModel, MlrRagError, specialize
from mlr_rag.errors import LanguageModelError, ModelNotFoundError, StoreFullError, StoreLockedError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.folders import lock_folder
from mlr_rag.training.llm import LanguageModel
from mlr_rag.training.made_up import made_up
from mlr_rag.training.teachers.teacher import CallableTeacher, MeanTeacher

TEXTS = {
    f"d{number}": f"The {thing} of the {place} was built from stone, and it opens to everybody at {number} o'clock."
    for number, (thing, place) in enumerate(
        (a, b) for a in ("bridge", "tower", "road") for b in ("city", "river", "king")
    )
}
PAIRS = [(text.split(" was")[0], id) for id, text in TEXTS.items()]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A judged collection, in a folder of its own where the test is at work."""
    monkeypatch.chdir(tmp_path)
    return made_up()[0]


def refused(model: Any, corpus: Any, **options: Any) -> MlrRagError:
    """The error of a call, which must come before any long stage."""
    with pytest.raises(MlrRagError) as caught:
        specialize(model, corpus, **{"output": "models/out", **options})
    stages = {file.name.split("-")[0] for file in Path().glob("models/.mlr-rag/stages/*")}
    assert stages <= {"queries", "split"}
    assert not Path("models/out").exists()
    return caught.value


def test_a_corpus_that_is_none_is_refused(tiny_model: MLRModel, judged: Path) -> None:
    Path("empty").mkdir()
    for corpus in (None, 3, [], ["one text"], ["the same"] * 9, {"a": "same", "b": "same"}, "empty", "not there"):
        assert isinstance(refused(tiny_model, corpus), InvalidInputError), corpus


def test_queries_that_do_not_belong_to_the_corpus_are_refused(tiny_model: MLRModel, judged: Path) -> None:
    error = refused(tiny_model, TEXTS, queries=[(query, f"x{id}") for query, id in PAIRS])
    assert "x" in str(error.found)
    assert error.remedy == "Pass the corpus that was judged."


def test_three_queries_are_too_few(tiny_model: MLRModel, judged: Path) -> None:
    assert "generate" in refused(tiny_model, TEXTS, queries=PAIRS[:3]).remedy


def test_a_test_that_could_prove_nothing_is_refused_before_training(tiny_model: MLRModel, judged: Path) -> None:
    queries = [(f"what is {text}", id) for id, text in Collection.unjudged(judged).texts()]
    error = refused(tiny_model, judged, queries=queries)
    assert error.found == "5 for the test"
    assert "6 or more" in str(error.expected)


def test_too_few_generated_queries_are_not_told_to_be_generated(tiny_model: MLRModel, judged: Path) -> None:
    error = refused(tiny_model, TEXTS)
    assert "document without anything to extract: 9" in str(error.found)
    assert "generate" not in error.remedy


def test_a_language_model_that_is_down_is_named(tiny_model: MLRModel, judged: Path) -> None:
    def down(prompt: str) -> str:
        raise ConnectionError("refused")

    error = refused(tiny_model, TEXTS, llm=LanguageModel(down, "my-llm"))
    assert isinstance(error, LanguageModelError)
    assert "my-llm" in str(error)


def test_a_language_model_with_nothing_to_write_is_not_ignored(tiny_model: MLRModel, judged: Path) -> None:
    error = refused(tiny_model, judged, llm=LanguageModel(str, "my-llm"))
    assert "queries='generate'" in error.remedy


def test_models_that_are_not_there_are_named(tiny_model: MLRModel, judged: Path) -> None:
    for options in ({"teacher": "./no-teacher"}, {"llm": "./no-llm"}):
        error = refused(tiny_model, judged, **options)
        assert isinstance(error, ModelNotFoundError)
        assert next(iter(options.values())) in str(error)
    assert isinstance(refused("./no-model", judged), ModelNotFoundError)


def test_a_mean_of_teachers_without_scales_is_refused(tiny_model: MLRModel, judged: Path) -> None:
    teachers = [CallableTeacher(len, "one"), CallableTeacher(len, "other")]
    assert "fit" in refused(tiny_model, judged, teacher=MeanTeacher(teachers)).remedy


def test_a_model_whose_queries_have_a_part_of_their_own_is_refused(tiny_model: MLRModel, judged: Path) -> None:
    error = refused(tiny_model.add_query_adapter(4), judged)
    assert "without_query_adapter" in error.remedy


@pytest.mark.parametrize(
    "options",
    [
        {"budget": "soon"},
        {"budget": 5},
        {"objective": "magic"},
        {"objective": "both"},
        {"objective": "queries", "teacher": CallableTeacher(len, "one")},
        {"objective": "contrastive", "teacher": CallableTeacher(len, "one")},
        {"teacher_temperature": 0.3},
        {"teacher": CallableTeacher(len, "one"), "teacher_temperature": 0},
        {"teacher": CallableTeacher(len, "one"), "teacher_temperature": "hot"},
        {"seed": -1},
        {"seed": "x"},
        {"seed": None},
        {"probe": "no-probe"},
        {"work": 3},
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused(tiny_model: MLRModel, judged: Path, options: dict[str, Any]) -> None:
    assert isinstance(refused(tiny_model, judged, **options), InvalidInputError)


def test_an_output_that_would_be_overwritten_or_cannot_be_made_is_refused(tiny_model: MLRModel, judged: Path) -> None:
    Path("file").write_text("mine")
    Path("full").mkdir()
    Path("full/mine").write_text("mine")
    for output in ("file", "full", ".", "", "file/model", 3):
        assert isinstance(refused(tiny_model, judged, output=output), InvalidInputError), output
    assert Path("file").read_text() == Path("full/mine").read_text() == "mine"


def test_an_output_in_the_corpus_is_refused_as_the_next_run_would_read_it(tiny_model: MLRModel, judged: Path) -> None:
    Path("docs").mkdir()
    for id, text in TEXTS.items():
        Path(f"docs/{id}.md").write_text(text)
    assert "outside the corpus" in refused(tiny_model, "docs", output="docs/model").remedy
    assert "outside the corpus" in refused(tiny_model, ".", output="specialized").remedy


def test_a_full_disk_is_told_before_the_work(
    tiny_model: MLRModel, judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 29))
    assert isinstance(refused(tiny_model, judged), StoreFullError)


def test_two_runs_with_one_output_do_not_mix(tiny_model: MLRModel, judged: Path) -> None:
    lock = lock_folder(Path("models/.mlr-rag"), ".lock", "")
    try:
        assert isinstance(refused(tiny_model, judged), StoreLockedError)
    finally:
        lock.release()


def test_a_broken_line_of_a_click_log_is_named(tiny_model: MLRModel, judged: Path) -> None:
    Path("clicks.jsonl").write_text(json.dumps({"query": "a", "clicked": "d0"}) + "\n{broken\n")
    assert "clicks.jsonl:2" in str(refused(tiny_model, TEXTS, queries="clicks.jsonl")).replace(" line ", ":")
