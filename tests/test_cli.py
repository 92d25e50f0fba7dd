from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from openpyxl import Workbook
from typer.testing import CliRunner, Result

from mlr_rag import MLRModel, Retriever, __version__
from mlr_rag.cli import app
from mlr_rag.stores import open_store
from tests.test_evaluation import archive
from tests.tiny import build

HEAVY = {"torch", "transformers", "sentence_transformers"}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def modules_of(*arguments: object) -> tuple[str, set[str]]:
    """What a command prints in a process of its own, and the top-level modules that it imports."""
    command = [sys.executable, "-X", "importtime", "-m", "mlr_rag", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"})
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def make_notes(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "road.txt").write_text("the old road")
    (folder / "water.md").write_text("# Water\n\nwater boils")
    (folder / "sub" / "facts.jsonl").write_text('{"id": "f1", "text": "paris is in france", "year": 2020}\n')
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    return folder


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A collection that no test changes; its notes lie beside it."""
    home = tmp_path_factory.mktemp("cli")
    done = call("index", make_notes(home / "notes"), "--into", home / "kb", "--model", tiny_model_dir)
    assert done.exit_code == 0, done.output
    return home / "kb"


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    shown, modules = modules_of("--help")
    for command in ("index", "search", "info", "reindex", "rollback", "prune", "copy", "eval", "layers", "demo"):
        assert f"\n  {command} " in shown
    assert "typer" in modules
    assert not modules & (HEAVY | {"numpy", "qdrant_edge", "pydantic"})


def test_version() -> None:
    assert call("--version").stdout == f"mlr-rag {__version__}\n"


def test_indexing_again_brings_the_collection_up_to_date(tmp_path: Path, tiny_model_dir: Path) -> None:
    notes, kb = make_notes(tmp_path / "notes"), tmp_path / "kb"
    first = call("index", notes, "--into", kb, "--model", tiny_model_dir)
    assert f"{notes}: 3 files read; added 3, updated 0, skipped 0, deleted 0 passages in " in first.stdout
    again = call("index", notes, "--into", kb)  # the model is the collection's own
    assert "3 files read; added 0, updated 0, skipped 3, deleted 0 passages in " in again.stdout
    assert "1 file left out, unknown type .png: picture.png" in again.stdout
    (notes / "road.txt").write_text("the new road")
    (notes / "water.md").unlink()
    assert (
        "2 files read; added 0, updated 1, skipped 1, deleted 1 passages" in call("index", notes, "--into", kb).stdout
    )
    other = tmp_path / "other.txt"
    other.write_text("two stone bridges")
    done = call("index", other, notes, "--into", kb)
    assert f"{other}: 1 file read; added 1, updated 0, skipped 0, deleted 0" in done.stdout
    assert f"{notes}: 2 files read; added 0, updated 0, skipped 2, deleted 0" in done.stdout
    assert f"{kb}: 3 passages" in done.stdout


def test_a_file_that_got_damaged_keeps_its_passages(tmp_path: Path, tiny_model_dir: Path) -> None:
    notes, kb = make_notes(tmp_path / "notes"), tmp_path / "kb"
    page = notes / "bridge.html"
    page.write_text("<p>the stone bridge</p>")
    assert "added 4" in call("index", notes, "--into", kb, "--model", tiny_model_dir).stdout
    page.rename(notes / "bridge.xlsx")
    assert "deleted 1 passages" in call("index", notes, "--into", kb).stdout, "another name is another file"
    sheet = Workbook()
    sheet.active["A1"] = "the stone bridge"
    sheet.save(notes / "bridge.xlsx")
    assert "added 1" in call("index", notes, "--into", kb).stdout
    (notes / "bridge.xlsx").write_bytes(b"half a download")
    damaged = call("index", notes, "--into", kb).stdout
    assert "deleted 0 passages" in damaged
    assert "1 file left out, damaged or encrypted: bridge.xlsx" in damaged
    assert "bridge.xlsx" in call("search", kb, "stone bridge", "-k", "9").stdout


def test_indexing_into_memory_is_refused(tmp_path: Path) -> None:
    assert "would be gone" in call("index", make_notes(tmp_path / "notes"), "--into", "memory:").stderr


def test_a_collection_inside_its_folder_is_not_indexed(tmp_path: Path, tiny_model_dir: Path) -> None:
    notes = make_notes(tmp_path / "notes")
    place = notes / "kb"
    for spelling in (place, f"edge:{place}"):
        done = call("index", notes, "--into", spelling, "--model", tiny_model_dir)
        assert "3 files read" in done.stdout
        assert "json" not in done.stdout


def test_search_prints_rank_score_place_and_text(kb: Path) -> None:
    done = call("search", kb, "the old road", "-k", "2")
    assert done.exit_code == 0
    assert done.stdout.startswith("1  1.000  road.txt\n   the old road\n2  ")
    assert len(done.stdout.splitlines()) == 4
    assert "water.md - Water\n   # Water water boils\n" in call("search", kb, "water", "-k", "3").stdout


def test_search_prints_json(kb: Path) -> None:
    hits = json.loads(call("search", kb, "paris is in france", "--json", "-k", "1").stdout)
    assert [(hit["rank"], hit["id"], hit["text"]) for hit in hits] == [(1, "f1", "paris is in france")]
    assert hits[0]["score"] == pytest.approx(1, abs=1e-4)
    assert hits[0]["metadata"]["year"] == 2020


def test_search_filters(kb: Path) -> None:
    found = call("search", kb, "road", "--filter", '{"year": {"$gte": 2020}}', "--json").stdout
    assert [hit["id"] for hit in json.loads(found)] == ["f1"]
    nothing = call("search", kb, "the old road", "--filter", '{"year": 1}')
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "nothing found\n")
    assert [
        hit["text"] for hit in json.loads(call("search", kb, "the old road", "--min-score", "0.999", "--json").stdout)
    ] == ["the old road"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["search", "KB", "x", "--filter", "{year"], "--filter is not JSON"),
        (["search", "KB", "x", "--filter", '{"year": {"$near": 1}}'], "unknown operator"),
        (["search", "KB", "x", "-k", "0"], "k is not a number of documents"),
        (["search", "KB", " "], "a query is blank"),
        (["search", "nowhere", "x"], "no collection at"),
        (["info", "nowhere"], "no collection at"),
        (["search", "nosuch:place", "x"], "no store for this URL"),
        (["index", "nowhere.txt", "--into", "new"], "nothing to read at nowhere.txt"),
        (["index", "KB/../notes", "--into", "new", "--model", "./nowhere"], "no model at ./nowhere"),
        (["eval", "nowhere.zip"], "no collection at nowhere.zip"),
    ],
)
def test_an_error_is_one_line_and_changes_nothing(
    kb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = call(*[argument.replace("KB", str(kb)) for argument in arguments])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_usage_error_exits_with_2() -> None:
    assert call("search", "kb").exit_code == 2
    assert call("index", "notes").exit_code == 2


def test_ctrl_c_says_how_to_go_on(kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Retriever, "search", interrupted)
    done = call("search", kb, "road")
    assert (done.exit_code, done.stderr) == (130, "stopped; run the same command again to go on\n")


def test_warnings_of_the_library_are_shown_plainly(kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object, **__: object) -> list[object]:
        logging.getLogger("mlr_rag.test").warning("mind the %s", "gap")
        return []

    monkeypatch.setattr(Retriever, "search", warn)
    assert call("search", kb, "road").stderr == "warning: mind the gap\nnothing found\n"
    assert logging.getLogger("mlr_rag").handlers == []


def test_info_does_not_load_the_model(kb: Path, tiny_model: MLRModel) -> None:
    shown, modules = modules_of("info", kb, "--json")
    facts = json.loads(shown)
    assert (facts["documents"], facts["dimension"], facts["vectors_per_document"]) == (3, 32, 1)
    assert facts["fingerprint"] == tiny_model.fingerprint
    assert facts["recipe"]["layers"] == [2, 3]
    assert "qdrant_edge" in modules
    assert not modules & HEAVY
    plain = call("info", kb).stdout
    assert f"fingerprint           {tiny_model.fingerprint}\n" in plain
    assert "layers=[2, 3], pooling=scalar_mix" in plain


def test_info_of_a_damaged_passport_is_one_line(tmp_path: Path, tiny_model_dir: Path) -> None:
    kb = tmp_path / "kb"
    call("index", make_notes(tmp_path / "notes"), "--into", kb, "--model", tiny_model_dir)
    description = json.loads((kb / "collection.json").read_text())
    (kb / "collection.json").write_text(json.dumps(description | {"info": {}}))
    shown = call("info", kb)
    assert shown.exit_code == 1
    assert shown.stderr.startswith("error: the passport of edge:")


def test_another_model_is_refused(kb: Path, tmp_path: Path, tiny_model_dir: Path) -> None:
    MLRModel.from_pretrained(tiny_model_dir, pooling="mean", start="paper").save(tmp_path / "other")
    done = call("search", kb, "road", "--model", tmp_path / "other")
    assert done.exit_code == 1
    assert "made with another model" in done.stderr


def test_eval_gives_the_same_through_every_store(tmp_path: Path, tiny_model_dir: Path) -> None:
    collection = archive(tmp_path / "tiny.zip", "tiny/")
    found = []
    for store in ("memory:", f"edge:{tmp_path / 'store'}"):
        done = call("eval", collection, "--model", tiny_model_dir, "--store", store, "--json")
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout))
        assert found[-1]["store"] == store
    keys = ("ndcg@10", "recall@100", "mrr@10", "documents", "blank_documents", "queries", "judgments", "split")
    assert {key: found[0][key] for key in keys} == {key: found[1][key] for key in keys}
    assert [found[0][key] for key in keys] == [1.0, 1.0, 1.0, 4, 1, 2, 3, "test"]
    plain = call("eval", collection, "--model", tiny_model_dir).stdout
    assert "tiny test: 4 documents, 2 queries, 3 judgments" in plain
    assert "ndcg@10      1.0000\n" in plain


def test_to_another_model_and_back(tmp_path: Path, tiny_model_dir: Path) -> None:
    kb, other = tmp_path / "kb", tmp_path / "other"
    make_notes(tmp_path / "notes")
    assert call("index", tmp_path / "notes", "--into", kb, "--model", tiny_model_dir).exit_code == 0
    before = call("search", kb, "paris").stdout
    other = build("distilbert", other)
    judged = tmp_path / "judged.jsonl"
    judged.write_text('{"query": "paris", "relevant": ["f1"]}\n')
    looked = call("reindex", kb, "--model", other, "--compare", judged, "--no-switch")
    assert looked.exit_code == 0, looked.output
    assert "1 queries: " in looked.stdout
    assert "ndcg@10" in looked.stdout
    assert "not switched" in looked.stdout
    assert call("search", kb, "paris").stdout == before
    moved = call("reindex", kb, "--model", other)
    assert ("0 encoded now" in moved.stdout, "mlr-rag rollback" in moved.stdout) == (True, True)
    assert str(other) in call("info", kb).stdout
    assert call("rollback", kb).exit_code == 0
    assert call("search", kb, "paris").stdout == before
    assert "1 old generation deleted" in call("prune", kb).stdout
    refused = call("rollback", kb)
    assert (refused.exit_code, "roll back" in refused.stderr) == (1, True)


@pytest.mark.parametrize(("architecture", "generation"), [("bert", 1), ("distilbert", 2)])
def test_to_a_model_when_the_old_one_is_gone(tmp_path: Path, architecture: str, generation: int) -> None:
    """Or has moved: then its vectors are still good."""
    kb, old, new = tmp_path / "kb", build("bert", tmp_path / "old"), build(architecture, tmp_path / "new")
    make_notes(tmp_path / "notes")
    assert call("index", tmp_path / "notes", "--into", kb, "--model", old).exit_code == 0
    shutil.rmtree(old)
    assert call("search", kb, "paris").exit_code == 1
    assert call("reindex", kb, "--model", new).exit_code == 0
    assert call("search", kb, "paris").exit_code == 0
    with closing(open_store(str(kb))) as store:
        assert store.current() == generation


def test_queries_that_are_none(tmp_path: Path, kb: Path, tiny_model_dir: Path) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"query": "paris", "relevant": ["f1"]}\n{"question": "x"}\n')
    done = call("reindex", kb, "--model", tiny_model_dir, "--compare", queries)
    assert done.exit_code == 1
    assert "line 2" in done.stderr
    queries.write_text('{"query": "paris", "relevant": "f1"}\n')
    assert "line 1" in call("reindex", kb, "--model", tiny_model_dir, "--compare", queries).stderr
    assert "cannot read" in call("reindex", kb, "--model", tiny_model_dir, "--compare", tmp_path / "none").stderr


def test_copy(tmp_path: Path, kb: Path) -> None:
    done = call("copy", kb, f"chroma:{tmp_path}/chroma/notes")
    assert done.exit_code == 0, done.output
    assert "all compared" in done.stdout
    assert call("search", f"chroma:{tmp_path}/chroma/notes", "paris").stdout == call("search", kb, "paris").stdout
    assert call("copy", kb, kb).exit_code == 1


def test_indexing_ends_with_an_index(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlr_rag_edge.index.ENOUGH", 3)
    notes, kb = make_notes(tmp_path / "notes"), tmp_path / "kb"
    call("index", notes, "--into", kb, "--model", tiny_model_dir)
    (notes / "more.txt").write_text("one more, which makes it enough")
    assert "building the index" in call("index", notes, "--into", kb).stdout
    assert "building the index" not in call("index", notes, "--into", kb).stdout
