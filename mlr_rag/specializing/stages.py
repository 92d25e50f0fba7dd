"""The stages of a run, each done once: what one gives is kept under a hash of all that it depends on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from mlr_rag import __version__
from mlr_rag.specializing.precision import HalfPrecisionVectors
from mlr_rag.training.cache import content_key
from mlr_rag.training.teachers.scores import ScoreCache

T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """A stage that is done.

    Attributes:
        name: The stage.
        key: Equal where all that it depends on is; what comes after it depends on that.
        value: What it gave.
        seconds: How long it took, now or when it was done.
        reused: Whether it had been done before.
    """

    name: str
    key: str
    value: T
    seconds: float
    reused: bool


class Workspace:
    """A folder of stages and caches, which several runs may share: they then share what they have in common.

    The folder holds queries, passages that a test shows, ids, numbers, vectors, weights and a language model's replies:
    it is not for passing on. A process that is killed loses the stage that it was in, less what the caches and the
    trainer's checkpoints keep of it.

    Args:
        folder: Made where it is missing.
        listen: Called with the name of each stage as it begins.
    """

    def __init__(self, folder: Path, listen: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self._listen = folder, listen
        self.vectors = HalfPrecisionVectors(folder / "vectors.sqlite")
        self.scores = ScoreCache(folder / "scores.sqlite")
        self.done: list[Done[Any]] = []

    def stage(self, name: str, depends: list[Any], kind: type[T] | Any, work: Callable[[], T]) -> Done[T]:
        """What the stage gives: of an earlier process, or of `work`, called now.

        Args:
            name: Of the stage.
            depends: Everything that its value depends on, as JSON values.
            kind: The type of its value, which pydantic writes as JSON and reads.
            work: Gives it.
        """
        key = _key(name, depends)
        file = self.folder / "stages" / f"{name.replace(' ', '-')}-{key}.json"
        self._listen(name)
        kept = TypeAdapter(_Kept[kind])  # type: ignore[valid-type]
        found = _read(file, kept)
        reused = found is not None
        if found is None:
            started = time.perf_counter()
            value = work()
            _write(file, kept.dump_json(_Kept(round(time.perf_counter() - started, 3), value)))
            found = kept.validate_json(file.read_bytes())  # the first time as well, so that both times are alike
        done = Done(name, key, found.value, found.seconds, reused)
        self.done.append(done)
        return done

    def kept(self, name: str, kind: type[T] | Any) -> list[T]:
        """What the stage gave with whatever it depended on, in no order."""
        adapter = TypeAdapter(_Kept[kind])  # type: ignore[valid-type]
        found = (_read(file, adapter) for file in (self.folder / "stages").glob(f"{name.replace(' ', '-')}-*.json"))
        return [each.value for each in found if each is not None]

    def forget(self, name: str) -> None:
        """Have the stage done again next time, whatever it depends on."""
        for file in (self.folder / "stages").glob(f"{name.replace(' ', '-')}-*.json"):
            file.unlink()

    def run_folder(self, name: str, depends: list[Any]) -> Path:
        """Where a training run keeps its checkpoints."""
        return self.folder / "runs" / f"{name}-{_key(name, depends)}"

    def delete(self, run_folder: Path) -> None:
        """Delete a run's checkpoints, when what they led to is kept; half of them would be refused as another's."""
        doomed = run_folder.with_name(f"deleted-{run_folder.name}")
        if run_folder.exists():
            shutil.rmtree(doomed, ignore_errors=True)
            run_folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def close(self) -> None:
        """Let go of the caches; may be called twice."""
        self.vectors.close()
        self.scores.close()


@dataclass(frozen=True)
class _Kept(Generic[T]):
    seconds: float
    value: T


def _key(name: str, depends: list[Any]) -> str:
    return content_key(__version__, name, json.dumps(depends, sort_keys=True)).hex()[:20]


def _read(file: Path, kept: TypeAdapter[Any]) -> Any:
    """What the stage gave; None where it was not done, or a power failure has left nothing legible."""
    try:
        return kept.validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")  # the folder is locked: no other run is in the same stage
    with partial.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(file)
