"""All of them, in order: python -m benchmarks [--data FOLDER_OF_BEIR_ZIPS] [--backbone BERT_TINY] [--teacher MPNET]."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks._common import ROOT, SECTIONS, say

# Those that need collections, which are not ours to ship; of the names in --data, what is there is used.
_COLLECTIONS = {
    "scifact": ["scifact"],
    "listwise": ["scifact", "nl2bash"],
    "score_cache": ["nl2bash"],
    "specialize": ["scifact", "nfcorpus", "medquad", "nl2bash", "wikiqa", "cranfield", "msmarco_5k"],
    "rules_queries": ["nl2bash", "wikiqa"],
    "specialize_again": ["nl2bash"],
    "specialize_kill": ["nl2bash"],
    "guard": ["nl2bash", "medquad"],
    "query_only": ["nl2bash", "medquad", "squad_nqg", "wikiqa", "nfcorpus"],
    "layers": ["nl2bash", "wikiqa"],
    "raw_backbone": ["squad_nqg"],
    "objectives": ["squad_nqg", "nl2bash", "nfcorpus"],
}
_TAUGHT = ("specialize", "rules_queries", "specialize_again")  # by an embedder that is better than ours
_RAW = ("raw_backbone", "objectives")  # these train a language model that was never tuned for retrieval


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, help="a folder of BEIR zips; without it what needs them is left as it is")
    options.add_argument("--backbone", type=Path, help="a raw language model, such as bert-tiny, to train")
    options.add_argument("--teacher", type=Path, help="an embedder that is better than all-MiniLM-L6-v2")
    options.add_argument("--into", type=Path, default=ROOT / "BENCHMARKS.md")
    args = options.parse_args()
    failed = []
    for name in SECTIONS:
        words = _words(name, args)
        if words is None:
            say(f"benchmarks.{name}: skipped, it needs --data{' and --backbone' if name in _RAW else ''}")
            continue
        say(f"benchmarks.{name}")
        command = [sys.executable, "-m", f"benchmarks.{name}", *words, "--into", str(args.into.resolve())]
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _words(name: str, args: argparse.Namespace) -> list[str] | None:
    """The arguments of a script, or None where something that it needs was not given."""
    if name not in _COLLECTIONS:
        return []
    zips = [args.data.resolve() / f"{each}.zip" for each in _COLLECTIONS[name]] if args.data else []
    given = [str(file) for file in zips if file.exists()]
    if name in _TAUGHT and args.teacher:
        given += ["--teacher", str(args.teacher.resolve())] if given else []
    if name not in _RAW:
        return given or None
    return [str(args.backbone.resolve()), *given] if args.backbone and given else None


if __name__ == "__main__":
    main()
