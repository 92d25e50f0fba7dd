"""What an edge collection asks of the file system: files that are replaced whole, copies, and what is on the disk."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from mlr_rag.errors import StoreError, StoreFullError
from mlr_rag.folders import FREE_SOME

_ZEROS = bytes(1 << 18)
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def unlock(lock: FileLock, remove: bool = False) -> None:
    """Free the lock; `remove` leaves neither its file nor, if that is empty now, its folder."""
    file = Path(lock.lock_file)
    if remove:
        with suppress(OSError):  # Windows removes it when it is released
            file.unlink()
    lock.release()
    if remove:
        with suppress(OSError):  # something of the user's is in it
            file.parent.rmdir()


def copy_folder(source: Path, target: Path) -> None:
    """A copy that takes no more room than the files do: the engine makes its own far larger than what is in them."""
    shutil.copytree(source, target, copy_function=_copy_sparse)


def _copy_sparse(source: str, target: str) -> None:
    with Path(source).open("rb") as old, Path(target).open("wb") as new:
        while chunk := old.read(len(_ZEROS)):
            if chunk == _ZEROS:
                new.seek(len(chunk), os.SEEK_CUR)
            else:
                new.write(chunk)
        new.truncate()


def replace_file(file: Path, text: str) -> None:
    """Write a file durably: whatever stops it, the file is the old or the new one, whole.

    Raises:
        StoreFullError: the disk has no room for it.
        StoreError: it cannot be written for another reason.
    """
    fresh = file.with_name(f"{file.name}.new")
    try:
        with fresh.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(file)
        _sync(file.parent)
    except OSError as problem:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        found = problem.strerror or str(problem)
        if problem.errno in _FULL:
            raise StoreFullError(f"no room on the disk for {file}", found=found, remedy=FREE_SOME) from problem
        raise StoreError(
            f"cannot write {file}",
            found=found,
            expected="a file that this user may replace, on a disk that works",
            remedy="Check its folder's permissions and the disk, and run the same command again.",
        ) from problem


def sync_folder(folder: Path) -> None:
    """Make a folder and all in it last through a power cut: the engine leaves much of that to the system."""
    for item in [*folder.rglob("*"), folder, folder.parent]:
        _sync(item)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # which cannot open a folder to sync it
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows syncs only what may be written to
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
