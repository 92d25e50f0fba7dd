"""Memory of one listwise step against the number of lists in it, with the gradient cache and without.

python -m benchmarks.gradcache
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

from benchmarks._common import ROOT, Row, parser, quiet, report, say
from mlr_rag.model.names import DEFAULT_MODEL

PASSAGES, LAYERS = 20, 2
FLAT = 0.10
DEFAULT, LAYERED, PLAIN = "default objective", "SelfContrastive", "default objective, without the cache"
HEAP = "default objective, memory that the C library keeps included"
SIZES = {DEFAULT: (16, 64, 128, 512), LAYERED: (16, 512), PLAIN: (16, 64), HEAP: (16, 512)}
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "262144"}  # whatever is larger is returned to the system when it is freed


def lists(count: int, words: int, seed: int) -> list[object]:
    """Lists of random words, all passages different."""
    from mlr_rag.training.lists import TrainingList

    rng = random.Random(seed)
    known = [f"{a}{b}" for a in "bcdfgklmnprst" for b in ("ake", "ine", "oat", "ound", "ip")]

    def text(length: int) -> str:
        return " ".join(rng.choices(known, k=length))

    scores = tuple(float(number) for number in range(PASSAGES))
    return [TrainingList(text(6), tuple(text(words) for _ in scores), scores) for _ in range(count)]


def step(model_name: str, count: int, words: int, kind: str, seed: int) -> tuple[float, float]:
    """What one step adds at its peak to what the process has before it, in MiB; and tokens of a passage."""
    import torch
    from sentence_transformers.base.trainer import BaseTrainer

    from mlr_rag import MLRModel
    from mlr_rag.training.collator import ListCollator
    from mlr_rag.training.loss import ListLoss
    from mlr_rag.training.objectives import SelfContrastive

    quiet()
    layered = kind == LAYERED
    model = MLRModel.from_pretrained(model_name, pooling="self_contrastive" if layered else "last").train()
    batch = ListCollator(model)(lists(count, words, seed))  # type: ignore[arg-type]
    features, labels = BaseTrainer.collect_features(None, batch)  # type: ignore[arg-type]
    loss = ListLoss(model, SelfContrastive() if layered else None, gradient_cache=kind != PLAIN)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.0)  # there in every step but the first
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _resident("VmRSS")
    sum(loss(features, labels).values()).backward()  # type: ignore[union-attr]
    mask = batch["passage_attention_mask"]
    return _resident("VmHWM") - before, float(mask.sum()) / len(mask)


def _resident(name: str) -> float:
    return int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def fresh(args: object, count: int, kind: str) -> tuple[float, float]:
    """`step` in a new process."""
    command = [sys.executable, "-m", "benchmarks.gradcache", "--step", kind, "--lists", str(count)]
    command += [word for name in ("model", "words", "seed") for word in (f"--{name}", str(getattr(args, name)))]
    env = os.environ | ({} if kind == HEAP else RETURNED)
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE)
    peak, tokens = map(float, done.stdout.split()[-2:])
    say(f"{kind}: {count} lists, {peak:.0f} MiB")
    return peak, tokens


def rows_of(kind: str, peaks: dict[int, float]) -> list[Row]:
    """The figures of one kind of step; targets only for what the cache itself is about."""
    made = []
    smallest = min(peaks)
    for count, peak in peaks.items():
        measured = f"{peak:,.0f} MiB"
        if kind in (PLAIN, HEAP) or count == smallest:
            made.append(Row(f"{kind}: {count} lists", "", measured))
        else:
            ratio = peak / peaks[smallest]
            target = f"<= {1 + FLAT:.2f} times that of {smallest}"
            made.append(Row(f"{kind}: {count} lists", target, f"{ratio:.2f}: {measured}", ratio <= 1 + FLAT))
    return made


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default=DEFAULT_MODEL)
    options.add_argument("--words", type=int, default=9, help="words in a passage")
    options.add_argument("--most", type=int, default=512, help="leave out steps with more lists")
    options.add_argument("--step", choices=SIZES, help="one step, in this process")
    options.add_argument("--lists", type=int, default=16, help="lists in it")
    args = options.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        say("skipped: only Linux tells the peak of a step alone")
        return
    if args.step:
        print(*step(args.model, args.lists, args.words, args.step, args.seed))
        return
    rows, tokens = [], 0.0
    for kind, sizes in SIZES.items():
        peaks = {}
        for count in sizes:
            if count <= args.most:
                peaks[count], tokens = fresh(args, count, kind)
        rows += rows_of(kind, peaks)
    report(
        "gradcache",
        "Memory of training",
        args,
        rows,
        f"{args.model}, one forward and backward of ListLoss with lists of {PASSAGES} passages of {tokens:.0f} tokens, "
        "all different, in its own mini-batches. What the step adds at its peak, in a fresh process, to the resident "
        "memory before it, which holds weights, gradients and tokens: activations of a mini-batch, vectors, and the "
        f"scores of some lists; SelfContrastive has {LAYERS} layers. With MALLOC_MMAP_THRESHOLD_=262144, so that what "
        "is freed is returned to the system: glibc else keeps some of it between what is in use, as the last rows "
        "show.",
        "GPUs; the optimizer, whose memory does not depend on the batch; longer passages: a mini-batch has the same "
        "number of tokens, so its activations are about the same.",
        ("sentence-transformers", "torch"),
    )


if __name__ == "__main__":
    main()
