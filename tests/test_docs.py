"""The README and the examples do what they say."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


def run_blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Run a page's blocks in order, in one namespace: of each where it is, what it printed and what the page shows."""
    text = page.read_text("utf-8")
    names: dict[str, object] = {"__name__": page.stem}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + block[1], str(page), "exec"), names)
        yield f"{page.name}:{line + 1}", printed.getvalue(), block[2] or ""


def test_readme_snippets_print_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = list(run_blocks(ROOT / "README.md"))
    assert len(blocks) >= 4
    for where, printed, shown in blocks:
        assert printed.replace(f"edge:{tmp_path}/kb", "edge:KB") == shown, where


@pytest.mark.parametrize("page", ["training", "specialize"])
def test_pages_print_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for where, printed, shown in run_blocks(ROOT / "docs" / f"{page}.md"):
        assert printed == shown, where


def test_readme_names_commands_that_exist() -> None:
    from typer.testing import CliRunner

    from mlr_rag.cli import app

    text = (ROOT / "README.md").read_text("utf-8")
    commands = set(re.findall(r"mlr-rag (\w+)", text))
    assert commands
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (demo|test|lint|bench)", text)) <= set(targets)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_as_they_stand(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(example), run_name="__main__")
    assert EXPECTED[example.stem] in printed.getvalue()
    assert len(example.read_text().splitlines()) < 40


EXPECTED = {
    "both_frameworks": "LlamaIndex  ['lemons', 'scurvy']\nand async   ['lemons', 'scurvy']",
    "langchain_conversation": "What is the capital of Switzerland? -> Bern is the capital of Switzerland. -> Bern.",
    "langchain_rag": "lemons have plenty of it.\nWater boils at 100 degrees Celsius at sea level.\n\nQuestion: Why",
    "langchain_tool": "the tool found: Scurvy is caused by a lack of vitamin C.\nTo prevent scurvy.",
    "llama_index_pipeline": "2 encoded; lemons water\n0 encoded; lemons water\n2 encoded; lemons paris",
    "llama_index_query_engine": "0.196 Scurvy is caused by a lack of vitamin C.\n0.196 Scurvy",
    "moving_from_chroma": "page_content='Scurvy is caused by a lack of vitamin C.'",
    "migration": "switched to mean; back to scalar_mix",
    "own_store": "2 documents",
    "finetune": "It is better (p = 0.0",
    "specialize_labelled": "How do I restart billing? -> Falcon is restarted by its drain script.",
    "specialize_query_only": "0 documents encoded again\nsearched by",
    "specialize_unlabelled": "queries of the kind 'title'",
    "quickstart": "Scurvy is caused by a lack of vitamin C.\n",
    "filters_and_async": "Release 2024: filters and async\n1 updated",
    "layers": "(2, 3, 384) 0\n0.0",
    "which_layer": "gain. These 3 queries are too few to show one.\nNone",
    "refused_model": "was made with another model, which differs in settings, weights",
}
