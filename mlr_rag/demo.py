"""`mlr-rag demo`: what the component does, on texts that every Python has."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from mlr_rag import stdlib_docs
from mlr_rag.documents import Document, Hit, beginning
from mlr_rag.errors import ModelMismatchError
from mlr_rag.ingest import Report
from mlr_rag.model import MLRModel
from mlr_rag.model.names import DEFAULT_MODEL
from mlr_rag.retriever import Retriever

QUESTIONS = (
    "how do I read a csv file into dictionaries?",
    "run a function in another process",
    "parse command line arguments",
    "compare two texts and show which lines differ",
    "what is the middle value of a list of numbers?",
)
_SHOWN = 64  # characters of a hit


def run(into: str, echo: Callable[[str], Any], model: str = DEFAULT_MODEL, documents: Sequence[Document] = ()) -> None:
    """Index, ask, index again, and try another model, telling each step through `echo`.

    Args:
        into: The collection's URL; it is kept, and found done the next time.
        echo: Takes a line of text.
        model: A model that is not a multi-layer one yet: its name or folder.
        documents: By default the standard library's documentation.
    """
    started = time.perf_counter()
    texts = documents or stdlib_docs.collect()
    echo(f"{len(texts):,} passages from the docstrings of this Python's standard library, "
         f"collected in {time.perf_counter() - started:.1f} s.")  # fmt: skip
    with Retriever.open(into, MLRModel.from_pretrained(model)) as kb:
        echo(f"\n1. Index them into {into} with {kb.info().model}\n")
        first = _index(kb, texts, echo)
        echo("\n2. Ask, in plain words\n")
        for question, hits in zip(QUESTIONS, kb.search_many(QUESTIONS, 3), strict=True):
            echo(f"   {question}")
            for hit in hits:
                echo(f"     {hit.score:.3f}  {_line(hit)}")
        echo("\n3. Index them again: what is there unchanged is not encoded\n")
        again = _index(kb, texts, echo)
        if first.added == len(texts):
            echo(f"   {first.seconds / again.seconds:,.0f} times as fast as the first run")
        echo("\n4. Open the same knowledge base with another model\n")
        echo(f"   {_refusal(into, model)}")
    echo(f'\nIt is yours now: {_command()} search {into} "how do I make a temporary folder?"')


def _index(kb: Retriever, texts: Sequence[Document], echo: Callable[[str], Any]) -> Report:
    report = kb.sync(texts, within={"root": stdlib_docs.ROOT})
    told = {"added": report.added, "updated": report.updated, "skipped": report.skipped, "deleted": report.deleted}
    counts = ", ".join(f"{name} {count:,}" for name, count in told.items() if count)
    echo(f"   {counts} in {report.seconds:.2f} s")
    return report


def _refusal(into: str, model: str) -> str:
    """What opening it with other weights of the same shape says."""
    other = MLRModel.from_pretrained(model, pooling="mean", start="paper")
    try:
        Retriever.open(into, other).close()
    except ModelMismatchError as refused:
        return f"refused: {refused}"
    return "accepted, which is a bug: please report it"


def _command() -> str:
    """How to call the program from here: it may be in a virtual environment that is not active."""
    return "mlr-rag" if shutil.which("mlr-rag") else os.path.relpath(sys.argv[0])


def _line(hit: Hit) -> str:
    name, _, doc = hit.document.text.partition(": ")
    return f"{name:38} {beginning(doc, _SHOWN)}"
