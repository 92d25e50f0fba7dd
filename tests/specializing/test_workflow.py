"""The whole of `specialize`, with a random model and passages about pairs of things."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from mlr_rag import Document, InvalidInputError, MLRModel, Retriever, specialize
from mlr_rag.model.loading import is_mlr_folder
from mlr_rag.specializing import output as output_module
from mlr_rag.specializing.asking import BARE
from mlr_rag.specializing.options import check_options
from mlr_rag.specializing.output import REPORT, replace_output
from mlr_rag.specializing.report.data import read_report
from mlr_rag.specializing.result import Specialized
from mlr_rag.specializing.speed import Speed
from mlr_rag.training.llm import LanguageModel
from mlr_rag.training.teachers.teacher import CallableTeacher
from tests.specializing.small import CORPUS, PAIRS, QRELS, QUERIES, THINGS, build_model, build_probe, words_teacher

Run = Callable[..., Specialized]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a probe, and the work that the runs share."""
    folder = tmp_path_factory.mktemp("specialized")
    build_model(folder / "model")
    build_probe(folder / "probe")
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    """`specialize` with what all runs have alike, into the folder's `output`."""

    def run(output: str, corpus: Any = CORPUS, queries: Any = QUERIES, qrels: Any = QRELS, **options: Any) -> Any:
        model = options.pop("model", place / "model" / "st")
        return specialize(
            model, corpus, queries, qrels, budget=None, output=place / output, probe=place / "probe", **options
        )

    return run


@pytest.fixture(scope="module")
def distilled(run: Run, place: Path) -> Specialized:
    """A run that learns from a teacher."""
    return run("distilled", teacher=words_teacher(place / "asked.txt"), objective="distillation")


def asked(place: Path) -> list[str]:
    return (place / "asked.txt").read_text().splitlines()


def reused(result: Specialized) -> dict[str, bool]:
    return {stage.name: stage.reused for stage in result.report.stages}


def test_a_model_that_is_better_is_handed_back_with_its_figures(distilled: Specialized) -> None:
    assert distilled.accepted
    assert distilled.metrics["specialized"]["ndcg@10"] > distilled.metrics["base"]["ndcg@10"] + 0.03
    assert str(distilled).startswith("The specialized model is better: nDCG@10 0.")
    assert str(distilled.report_path) in str(distilled)


def test_metrics_are_those_of_the_reports_json(distilled: Specialized) -> None:
    report = read_report(distilled.output / REPORT / "report.json")
    assert report == distilled.report
    assert report.test is not None
    for side in ("base", "specialized"):
        assert distilled.metrics[side] == {name: getattr(it, side).mean for name, it in report.test.metrics.items()}
    of_queries = np.mean([query.specialized for query in report.test.per_query])
    assert distilled.metrics["specialized"]["ndcg@10"] == pytest.approx(of_queries)


def test_the_output_is_the_model_and_exported_it_loads_without_us(distilled: Specialized, tmp_path: Path) -> None:
    texts, model = list(CORPUS.values())[:5], distilled.model
    loaded = MLRModel.load(distilled.output)
    assert loaded.fingerprint == model.fingerprint
    model.export_portable(tmp_path)
    stock = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(stock.encode_document(texts), model.encode_document(texts), atol=1e-5)
    np.testing.assert_allclose(stock.encode_query(texts), model.encode_query(texts), atol=1e-5)


def test_no_text_of_the_user_is_in_the_output_but_for_the_reports_examples(distilled: Specialized) -> None:
    texts = [text.encode() for text in (*QUERIES.values(), *CORPUS.values())]
    holding = {
        file.relative_to(distilled.output).parts[0]
        for file in distilled.output.rglob("*")
        if file.is_file() and any(text in file.read_bytes() for text in texts)
    }
    assert holding == {REPORT}
    examples = distilled.report.test.improved + distilled.report.test.hurt  # type: ignore[union-attr]
    tested = {query.text for query in distilled.report.test.per_query}  # type: ignore[union-attr]
    assert {example.text for example in examples} <= tested
    written = (distilled.output / REPORT / "report.json").read_text()
    assert not [text for text in QUERIES.values() if f'"{text}"' in written and text not in tested]


def test_what_is_printed_says_where_the_model_is(distilled: Specialized) -> None:
    assert str(distilled).splitlines()[-2:] == [f"model:  {distilled.output}", f"report: {distilled.report_path}"]


def test_the_report_names_the_teacher_and_the_call(distilled: Specialized) -> None:
    report = distilled.report
    assert report.teacher is not None
    assert report.teacher.name == "words"
    call = report.run.command
    assert call.startswith("specialize(model=")
    assert "corpus=<dict>, queries=<dict>, qrels=<dict>, teacher=<CallableTeacher>" in call
    assert "objective='distillation'" in call
    assert f"output={str(distilled.output)!r}" in call


def test_the_model_card_says_what_was_measured(distilled: Specialized) -> None:
    card = (distilled.output / "README.md").read_text()
    assert distilled.report.verdict in card
    assert f"{distilled.metrics['base']['ndcg@10']:.3f} | {distilled.metrics['specialized']['ndcg@10']:.3f}" in card


def test_a_second_call_does_nothing_again(distilled: Specialized, run: Run, place: Path) -> None:
    known = asked(place)
    again = run("distilled", teacher=words_teacher(place / "asked.txt"), objective="distillation")
    assert all(reused(again).values())
    assert asked(place) == known
    assert again.model.fingerprint == distilled.model.fingerprint
    assert (again.accepted, again.metrics) == (distilled.accepted, distilled.metrics)
    assert MLRModel.load(again.output).fingerprint == again.model.fingerprint


def test_another_temperature_reuses_everything_up_to_the_lists(distilled: Specialized, run: Run, place: Path) -> None:
    known = asked(place)
    temperature = distilled.report.teacher.temperature / 2  # type: ignore[union-attr]
    options = {"objective": "distillation", "teacher_temperature": temperature}
    other = run("colder", teacher=words_teacher(place / "asked.txt"), **options)
    again = {name for name, was in reused(other).items() if was}
    assert again == {"split", "speed", "room", "search", "doctor", "teacher speed", "plan", "score", "schedule", "base"}
    assert asked(place) == known
    assert other.model.fingerprint != distilled.model.fingerprint
    assert [result.report.teacher.proposed for result in (distilled, other)] == [True, False]  # type: ignore[union-attr]
    of_first, of_other = (result.report.test for result in (distilled, other))
    assert of_first is not None
    assert of_first.looks < (1 if of_other is None else of_other.looks), "the same queries choose between the two"


def test_a_budget_that_cannot_suffice_is_refused_before_the_long_stages(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlr_rag.specializing.searching.measure_speed", lambda *_: Speed(1.0, 1.0, 1.0, 1e3))
    given = (place / "model" / "st", CORPUS, QUERIES, QRELS)
    output = place / "hurried" / "out"
    with pytest.raises(InvalidInputError, match=r"the budget is too small .* \d+ seconds or more"):
        specialize(*given, budget="1min", output=output, probe=place / "probe")
    assert not output.exists()
    stages = output.parent / ".mlr-rag" / "stages"
    assert list(stages.glob("split*"))
    assert not [*stages.glob("search*"), *stages.glob("speed*")], "the machine may have been busy"


def test_another_seed_draws_other_queries_and_asks_the_teacher_for_no_pair_twice(
    distilled: Specialized, run: Run, place: Path
) -> None:
    other = run("seed", teacher=words_teacher(place / "asked.txt"), objective="distillation", seed=1)
    assert other.report.run.seed == 1
    tested = [{query.id for query in each.report.test.per_query} for each in (distilled, other)]  # type: ignore[union-attr]
    assert tested[0] != tested[1]
    assert not reused(other)["train"]
    assert len(asked(place)) == len(set(asked(place)))


def test_a_model_that_learned_nonsense_is_refused_and_the_base_handed_back(
    distilled: Specialized, run: Run, place: Path
) -> None:
    documents = sorted(CORPUS)
    draw = random.Random(0)
    shuffled = {query: {draw.choice(documents): 1} for query in QUERIES}
    shutil.copytree(distilled.output, place / "refused")
    found = run("refused", qrels=shuffled, objective="contrastive")
    assert not found.accepted
    assert found.model.fingerprint == MLRModel.from_pretrained(place / "model" / "st").fingerprint
    assert found.report.chosen == "base"
    assert found.report.alpha == 0
    assert "base" in found.report.verdict
    assert [item.name for item in found.output.iterdir()] == [REPORT], "the model of another run is gone"


def test_where_everything_better_forgets_the_base_is_kept_and_that_is_what_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlr_rag.specializing.choosing.TOLERANCE", -1.0)  # so that every candidate falls beyond it
    found = run("forgetful", objective="contrastive")
    assert not found.accepted
    assert "forgotten" in found.report.verdict
    assert "objective='queries'" in " ".join(found.report.advice)
    assert found.metrics["base"] == found.metrics["specialized"]
    assert found.metrics["base"]["ndcg@10"] > 0


def test_without_a_model_a_retrievers_own_is_the_base(run: Run, place: Path) -> None:
    model = MLRModel.from_pretrained(place / "model" / "st", layers=(1,))
    with Retriever.open("memory:", model) as kb:
        kb.add([Document(text, id) for id, text in CORPUS.items()])
        found = run("its own", kb, model=None, objective="queries")
    assert found.model.without_query_adapter().fingerprint == model.fingerprint


def test_a_corpus_in_the_place_of_the_model_is_told_apart() -> None:
    with pytest.raises(InvalidInputError, match="corpus="):
        specialize("docs/")


TEXTS = {
    f"d{place}": f"The {pair}\n\nIn the kitchen the {pair} is old. Nobody reads it before the {other} is awake. "
    f"What is the part of the {pair}? It meets the {other} by the line, and it boils without {pair}."
    for place, (pair, other) in enumerate(zip(PAIRS[:33], PAIRS[33:], strict=True))
}


def test_from_queries_by_rules_nothing_is_learned_but_what_the_teacher_says(run: Run, place: Path) -> None:
    found = run("extracted, taught", TEXTS, None, None, teacher=CallableTeacher(neighbors, "neighbors"))
    assert [curve.name for curve in found.report.curves] == ["distillation"]
    stages = list(reused(found))
    assert "adapter" not in stages
    assert stages.index("teacher speed") < stages.index("search"), "as many documents are searched as it can read"


def neighbors(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Counts common words, and common pairs of neighbors."""
    both = ([{*text.split(), *zip(text.split(), text.split()[1:], strict=False)} for text in pair] for pair in pairs)
    return [len(one & other) for one, other in both]


def test_documents_alone_are_enough(run: Run) -> None:
    found = run("extracted", TEXTS, None, None)
    data = found.report.data
    assert [curve.name for curve in found.report.curves] == ["contrastive"]
    assert not set(BARE) & data.queries.keys()
    assert data.generator == "extractive rules"
    if found.report.test is not None:
        assert "held-out queries that rules took out of the documents" in found.report.verdict
        assert any("Nobody asked these queries" in reason for reason in found.report.reasons)
    else:
        assert "queries of people (a search log)" in " ".join(found.report.advice)
    assert sum(data.queries.values()) == data.lineage[0].after > 40
    assert data.split.test >= 3


def test_a_language_model_writes_the_queries_once(run: Run) -> None:
    prompts: list[str] = []

    def complete(prompt: str) -> str:
        prompts.append(prompt)
        pair = re.findall(r"the (\w+ \w+) is old", prompt)[-1]
        return f"{random.Random(prompt).choice(THINGS)} {pair}"

    writer = LanguageModel(complete, "writer 1", threads=1)
    found = run("written", queries=None, qrels=None, llm=writer, objective="contrastive")
    assert found.report.data.generator == "writer 1"
    assert len(prompts) == len(set(prompts))
    count = len(prompts)
    run("written too", queries=None, qrels=None, llm=writer, objective="contrastive")
    assert len(prompts) == count


def test_an_open_retriever_is_the_corpus_and_moves_to_the_new_model(run: Run, place: Path, tmp_path: Path) -> None:
    model = MLRModel.from_pretrained(place / "model" / "st")
    with Retriever.open("memory:", model) as kb:
        kb.add([Document(text, id) for id, text in CORPUS.items()])
        found = run("retriever", kb, model=model, objective="contrastive", work=tmp_path / "work")
        assert found.accepted
        kb.reindex(found.model)
        assert kb.model.fingerprint == found.model.fingerprint
        before = Retriever.open("memory:", found.model)
        before.add([Document(text, id) for id, text in CORPUS.items()])
        query = QUERIES["q0-0"]
        assert [hit.document.id for hit in kb.search(query)] == [hit.document.id for hit in before.search(query)]


def test_an_adapter_for_queries_leaves_a_collections_vectors_valid(run: Run, place: Path, tmp_path: Path) -> None:
    model = MLRModel.from_pretrained(place / "model" / "st")
    with Retriever.open("memory:", model) as kb:
        kb.add([Document(text, id) for id, text in CORPUS.items()])
        found = run("adapted", kb, model=model, objective="queries", work=tmp_path / "work")
        assert found.accepted
        assert found.report.chosen == "query_adapter"
        assert found.model.document_fingerprint == model.document_fingerprint
        assert found.model.fingerprint != model.fingerprint
        adapted = Retriever(MLRModel.load(found.output), kb.store)
        assert adapted.search(QUERIES["q0-0"], k=3)


def die_after(moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process die, as it were, when an output has been replaced by so many moves."""
    count, move = [0], shutil.move

    def dies(source: Path, target: Path) -> None:
        count[0] += 1
        if count[0] > moves:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(output_module.shutil, "move", dies)


@pytest.mark.parametrize("moves", range(5))
def test_a_first_output_is_ours_whenever_the_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    made, output = tmp_path / "made", tmp_path / "output"
    (made / REPORT).mkdir(parents=True)
    for name in ("report/report.html", "report/report.json", "modules.json"):
        (made / name).write_text("{}")

    die_after(moves, monkeypatch)
    try:
        replace_output(output, made, tmp_path / "old")
    except KeyboardInterrupt:
        assert moves < 4
    check_options(output, tmp_path, None, None, None, None, 0)


def test_a_file_of_the_users_is_kept_under_another_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, output = tmp_path / "made", tmp_path / "output"
    for folder, text in ((made, "the card"), (output, "the user's own")):
        (folder / REPORT).mkdir(parents=True)
        (folder / REPORT / "report.json").write_text("{}")
        (folder / "README.md").write_text(text)
    replace_output(output, made, tmp_path / "old")
    assert (output / "README.md").read_text() == "the card"
    assert (output / "README.md.yours").read_text() == "the user's own"
    assert "README.md.yours" in caplog.text


@pytest.mark.parametrize("moves", range(9))  # three out, the report's two files, two in
def test_an_output_that_is_being_replaced_is_no_model_and_is_ours_whenever_the_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    made, output = tmp_path / "made", tmp_path / "output"
    for folder, weights in ((made, "new"), (output, "old")):
        (folder / REPORT).mkdir(parents=True)
        (folder / REPORT / "report.json").write_text(weights)
        (folder / "modules.json").write_text(json.dumps([{"type": "mlr_rag.model.pooling.MultiLayerPooling"}]))
        (folder / "model.safetensors").write_text(weights)
    (output / "2_QueryAdapter").mkdir()
    earlier = ["modules.json", "model.safetensors", "2_QueryAdapter"]
    (output / REPORT / "contents.json").write_text(json.dumps(earlier))
    (output / "notes.txt").write_text("the user's own")
    die_after(moves, monkeypatch)
    try:
        replace_output(output, made, tmp_path / "old")
    except KeyboardInterrupt:
        assert moves < 7
    check_options(output, tmp_path, None, None, None, None, 0)
    here = {str(file.relative_to(output)): file.read_text() for file in output.rglob("*") if file.is_file()}
    weights = {here.get("report/report.json"), here.get("model.safetensors")}
    assert here.pop("notes.txt") == "the user's own"
    assert not is_mlr_folder(output) or weights in ({"old"}, {"new"})
    if moves >= 7:
        assert is_mlr_folder(output)
        assert sorted(here) == ["model.safetensors", "modules.json", "report/contents.json", "report/report.json"]
        assert weights == {"new"}
