"""A suite of vector stores, run over several of them: how much of it each one passes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from benchmarks._common import ROOT, Row, missing, parser, report, say

_ASYNC = "_async"
_WRONG = ("assert", "AssertionError", "Failed: DID NOT RAISE")  # how pytest's messages begin


def compare(section: str, title: str, how: str, packages: Sequence[str], description: str | None) -> None:
    """Run the suite over the classes of `_<framework>_stores.py`, which it names in PACKAGES, and report."""
    args = parser(description).parse_args()
    if absent := missing(packages):
        raise SystemExit(f"not installed: {', '.join(absent)}; pip install -c constraints.txt -e '.[dev]'")
    stores = importlib.import_module(f"benchmarks._{section.removesuffix('_suite')}_stores")
    found = outcomes(Path(str(stores.__file__)))
    for kind, tests in found.items():
        for test, raised in tests.items():
            if raised:
                say(f"{stores.PACKAGES[kind]} {test}: {raised.splitlines()[0]:.150}")
    how += (
        " Ours has an embedded collection in a folder; theirs are in memory, with cosine as their distance; each test "
        "starts with an empty one. Answered wrongly: without an error, and not as the test expects."
    )
    rows = table(found, stores.PACKAGES)
    report(section, title, args, rows, how, "other deployments of the same adapters.", packages)


def outcomes(stores: Path) -> dict[str, dict[str, str]]:
    """By class and test, "" where it passed, or else what was raised."""
    with tempfile.TemporaryDirectory() as scratch:
        result, settings = Path(scratch, "result.xml"), Path(scratch, "pytest.ini")
        settings.write_text("[pytest]\nasyncio_mode = auto\n")  # not ours, which takes warnings for failures
        words = [f"--junitxml={result}", "-c", str(settings), f"--rootdir={ROOT}", "-p", "no:cacheprovider", "-q"]
        done = subprocess.run([sys.executable, "-m", "pytest", *words, str(stores)], cwd=ROOT, capture_output=True)
        if done.returncode not in (0, 1):  # 1: some failed
            raise SystemExit(f"pytest did not run the suite:\n{done.stdout.decode()}{done.stderr.decode()}")
        found: dict[str, dict[str, str]] = {}
        for case in ET.parse(result).iter("testcase"):
            raised = [child.get("message") or "" for child in case if child.tag in ("failure", "error")]
            skipped = [f"skipped: {child.get('message')}" for child in case if child.tag == "skipped"]
            found.setdefault(case.attrib["classname"].rpartition(".")[2], {})[case.attrib["name"]] = "".join(
                raised[:1] or skipped
            )
        return found


def table(found: dict[str, dict[str, str]], names: dict[str, str]) -> list[Row]:
    """How many each store passed, and which it failed; ours must pass all."""
    rows = []
    for kind, tests in found.items():
        failed = {test: raised for test, raised in tests.items() if raised}
        ours = names[kind].startswith("mlr-rag")
        passed = f"{len(tests) - len(failed)} of {len(tests)}"
        rows.append(Row(f"{names[kind]}: tests passed", "all" if ours else "", passed, not failed if ours else None))
        wrong = [test for test, raised in failed.items() if raised.startswith(_WRONG)]
        for what, some in (
            ("answered wrongly", wrong),
            ("raised an error", [test for test in failed if test not in wrong]),
        ):
            if some:
                rows.append(Row(f"{names[kind]}: {what}", "", f"{len(some)}: {', '.join(_folded(some))}"))
    return rows


def _folded(tests: list[str]) -> list[str]:
    """Names without "test_"; a test's parameters behind it, and its async twin with it."""
    variants: dict[str, list[str]] = {}
    for test in tests:
        name, _, parameter = test.removeprefix("test_").partition("[")
        plain = name.removesuffix(_ASYNC)
        variants.setdefault(plain, []).append("async" if plain != name else parameter.removesuffix("]"))
    shown = {name: "both" if set(found) == {"", "async"} else ", ".join(found) for name, found in variants.items()}
    return [f"{name} ({found})" if found else name for name, found in shown.items()]
