"""Kill -9 at random moments of an ingest, of its process or of the server, run it again, and look at what is there.

python -m benchmarks.kill [--stores edge chroma-server] [--trials 50]
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks._common import Row, missing, parser, report, say
from benchmarks._deployments import FOLDERS
from benchmarks._killing import Outcome, client_trials, server_trials

SERVER = "chroma-server"


@dataclass(frozen=True)
class Plan:
    """How a store is tried: its trials, given the folder, how many, the moments, and how many documents."""

    trials: Callable[[Path, int, random.Random, int], list[Outcome]]
    documents: int


PLANS = {
    "edge": Plan(lambda *given: client_trials(FOLDERS["edge"], *given), 3000),
    "qdrant-path": Plan(lambda *given: client_trials(FOLDERS["qdrant-path"], *given), 1000),  # it waits for each
    "chroma-persistent": Plan(lambda *given: client_trials(FOLDERS["chroma-persistent"], *given), 1500),
    SERVER: Plan(server_trials, 1500),
}


def table(name: str, documents: int, wanted: int, found: list[Outcome]) -> list[Row]:
    """What was left of a store."""
    bad = sum(bool(each.faults) for each in found)
    again = sum(each.again for each in found)
    kept = sorted(each.acknowledged for each in found)
    rows = [
        Row(
            f"{name}: trials with anything missing, doubled or torn",
            "0",
            f"{bad} of {len(found)}",
            not bad and len(found) == wanted,
        ),
        Row(f"{name}: acknowledged documents that were encoded again", "0", f"{again:,} of {sum(kept):,}", again == 0),
        Row(
            f"{name}: documents acknowledged before the kill, of {documents:,}",
            "",
            f"{kept[len(kept) // 2]:,} ({kept[0]:,} to {kept[-1]:,})",
        ),
    ]
    if name == SERVER:
        errors = sorted({each.error for each in found})
        typed = sum(each.error != "" for each in found)
        measured = f"{typed} of {len(found)} ({', '.join(errors)})"
        rows.append(Row(f"{name}: clients that ended with an error of ours", "all", measured, typed == len(found)))
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stores", nargs="+", choices=PLANS, default=list(PLANS))
    options.add_argument("--trials", type=int, default=50)
    options.add_argument("--server-trials", type=int, default=10)
    args = options.parse_args()
    if absent := missing(("qdrant-client", "chromadb")):
        raise SystemExit(f"not installed: {', '.join(absent)}; pip install -c constraints.txt -e '.[dev]'")
    moments, rows, faults = random.Random(args.seed), [], []
    for name in args.stores:
        plan, wanted = PLANS[name], args.server_trials if name == SERVER else args.trials
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            found = plan.trials(Path(scratch), wanted, moments, plan.documents)
        faults += [f"{name}: {fault}" for each in found for fault in each.faults]
        rows += table(name, plan.documents, wanted, found)
    for fault in faults[:20]:
        say(fault)
    report(
        "kill",
        "kill -9 during an ingest",
        args,
        rows,
        "Processes that were indexing were killed with SIGKILL at uniformly random moments: every tenth while it made "
        "the collection, every fifth while it replaced a third of an older version, the others while they filled a "
        "new one. After each kill this process opened the collection: every record in it must be whole (text, "
        "metadata, and its vector to 1e-6), every acknowledged one must be there and be found by its own vector, and "
        "the passport must be the model's. Then the same command ran again, to its end, and every document was "
        f"compared. For {SERVER} a process was indexing through a `chroma run` server on this machine, and it was the "
        "server that was killed; the process must end with an error of ours, the server was started again on the same "
        "folder, and the rest was as above. Kills that came too late are made again. The encoder is a fake that takes "
        "a fixed time a batch; a document counts as acknowledged when the store's `upsert` has returned.",
        "a power failure or a crash of the machine (a killed process loses nothing that the system's cache holds), a "
        "Qdrant server, other file systems.",
        ("qdrant-edge-py", "qdrant-client", "chromadb"),
    )
    if any(row.met is False for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
