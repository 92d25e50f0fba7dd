"""Specializations that are killed and run again, each in a process of its own.

    python -m tests.specializing.killed FOLDER KILLS

FOLDER/whole gets the outcome of a run that nothing stops, FOLDER/killed that of one that is killed KILLS times, at
file operations that are drawn, and at three moments that such a draw would hardly hit. Processes are forked, as
importing torch takes longer than the runs do.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from mlr_rag import specialize
from tests.specializing.small import CORPUS, QRELS, QUERIES, words_teacher
from tests.training.killed import count_files

ENDED = "between a training's last checkpoint and its result"
DELETED = "while a trial's checkpoints are deleted"
HANDED = "while the model comes into the output"
TIMES = {ENDED: 1, DELETED: 5, HANDED: 4}  # files


def run(folder: Path) -> None:
    """One run to its end, from where it stands."""
    torch.set_num_threads(1)
    found = specialize(
        folder.parent / "model" / "st", CORPUS, QUERIES, QRELS, teacher=words_teacher(folder / "asked.txt"),
        budget=None, output=folder / "out", probe=folder.parent / "probe",
    )  # fmt: skip
    report = found.report
    outcome = {
        "accepted": found.accepted,
        "model": found.model.fingerprint,
        "metrics": found.metrics,
        "decided": [report.verdict, report.chosen, report.alpha, report.reasons, report.advice],
        "trials": [trial.model_dump(exclude={"seconds"}) for trial in report.trials],
        "lineage": [step.model_dump() for step in report.data.lineage],
        "curves": [curve.model_dump() for curve in report.curves],
    }
    (folder / "outcome.json").write_text(json.dumps(outcome, sort_keys=True, indent=1))


def die(moment: str) -> None:
    """Let this process die at the moment."""
    removing, count = [False], [0]

    def hook(event: str, args: Any) -> None:
        if event == "shutil.rmtree" and re.search(r"/runs/deleted-trial-\w+$", str(args[0])):
            removing[0] = True
        if (
            (moment == ENDED and event == "open" and str(args[0]).endswith("/result.partial"))
            or (moment == DELETED and event == "os.remove" and removing[0])
            or (moment == HANDED and event == "os.rename" and Path(str(args[1])).parent.name == "out")
        ):
            count[0] += 1
            if count[0] == TIMES[moment]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def fork(folder: Path, at: int | str = 0) -> int:
    """How a run in a process of its own ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        folder.mkdir(exist_ok=True)
        count = count_files(folder, at if isinstance(at, int) else 0)
        if isinstance(at, str):
            die(at)
        run(folder)
        (folder / "files.txt").write_text(str(count[0]))
        status = 0
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def stages(folder: Path) -> dict[str, str]:
    """What the stages that are done gave, by file."""
    return {file.name: file.read_text() for file in sorted((folder / ".mlr-rag" / "stages").glob("*.json"))}


def main(folder: Path, kills: int) -> None:
    """Both runs."""
    if fork(folder / "whole"):
        raise SystemExit("the run that nothing stops failed")
    files, draw = int((folder / "whole" / "files.txt").read_text()), random.Random(kills)
    moments: list[int | str] = [draw.randint(files // 12, files // 6) for _ in range(kills - 3)]
    known: dict[str, str] = {}
    for at in [ENDED, DELETED, *moments, HANDED, 0]:  # nothing ends the last one
        status, done = fork(folder / "killed", at), stages(folder / "killed")
        again = [name for name, value in known.items() if done.get(name) != value]
        known = done
        sys.stdout.write(f"{at}: {status}, {len(done)} stages are done, {again} again\n")
        if status > 0 or again:
            raise SystemExit("a run failed, or did again what was done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
