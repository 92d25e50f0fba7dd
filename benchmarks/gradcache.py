"""Peak memory of one listwise step against the number of lists in it, with the gradient cache and without.

python -m benchmarks.gradcache
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys

from benchmarks._common import ROOT, Row, parser, quiet, report, say
from mlr_rag.model.names import DEFAULT_MODEL

CACHED, PLAIN = (16, 64, 128, 512), (16, 64)
PASSAGES, WORDS = 2, 12
TOKENS = 512  # in a mini-batch: few enough for every size to fill one
FLAT = 0.10


def lists(count: int, seed: int) -> list[object]:
    """Lists of random words, all passages different."""
    from mlr_rag.training.lists import TrainingList

    rng = random.Random(seed)
    words = [f"{a}{b}" for a in "bcdfgklmnprst" for b in ("ake", "ine", "oat", "ound", "ip")]

    def text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    scores = tuple(float(number) for number in range(PASSAGES))
    return [TrainingList(text(6), tuple(text(WORDS) for _ in scores), scores) for _ in range(count)]


def step(model_name: str, count: int, cached: bool, seed: int) -> float:
    """The peak of this process's resident memory after one step, in MiB."""
    from sentence_transformers.base.trainer import BaseTrainer

    from mlr_rag import MLRModel
    from mlr_rag.training.collator import ListCollator
    from mlr_rag.training.loss import ListLoss

    quiet()
    model = MLRModel.from_pretrained(model_name, pooling="last").train()
    batch = ListCollator(model)(lists(count, seed))  # type: ignore[arg-type]
    loss = ListLoss(model, mini_batch_num_tokens=TOKENS, gradient_cache=cached)
    sum(loss(*BaseTrainer.collect_features(None, batch)).values()).backward()  # type: ignore[arg-type, union-attr]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def fresh(model: str, count: int, cached: bool, seed: int) -> float:
    """`step` in a new process."""
    command = [sys.executable, "-m", "benchmarks.gradcache", "--model", model, "--seed", str(seed)]
    command += ["--lists", str(count), *(["--plain"] if not cached else [])]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    peak = float(done.stdout.split()[-1])
    say(f"{count} lists,", "cached:" if cached else "plain:", f"{peak:.0f} MiB")
    return peak


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default=DEFAULT_MODEL)
    options.add_argument("--lists", type=int, help="one step with so many lists, in this process")
    options.add_argument("--plain", action="store_true", help="without the cache")
    args = options.parse_args()
    if args.lists:
        print(step(args.model, args.lists, not args.plain, args.seed))
        return
    peaks = {count: fresh(args.model, count, True, args.seed) for count in CACHED}
    plain = {count: fresh(args.model, count, False, args.seed) for count in PLAIN}
    rows = [
        Row(
            f"{count} lists to {CACHED[0]}, cached",
            f"<= {1 + FLAT:.2f}",
            f"{peaks[count] / peaks[CACHED[0]]:.2f} ({peaks[count]:,.0f} to {peaks[CACHED[0]]:,.0f} MiB)",
            peaks[count] <= peaks[CACHED[0]] * (1 + FLAT),
        )
        for count in CACHED[1:]
    ]
    rows += [Row(f"{count} lists, without the cache", "", f"{plain[count]:,.0f} MiB") for count in PLAIN]
    report(
        "gradcache",
        "Memory of training",
        args,
        rows,
        f"{args.model}, one forward and backward of ListLoss with lists of {PASSAGES} passages of {WORDS} words, "
        f"all different, in mini-batches of {TOKENS:,} tokens; the peak of a fresh process's resident memory, imports "
        "and weights included.",
        "GPUs; the optimizer, whose memory does not depend on the batch.",
        ("sentence-transformers", "torch"),
    )


if __name__ == "__main__":
    main()
