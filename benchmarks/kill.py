"""Kill -9 at random moments of an ingest, run the same command again, and look at what is there.

python -m benchmarks.kill
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from benchmarks._common import Row, parser, report, say
from mlr_rag.testing.kill import Trial, run, trial


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--trials", type=int, default=50)
    options.add_argument("--documents", type=int, default=3000)
    options.add_argument("--pause", type=float, default=0.02, help="seconds that encoding a batch of 64 takes")
    args = options.parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        trials, missed = _trials(Path(scratch), args.trials, args.documents, args.pause, moments)
    faults = [fault for each in trials for fault in each.faults_after_kill + each.faults_after_rerun]
    again = sum(len(each.encoded_again) for each in trials)
    bad = sum(bool(each.faults_after_kill or each.faults_after_rerun) for each in trials)
    kept = sorted(len(each.killed.acknowledged) for each in trials)
    for fault in faults[:20]:
        say(fault)
    rows = [
        Row("trials with anything missing, doubled or torn", "0", f"{bad} of {len(trials)}", bad == 0),
        Row("acknowledged documents that were encoded again", "0", f"{again:,} of {sum(kept):,}", again == 0),
        Row("documents acknowledged before the kill", "", f"{kept[len(kept) // 2]:,} ({kept[0]:,} to {kept[-1]:,})"),
    ]
    report(
        "kill",
        "kill -9 during an ingest",
        args,
        rows,
        f"{len(trials)} processes that were indexing {args.documents:,} documents into an edge collection were killed "
        "with SIGKILL at uniformly random moments: every tenth while it made the collection, every fifth while it "
        "replaced a third of an older version, the others while they filled a new one. After each kill a copy of the "
        "folder was opened: every record in it must be whole (text, metadata, and its vector to 1e-6), and every "
        "acknowledged one must be there. Then the same command ran again on the folder itself, and every document was "
        f"compared. {missed} more processes had ended before their moment came, and are not counted. The encoder is a "
        "fake that takes a fixed time a batch; a document counts as acknowledged when the store's `upsert` has "
        "returned.",
        "a power failure or a crash of the machine (a killed process loses nothing that the system's cache holds), "
        "other stores than edge, other file systems.",
        ("qdrant-edge-py",),
    )
    if faults or again:
        raise SystemExit(1)


def _trials(scratch: Path, wanted: int, count: int, pause: float, moments: random.Random) -> tuple[list[Trial], int]:
    """Trials whose kill came in time, and how many did not."""
    before = scratch / "version-0"
    filling = run(before, scratch / "filling.log", count, pause=pause).seconds
    shutil.copytree(before, scratch / "version-1")
    replacing = run(scratch / "version-1", scratch / "replacing.log", count, version=1, pause=pause).seconds
    making = 0.1 * filling  # from opening a new folder to the first document
    say(f"nobody killed: filling took {filling:.2f} s, replacing a third {replacing:.2f} s")
    done: list[Trial] = []
    for number in range(2 * wanted):
        kind = len(done)
        folder, version = scratch / f"trial-{number}", 1 if kind % 5 == 1 else 0
        if version:
            shutil.copytree(before, folder)
        step, longest = ("open", making) if kind % 10 == 0 else ("ingest", replacing if version else filling)
        kill = step, moments.uniform(0, longest)
        each = trial(folder, count, version, pause, kill)
        if each.killed.killed:
            done.append(each)
            state = f"{len(each.killed.acknowledged):,} acknowledged, {len(each.encoded_again)} encoded again"
            faults = each.faults_after_kill + each.faults_after_rerun
            say(f"{len(done)}/{wanted}: killed {kill[1]:.3f} s after {kill[0]!r}, {state}, {len(faults)} faults")
        shutil.rmtree(folder)
        if len(done) == wanted:
            break
    return done, number + 1 - len(done)


if __name__ == "__main__":
    main()
