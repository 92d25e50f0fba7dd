"""The pages on LangChain and LlamaIndex do what they say, and show what they say of others."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from tests.test_docs import BLOCK, ROOT, run_blocks

PAGES = [ROOT / "docs" / "langchain.md", ROOT / "docs" / "llama_index.md"]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@every_page
def test_snippets_print_what_is_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the stock integrations
        for where, printed, shown in run_blocks(page):
            assert printed == shown, where


@every_page
def test_each_line_of_the_table_is_shown_by_a_snippet_of_its_own(page: Path) -> None:
    text = page.read_text("utf-8")
    table = re.findall(r"^\|.*\[snippet\]\(#(.*)\) \|$", text, re.MULTILINE)
    assert len(table) == len(re.findall(r"^\| ", text, re.MULTILINE)) - 2  # the heads
    sections = re.split(r"^### ", text.split("### What the snippets use")[1], flags=re.MULTILINE)[1:]
    assert [_anchor(section.split("\n")[0]) for section in sections] == table
    for section in sections:
        (block,) = BLOCK.finditer(section)
        assert block[2], section


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    anchors = [_anchor(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    assert len(anchors) == len(set(anchors))
    for target in re.findall(r"\]\(([^)]*)\)", text):
        assert target.startswith("https://") or target[1:] in anchors or (page.parent / target).exists(), target


@every_page
def test_versions_are_those_that_are_tested(page: Path) -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    named = re.findall(r"([a-z-]+)\s(\d+\.\d+\.\d+)\b", page.read_text("utf-8"))
    assert named
    assert {name: pinned.get(name) for name, _ in named} == dict(named)


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
