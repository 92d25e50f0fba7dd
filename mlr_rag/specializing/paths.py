"""Judgments that name a file, or a passage of it, by a path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from mlr_rag.reading import root_of

Files: TypeAlias = Mapping[str, Mapping[str, list[str]]]  # path within its root → file → the ids of its passages


class Paths:
    """What a path means in a corpus.

    Args:
        files: Those that the corpus was read from. A path that several roots have names none of them.
        place: The folder or file that the corpus is, if it is one: ids are without the folder (see `folders_of`).
    """

    def __init__(self, files: Files, place: Path | None = None) -> None:
        self._passages = {file: ids for same in files.values() for file, ids in same.items()}
        for path, same in files.items():
            if len(same) == 1:
                self._passages.setdefault(path, *same.values())
        self._folders = () if place is None else folders_of(place)

    def passages(self, path: str) -> list[str]:
        """The ids of a file's passages, by its path in its root, from where we are, or absolute; none of no file."""
        return next((self._passages[name] for name in (path, *self.names(path)) if name in self._passages), [])

    def names(self, path: str) -> list[str]:
        """What an absolute path, or one from where we are, may be in the corpus: a file, or the id of a passage."""
        absolute = _absolute(path)
        return [absolute, *(absolute.removeprefix(folder) for folder in self._folders)]


def folders_of(place: Path) -> tuple[str, str]:
    """The folder that the files of a corpus are in, with a slash: as their ids have it, and as it was given."""
    found = (Path(root_of(place)), Path(_absolute(place)))
    one, other = (f"{(each.parent if place.is_file() else each).as_posix()}/" for each in found)
    return one, other


def _absolute(path: str | Path) -> str:
    """Without a look at the disk: links stay, and what is no path is none."""
    return os.path.normpath(Path.cwd() / path)
