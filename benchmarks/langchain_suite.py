"""LangChain's own suite of vector stores over the stores in _langchain_stores.py: how much of it each one passes.

python -m benchmarks.langchain_suite
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from benchmarks._common import ROOT, Row, missing, parser, report, say

PEERS = ("langchain-core", "langchain-tests", "langchain-qdrant", "langchain-chroma", "qdrant-client", "chromadb")
_STORES = ROOT / "benchmarks" / "_langchain_stores.py"
_ASYNC = "_async"


def outcomes() -> dict[str, dict[str, str]]:
    """By class and test, "" where it passed, or else what was raised."""
    with tempfile.TemporaryDirectory() as scratch:
        result, settings = Path(scratch, "result.xml"), Path(scratch, "pytest.ini")
        settings.write_text("[pytest]\nasyncio_mode = auto\n")  # not ours, which takes warnings for failures
        words = [f"--junitxml={result}", "-c", str(settings), f"--rootdir={ROOT}", "-p", "no:cacheprovider", "-q"]
        done = subprocess.run([sys.executable, "-m", "pytest", *words, str(_STORES)], cwd=ROOT, capture_output=True)
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
    """How many each store passed, and which it failed."""
    rows = []
    for kind, tests in found.items():
        failed = [test for test, raised in tests.items() if raised]
        rows.append(Row(f"{names[kind]}: tests passed", "", f"{len(tests) - len(failed)} of {len(tests)}"))
        if failed:
            rows.append(Row(f"{names[kind]}: tests failed", "", f"{len(failed)}: {', '.join(_folded(failed))}"))
    return rows


def _folded(tests: list[str]) -> list[str]:
    """Names without "test_", and a test and its async twin as one."""
    plain = dict.fromkeys(test.removeprefix("test_").removesuffix(_ASYNC) for test in tests)
    both = {name for name in plain if {f"test_{name}", f"test_{name}{_ASYNC}"} <= set(tests)}
    alone = {name for name in plain if f"test_{name}{_ASYNC}" in tests} - both
    return [f"{name} (both)" if name in both else f"{name} (async)" if name in alone else name for name in plain]


def main() -> None:
    args = parser(__doc__).parse_args()
    if absent := missing(PEERS):
        raise SystemExit(f"not installed: {', '.join(absent)}; pip install -r benchmarks/requirements.txt")
    from benchmarks._langchain_stores import PACKAGES

    found = outcomes()
    for kind, tests in found.items():
        for test, raised in tests.items():
            if raised:
                say(f"{PACKAGES[kind]} {test}: {raised.splitlines()[0]:.150}")
    report(
        "langchain_suite",
        "LangChain's own suite of vector stores",
        args,
        table(found, PACKAGES),
        "`VectorStoreIntegrationTests` of langchain-tests, unmodified, over the adapters that LangChain ships, each "
        'with an empty collection of its own in memory and cosine as its distance. "(both)": the test and its async '
        "twin.",
        "other deployments of the same adapters.",
        PEERS,
    )


if __name__ == "__main__":
    main()
