from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlr_rag.cli import app
from tests.test_layers import make_collection


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["layers", *map(str, arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with the splits train and test."""
    folder = tmp_path_factory.mktemp("cli") / "judged"
    return make_collection(make_collection(folder, split="test"), split="train")


def test_it_prints_a_table_and_what_to_do(place: Path, tiny_model_dir: Path) -> None:
    done = call(place, "--model", tiny_model_dir)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"{tiny_model_dir}, 3 layers, cosine"
    assert lines[1].startswith("judged train: 12 queries, 60 documents, 0 of them cut; ")
    assert "\n\nKeep the last layer" in done.stdout
    assert "mean of layers 1 and 3" in done.stdout


def test_json_is_one_object(place: Path, tiny_model_dir: Path) -> None:
    done = call(place, "-m", tiny_model_dir, "--split", "test", "--queries", 5, "--similarity", "dot", "--json")
    facts = json.loads(done.stdout)
    assert (facts["collection"], facts["split"], facts["similarity"]) == ("judged", "test", "dot")
    assert (facts["queries"], facts["of_queries"], len(facts["systems"])) == (5, 12, 11)


def test_a_plot_is_written_beside_it(place: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    done = call(place, "-m", tiny_model_dir, "--plot", tmp_path / "layers.svg", "--json")
    assert json.loads(done.stdout)["num_layers"] == 3
    assert (tmp_path / "layers.svg").read_text().rstrip().endswith("</svg>")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--split", "dev"], "error: .* has no qrels/dev.tsv"),
        (["--similarity", "euclid"], "error: an unknown similarity: found euclid"),
        (["--queries", "0"], "error: not a number of queries: found 0"),
        (["--plot", "a.gif"], "error: no such format of a plot: found a.gif"),
        (["--model", "no-such-model"], "error: .*no-such-model"),
    ],
)
def test_an_error_is_one_line(place: Path, tiny_model_dir: Path, words: list[str], problem: str) -> None:
    done = call(place, "--model", tiny_model_dir, *words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert re.match(problem, done.stderr), done.stderr


def test_a_plot_without_matplotlib_is_refused_before_the_work(
    place: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("mlr_rag.evaluation.layers.measure_layers", lambda *_: pytest.fail("it began"))
    done = call(place, "-m", tiny_model_dir, "--plot", tmp_path / "a.png")
    assert done.exit_code == 1
    assert "pip install 'mlr-rag[report]'" in done.stderr


def test_without_a_plot_matplotlib_is_not_needed(
    place: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert call(place, "-m", tiny_model_dir).exit_code == 0
