"""All of them, in order: python -m benchmarks [--scifact scifact.zip]."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks._common import ROOT, say


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scifact", type=Path, help="BEIR's scifact.zip; without it that section is left as it is")
    options.add_argument("--into", type=Path, default=ROOT / "BENCHMARKS.md")
    args = options.parse_args()
    into = ["--into", str(args.into.resolve())]
    runs: dict[str, list[str]] = dict.fromkeys(
        (
            "kill",
            "migration",
            "langchain_suite",
            "llama_index_suite",
            "capture",
            "ingest",
            "startup",
            "scifact",
            "frameworks",
            "stores",
        ),
        into,
    )
    if args.scifact:
        runs["scifact"] = [str(args.scifact.resolve()), *into]
    failed = []
    for name, words in runs.items():
        say(f"benchmarks.{name}")
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *words], cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
