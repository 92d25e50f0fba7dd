"""The README and the examples do what they say."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


def test_readme_snippets_print_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, in order, in one folder: a reader may follow along."""
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
    assert len(blocks) >= 4
    names: dict[str, object] = {"__name__": "readme"}
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), names)
        assert printed.getvalue().replace(f"edge:{tmp_path}/kb", "edge:KB") == shown


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
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(example), run_name="__main__")
    assert EXPECTED[example.stem] in printed.getvalue()
    assert len(example.read_text().splitlines()) < 40


EXPECTED = {
    "migration": "switched to mean; back to scalar_mix",
    "own_store": "2 documents",
    "quickstart": "Scurvy is caused by a lack of vitamin C.\n",
    "filters_and_async": "Release 2024: filters and async\n1 updated",
    "layers": "(2, 3, 384) 0\n0.0",
    "refused_model": "was made with another model, which differs in settings, weights",
}
