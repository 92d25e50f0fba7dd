"""What capturing layers costs over the plain base model: time and peak memory.

python -m benchmarks.capture
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, Row, parser, passages, quiet, report, say, spread

_CLEAR = Path("/proc/self/clear_refs")
PLAIN, CAPTURED, STOCK = "plain", "captured", "stock"


def load(kind: str) -> Any:
    """The base in MLRModel without a hook on any layer; with layers pooled half and half; in SentenceTransformer."""
    import torch
    from sentence_transformers import SentenceTransformer

    from mlr_rag import MLRModel
    from mlr_rag.model.names import DEFAULT_MODEL, resolve

    if kind == STOCK:
        return SentenceTransformer(str(resolve(DEFAULT_MODEL))).encode_document
    if kind == PLAIN:
        return MLRModel.from_pretrained(DEFAULT_MODEL, layers=-1, pooling="last").encode_document
    model = MLRModel.from_pretrained(DEFAULT_MODEL, layers=(-2, -1), pooling="scalar_mix")
    with torch.no_grad():
        model.get_parameter("1.layer_weights").fill_(
            0.5
        )  # as training leaves them; at first the last layer alone counts
    return model.encode_document


def once(encode: Any, texts: list[str]) -> tuple[float, float]:
    """Wall-clock and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    encode(texts)
    return time.perf_counter() - wall, time.process_time() - cpu


def memory(kind: str, count: int, seed: int) -> None:
    """Print the peak of this process, and how far encoding raised it over what was there just before."""
    quiet()
    texts = [each.text for each in passages(count, seed)]
    encode = load(kind)
    encode(texts[:1])
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    _CLEAR.write_text("5")  # sets the peak back to what there is now
    encode(texts)
    print(_peak(), _peak() - before)


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def peaks(args: argparse.Namespace) -> dict[str, list[tuple[int, int]]]:
    """Peak memory of fresh processes, alternating."""
    found: dict[str, list[tuple[int, int]]] = {PLAIN: [], CAPTURED: []}
    for number in range(args.processes):
        for kind in (PLAIN, CAPTURED) if number % 2 else (CAPTURED, PLAIN):
            words = ["--memory-of", kind, "--passages", str(args.passages), "--seed", str(args.seed)]
            command = [sys.executable, "-m", "benchmarks.capture", *words]
            out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
            found[kind].append((int(out[0]), int(out[1])))
        say(f"process {number + 1}:", {kind: f"{values[-1][0] / 2**20:.0f} MiB" for kind, values in found.items()})
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--passages", type=int, default=200)
    options.add_argument("--pairs", type=int, default=15)
    options.add_argument("--processes", type=int, default=7)
    options.add_argument("--memory-of", choices=(PLAIN, CAPTURED), help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.memory_of:
        memory(args.memory_of, args.passages, args.seed)
        return
    if not _CLEAR.exists():
        raise SystemExit(f"{_CLEAR} is needed, to measure peak memory: run this on Linux")
    quiet()
    texts = [each.text for each in passages(args.passages, args.seed)]
    kinds = [PLAIN, CAPTURED, STOCK]
    encoders = {kind: load(kind) for kind in kinds}
    for encode in encoders.values():
        encode(texts[:50])
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for number in range(args.pairs):
        for kind in kinds if number % 2 else kinds[::-1]:
            times[kind].append(once(encoders[kind], texts))
        say(f"pair {number + 1}:", {kind: f"{values[-1][0]:.2f} s" for kind, values in times.items()})
    measured = peaks(args)
    wall, cpu, stock = (
        [a[which] / b[which] for a, b in zip(times[CAPTURED], times[base], strict=True)]
        for base, which in ((PLAIN, 0), (PLAIN, 1), (STOCK, 1))
    )
    top, rise = (
        [statistics.median(value[i] for value in measured[kind]) for kind in (PLAIN, CAPTURED)] for i in (0, 1)
    )
    rows = [
        Row("wall-clock time over plain", "<= 1.03", spread(wall, 3), statistics.median(wall) <= 1.03),
        Row("processor time over plain", "<= 1.03", spread(cpu, 3), statistics.median(cpu) <= 1.03),
        Row("peak memory of the process over plain", "<= 1.05", _memory(top), top[1] / top[0] <= 1.05),
        Row("of it, what encoding adds, over plain", "<= 1.05", _memory(rise), rise[1] / rise[0] <= 1.05),
        Row("processor time over plain SentenceTransformer", "", spread(stock, 3)),
    ]
    report(
        "capture",
        "Capturing layers",
        args,
        rows,
        f"{args.passages} docstrings of Python's standard library, encoded as documents by all-MiniLM-L6-v2 (6 layers) "
        "with the last two layers captured and pooled half and half, and by the same class and batches without a hook "
        f"on any layer (plain). Time: {args.pairs} pairs in one process, alternating. Memory: {args.processes} fresh "
        "processes of each kind, alternating, medians; the peak is the resident set's, set back just before encoding.",
        "a GPU, training (where layers are kept for the backward pass), deeper models, more layers.",
        ("torch", "sentence-transformers", "transformers"),
    )


def _memory(values: list[float]) -> str:
    return f"{values[1] / values[0]:.3f} ({values[0] / 2**20:.0f} MiB, {values[1] / 2**20:.0f} MiB)"


if __name__ == "__main__":
    main()
