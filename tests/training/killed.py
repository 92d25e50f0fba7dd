"""Training runs that are killed and run again, each in a process of its own.

    python -m tests.training.killed MODEL FOLDER KIND KILLS

FOLDER/whole gets the outcome of a run that nothing stops, FOLDER/killed that of one that is killed KILLS times, at
random file operations (many of them while a checkpoint is written or deleted) and between backward pass and step.
Processes are forked, since importing torch takes longer than the runs do.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from mlr_rag import MLRModel
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.objectives import SelfContrastive
from mlr_rag.training.trainer.lora import add_lora
from mlr_rag.training.trainer.trainer import MLRTrainer
from tests.training.material import arguments, evaluator, lists

_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.scandir"}


def run(model_dir: Path, folder: Path, kind: str, callbacks: Any = ()) -> None:
    """One run to its end, from where it stands."""
    torch.set_num_threads(1)
    model = MLRModel.from_pretrained(model_dir, pooling="scalar_mix" if kind == "lora" else "self_contrastive")
    if kind == "lora":
        add_lora(model)
    loss = ListLoss(model, None if kind == "lora" else SelfContrastive(layer_scales=[0.5]), dropout=True)
    args = arguments(folder / "run", save_strategy="steps", save_steps=2, gradient_accumulation_steps=2)
    trainer = MLRTrainer(model, lists(), loss, args, evaluator(), callbacks)
    result = trainer.train()
    model.save(folder / "final")
    (folder / "result.json").write_text(json.dumps(asdict(result), sort_keys=True))


def count_files(folder: Path, at: int = 0) -> list[int]:
    """A counter of the file operations beneath the folder; the one with the number `at` is the last of this process."""
    count = [0]

    def hook(event: str, args: Any) -> None:
        if event in _EVENTS and str(args[0]).startswith(str(folder)):
            count[0] += 1
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


class DieBeforeStep(TrainerCallback):
    """Dies with the gradient of a step at hand."""

    def __init__(self, left: int) -> None:
        self._left = left

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def fork(model_dir: Path, folder: Path, kind: str, at_file: int = 0, at_step: int = 0) -> int:
    """How a run in a process of its own ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        folder.mkdir(exist_ok=True)
        count = count_files(folder / "run", at_file)
        run(model_dir, folder, kind, [DieBeforeStep(at_step)] if at_step else [])
        (folder / "files.txt").write_text(str(count[0]))
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(model_dir: Path, folder: Path, kind: str, kills: int) -> None:
    """Both runs."""
    if fork(model_dir, folder / "whole", kind):
        raise SystemExit("the run that nothing stops failed")
    files = int((folder / "whole" / "files.txt").read_text())
    random.seed(f"{kind} {kills}")
    for number in range(kills):
        at = (
            {"at_step": random.randint(1, 4)}
            if number % 3 == 2
            else {"at_file": random.randint(files // 10, files // 2)}
        )
        status = fork(model_dir, folder / "killed", kind, **at)
        left = sorted(item.name for item in (folder / "killed" / "run").iterdir())
        sys.stdout.write(f"{at} {status} {left}\n")
        if status > 0:
            raise SystemExit("a run failed before it was killed")
    if fork(model_dir, folder / "killed", kind):
        raise SystemExit("the last run failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
