"""Whether all-MiniLM-L6-v2 gives its published figure on SciFact, through two stores.

python -m benchmarks.scifact scifact.zip
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, Row, parser, report, say
from mlr_rag.model.names import DEFAULT_MODEL

PUBLISHED, TOLERANCE, APART = 0.645, 0.003, 0.002


def evaluate(collection: Path, store: str) -> dict[str, Any]:
    """What `mlr-rag eval` says."""
    words = ["eval", str(collection.resolve()), "--model", DEFAULT_MODEL, "--store", store, "--json"]
    done = subprocess.run([sys.executable, "-m", "mlr_rag", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("collection", type=Path, nargs="?", help="the SciFact collection of BEIR, a zip or a folder")
    args = options.parse_args()
    if args.collection is None:
        say("skipped: pass the path of BEIR's scifact.zip, as the collection is not ours to ship")
        return
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, store in (("memory", "memory:"), ("edge", f"edge:{scratch}/kb")):
            found[name] = evaluate(args.collection, store)
            say(name, found[name])
    scores = {name: each["ndcg@10"] for name, each in found.items()}
    facts = found["memory"]
    apart = abs(scores["memory"] - scores["edge"])
    target = f"{PUBLISHED} ± {TOLERANCE}"
    rows = [
        Row(f"nDCG@10, {name}:", target, f"{score:.4f}", abs(score - PUBLISHED) <= TOLERANCE)
        for name, score in scores.items()
    ]
    others = ", ".join(f"{name} {facts[name]:.4f}" for name in ("recall@100", "mrr@10"))
    rows += [
        Row("the stores' difference", f"<= {APART}", f"{apart:.4f}", apart <= APART),
        Row("recall@100 and MRR@10, memory:", "", others),
    ]
    report(
        "scifact",
        "The published figure",
        args,
        rows,
        f"{DEFAULT_MODEL} as it comes, by `mlr-rag eval`: {facts['documents']:,} documents, "
        f"{facts['queries']:,} queries and {facts['judgments']:,} judgments of {facts['collection']} {facts['split']}.",
        "other collections and models.",
        ("sentence-transformers", "ir-measures", "qdrant-edge-py"),
    )


if __name__ == "__main__":
    main()
