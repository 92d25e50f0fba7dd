"""How soon it answers: importing mlr_rag, `mlr-rag --help`, and the demo the second time.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks._common import Row, parser, quiet, report, say
from mlr_rag import Retriever, stdlib_docs
from mlr_rag.model.names import DEFAULT_MODEL


def seconds(*words: str) -> float:
    """Wall-clock time of a Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--times", type=int, default=15)
    args = options.parse_args()
    quiet()
    kinds = {"empty": ("-c", "pass"), "import": ("-c", "import mlr_rag"), "help": ("-m", "mlr_rag", "--help")}
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(args.times):
        for kind, words in kinds.items():
            taken[kind].append(seconds(*words))
    documents = stdlib_docs.collect()
    with tempfile.TemporaryDirectory() as scratch, Retriever.open(f"{scratch}/kb", DEFAULT_MODEL) as kb:
        first, second = (kb.sync(documents, show_progress=False) for _ in range(2))
    say(first, second)
    imported = statistics.median(b - a for a, b in zip(taken["empty"], taken["import"], strict=True))
    helped = statistics.median(taken["help"])
    share = second.seconds / first.seconds
    rows = [
        Row("`import mlr_rag`, over an empty Python", "< 0.3 s", f"{imported:.3f} s", imported < 0.3),
        Row("`mlr-rag --help`, the whole process", "< 0.5 s", f"{helped:.2f} s", helped < 0.5),
        Row("passages that the demo indexes", ">= 3,000", f"{first.added:,}", first.added >= 3000),
        Row("its second run skips", "all", f"{second.skipped:,}", second.skipped == len(documents)),
        Row("its second run over its first", "< 0.1", f"{share:.4f} ({second.seconds:.2f} s)", share < 0.1),
    ]
    report(
        "startup",
        "How soon it answers",
        args,
        rows,
        f"Processes: medians of {args.times}, alternating, files in the system's cache. The demo's two runs: "
        f"{len(documents):,} docstrings of the standard library into an edge collection, in one process; collecting "
        "them is not counted.",
        "a cold disk, loading the model.",
        ("torch", "sentence-transformers", "qdrant-edge-py"),
    )


if __name__ == "__main__":
    main()
