"""What the scripts share: the passages, the machine, ratios, and the sections of BENCHMARKS.md."""

from __future__ import annotations

import argparse
import ast
import datetime
import logging
import os
import platform
import random
import re
import statistics
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mlr_rag import Document
from mlr_rag.evaluation.collection import Collection

ROOT = Path(__file__).resolve().parent.parent
_SHORTEST, _LONGEST = 50, 1000  # characters of a docstring: shorter ones are left out, longer ones cut
SECTIONS = (
    "ingest",
    "startup",
    "capture",
    "scifact",
    "stores",
    "kill",
    "migration",
    "frameworks",
    "langchain_suite",
    "llama_index_suite",
    "raw_backbone",
    "objectives",
    "listwise",
    "gradcache",
    "score_cache",
    "specialize",
    "rules_queries",
    "specialize_again",
    "specialize_kill",
    "guard",
    "query_only",
    "layers",
)
_HEADER = """# Benchmarks

Every figure of speed is a ratio of things measured in one run, interleaved, so that whatever else the machine does
hits all of them alike. Read the ratios: the seconds beside them belong to one machine and its mood. A figure is a
median, and the range in brackets the lowest and the highest of the pairs it is the median of. `make bench` measures
everything again; each section says which command made it, when, on what, and what it does not show.
"""


@dataclass(frozen=True)
class Row:
    """A figure, what it should be, and what was measured; `met` is None for a figure without a target."""

    figure: str
    target: str
    measured: str
    met: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "met", False: "**not met**", None: ""}[self.met]
        return f"| {self.figure} | {self.target} | {self.measured} | {verdict} |"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every script."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--into", type=Path, default=ROOT / "BENCHMARKS.md", help="the report whose section is replaced")
    return made


def quiet() -> None:
    """No progress bars and warnings of the libraries between our lines."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("mlr_rag").setLevel(logging.ERROR)


def say(*words: object) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def spread(ratios: Sequence[float], digits: int = 2) -> str:
    """The median, and the range in brackets."""
    low, high = min(ratios), max(ratios)
    return f"{statistics.median(ratios):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def report(
    section: str,
    title: str,
    options: argparse.Namespace,
    rows: Iterable[Row],
    how: str,
    not_measured: str,
    packages: Sequence[str] = (),
    details: str = "",
) -> None:
    """Print a section, and put it in its place in the report; `details` is a table that follows the rows."""
    versions = [f"{name} {metadata.version(name)}" for name in ("mlr-rag", *packages)]
    given = " ".join(Path(word).name if os.sep in word else word for word in _without_into(sys.argv[1:]))
    parts = [
        f"## {title}",
        "| figure | target | measured | |\n| --- | --- | --- | --- |\n" + "\n".join(map(str, rows)),
        *([details] if details else []),
        how,
        f"Not measured: {not_measured}",
        f"`python -m benchmarks.{section}{' ' + given if given else ''}`, seed {options.seed}, "
        f"{datetime.datetime.now(datetime.timezone.utc).date()}. {machine()} "
        f"Python {platform.python_version()}, {', '.join(versions)}.",
    ]
    body = "\n\n".join(parts) + "\n"
    print("\n" + body, flush=True)
    write_section(options.into, section, body)


def write_section(file: Path, section: str, body: str) -> None:
    """Replace one section of the report, between its markers; the others stay as they are."""
    old = file.read_text("utf-8") if file.exists() else ""
    kept = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end of \1 -->", old, flags=re.DOTALL)) | {section: body}
    blocks = [f"<!-- {name} -->\n{kept[name]}<!-- end of {name} -->\n" for name in SECTIONS if name in kept]
    file.write_text("\n".join([_HEADER, *blocks]), "utf-8")


def machine() -> str:
    """Processor, cores, memory and load, in a sentence."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = re.search(r"model name\s*: (.*)", facts)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 if hasattr(os, "sysconf") else 0
    busy = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    processor = named[1] if named else platform.processor() or platform.machine()
    return f"{processor}, {cores} cores, {memory:.0f} GiB{busy}, {platform.system()}."


def missing(packages: Sequence[str]) -> list[str]:
    """Which of these distributions are not installed."""
    installed = {(found.metadata["Name"] or "").lower() for found in metadata.distributions()}
    return [name for name in packages if name not in installed]


def passages(count: int, seed: int, collection: Path | None = None) -> list[Document]:
    """`count` different passages in random order: docstrings of the standard library, or a collection's documents."""
    found = {
        document.text: document
        for document in (Collection.load(collection).documents() if collection else _docstrings())
    }
    if len(found) < count:
        raise SystemExit(f"only {len(found):,} different passages, {count:,} are needed")
    return random.Random(seed).sample(list(found.values()), count)


def _docstrings() -> Iterator[Document]:
    """Private ones too, and whole: mlr_rag.stdlib_docs keeps fewer than 5,000, and cuts them to what a reader wants."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        inside = file.relative_to(library)
        if {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages"} & set(inside.parts):
            continue
        module = ".".join(inside.with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = (ast.get_docstring(node) or "").replace("\0", "")[:_LONGEST].strip()
                if len(text) >= _SHORTEST:
                    yield Document(text, f"{module}:{getattr(node, 'lineno', 0)}", {"module": module})


def _without_into(words: list[str]) -> list[str]:
    return words[: words.index("--into")] + words[words.index("--into") + 2 :] if "--into" in words else words
