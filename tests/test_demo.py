from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlr_rag.demo import QUESTIONS, run
from mlr_rag.documents import Document
from mlr_rag.stdlib_docs import ROOT, WORDS, collect, shorten


def test_the_standard_library_gives_thousands_of_passages() -> None:
    found = {document.metadata["path"]: document for document in collect()}
    assert 3_000 <= len(found) <= 6_000
    assert {"csv", "argparse", "difflib.Differ", "statistics.median", "json.dumps"} <= found.keys()
    assert found["json.dumps"].text.startswith("json.dumps: Serialize")
    assert found["statistics.median"].metadata["kind"] == "function"
    parts = {part for name in found for part in name.split(".")}
    assert not any(part.startswith("_") for part in parts)
    assert not any(name.startswith(("test.", "idlelib", "lib2to3")) or "site-packages" in name for name in found)
    assert max(len(document.text.split()) for document in found.values()) <= WORDS + 1


def test_modules_are_read_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "pack" / "test").mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").write_text('"""A package that must not be run."""\nraise SystemExit')
    (tmp_path / "pack" / "test" / "more.py").write_text('"""A test that must not be found."""')
    (tmp_path / "pack" / "_hidden.py").write_text('"""A private module that must not be found."""')
    (tmp_path / "pack" / "broken.py").write_text("def (")
    (tmp_path / "pack" / "part.py").write_text(
        'class Kettle:\n    """Boils water on the stove."""\n\n'
        '    async def boil(self):\n        """Heat it until it sings."""\n\n'
        '    def _cool(self):\n        """Nobody needs to know this."""\n\n'
        '    def pour(self):\n        """Pour."""\n'
    )
    found = {document.text: document.metadata["kind"] for document in collect(tmp_path)}
    assert found == {
        "pack: A package that must not be run.": "module",
        "pack.part.Kettle: Boils water on the stove.": "class",
        "pack.part.Kettle.boil: Heat it until it sings.": "method",
    }


@pytest.mark.parametrize(
    ("doc", "short"),
    [
        ("One two. Three", "One two. Three"),
        ("One two three.\n\nFour five six seven.", "One two three."),
        ("One two. Three four five six seven.", "One two."),
        ("one two three four five six seven", "one two three four five"),
    ],
)
def test_long_docstrings_end_with_a_paragraph_or_sentence(doc: str, short: str) -> None:
    assert shorten(doc, words=5) == short


def test_the_demo_shows_hits_a_free_second_run_and_a_refusal(tmp_path: Path, tiny_model_dir: Path) -> None:
    documents = [
        Document(f"module.part{number}: Read part {number} of the file.", metadata={"root": ROOT})
        for number in range(9)
    ]
    lines: list[str] = []
    run(str(tmp_path / "kb"), lines.append, str(tiny_model_dir), documents)
    told = "\n".join(lines)
    assert "9 passages" in told
    assert re.search(r"added 9 in [\d.]+ s", told)
    assert re.search(r"skipped 9 in [\d.]+ s", told)
    assert "times as fast" in told
    for question in QUESTIONS:
        after = told.split(question)[1].splitlines()[1:4]
        assert all(re.match(r" +-?\d\.\d{3}  module\.part\d +Read part", line) for line in after)
    assert "refused: " in told
    assert "weights" in told.split("refused: ")[1]
    again: list[str] = []
    run(str(tmp_path / "kb"), again.append, str(tiny_model_dir), documents)
    assert "added" not in "\n".join(again)
    assert "times as fast" not in "\n".join(again)  # there was no first run to compare with
