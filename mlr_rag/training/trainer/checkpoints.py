"""The folder of a training run: whose it is, its complete checkpoints, and its result."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlr_rag.errors import InvalidInputError

_RUN, _RESULT, _PARTIAL = "run.json", "result.json", ".partial"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_REMEDY = "Use another output_dir, or train(resume=False), which deletes the checkpoints there and begins anew."


class RunFolder:
    """The checkpoints of one run. What has a checkpoint's name is complete, whenever the process was killed.

    A checkpoint is written elsewhere and renamed when it is on the disk; one that is deleted is renamed first.

    Args:
        path: The folder, made where it is missing.
        parts: What makes the run what it is, JSON values by name; another run has others.
    """

    def __init__(self, path: str | Path, parts: dict[str, Any]) -> None:
        self.path = Path(path)
        self.parts = json.loads(json.dumps(parts, default=str))

    def claim(self, resume: bool) -> None:
        """Make the folder this run's: the run that is there, or a new one.

        Raises:
            InvalidInputError: another run's checkpoints are there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.path / _PARTIAL, ignore_errors=True)
        known = _read(self.path / _RUN)
        if known is None and self.steps():
            raise InvalidInputError(
                f"{self.path} holds checkpoints that were not written by mlr_rag",
                found=f"checkpoint-{self.steps()[-1]}",
                expected="an empty folder",
                remedy="Use another output_dir.",
            )
        written = self.steps() or self.result() is not None  # else nothing is lost
        if known is not None and known != self.parts and resume and written:
            raise InvalidInputError(
                f"{self.path} holds another run", found=_difference(known, self.parts), remedy=_REMEDY
            )
        if not resume:
            (self.path / _RESULT).unlink(missing_ok=True)
            self.delete(self.steps())
        if known != self.parts:
            _write(self.path / _RUN, self.parts)

    def steps(self) -> list[int]:
        """The steps after which there is a complete checkpoint, ascending."""
        found = (_CHECKPOINT.fullmatch(item.name) for item in self.path.iterdir() if item.is_dir())
        return sorted(int(match[1]) for match in found if match)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after a step is, or would be."""
        return self.path / f"checkpoint-{step}"

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """A folder to write a checkpoint into, which takes its name when all of it is on the disk."""
        partial = self.path / _PARTIAL / f"checkpoint-{step}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _sync(file)
        self.delete([step])
        partial.rename(self.checkpoint(step))

    def delete(self, steps: list[int]) -> None:
        """Delete the checkpoints after these steps, where there are any."""
        for step in steps:
            if self.checkpoint(step).exists():
                doomed = self.path / _PARTIAL / f"deleted-{step}"
                doomed.parent.mkdir(exist_ok=True)
                self.checkpoint(step).rename(doomed)
                shutil.rmtree(doomed)

    def prune(self, best: int | None, limit: int | None) -> None:
        """Keep so many checkpoints, the last and the best among them; None keeps all."""
        steps = self.steps()
        spare = [step for step in steps[:-1] if step != best]
        excess = 0 if limit is None else len(steps) - max(limit, 1)
        self.delete(spare[: max(excess, 0)])

    def result(self) -> dict[str, Any] | None:
        """What `finish` wrote, or None where the run is not at its end."""
        found: dict[str, Any] | None = _read(self.path / _RESULT)
        return found

    def finish(self, result: dict[str, Any]) -> None:
        """Note that the run is at its end."""
        _write(self.path / _RESULT, result)


def _difference(known: dict[str, Any], mine: dict[str, Any]) -> str:
    """In which parts two runs differ, and in which of their settings, with both values."""
    told = []
    for name in sorted(known.keys() | mine.keys()):
        theirs, ours = known.get(name), mine.get(name)
        if isinstance(theirs, dict) and isinstance(ours, dict):
            keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
            told += [f"{key} {theirs.get(key)!r}, here {ours.get(key)!r}" for key in keys]
        elif theirs != ours:
            told.append(f"other {name}")
    return "; ".join(told)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None


def _write(file: Path, value: Any) -> None:
    """Write JSON so that the file is the old one or the new one, at any moment."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1), "utf-8")
    _sync(partial)
    partial.replace(file)


def _sync(file: Path) -> None:
    opened = os.open(file, os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
