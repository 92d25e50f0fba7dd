"""What stores in folders share: the path, a lock that keeps other processes out, and room on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from mlr_rag.errors import InvalidInputError, StoreError, StoreFullError, StoreLockedError

SPARE_BYTES = 64 << 20  # engines grow memory-mapped files by as much; a full disk would kill the process
FREE_SOME = "Free some space and run the same command again; what was written is kept."


def resolved(path: Path) -> Path:
    """The absolute path.

    Raises:
        InvalidInputError: it can be none.
    """
    try:
        path = path.expanduser().resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as problem:
        raise InvalidInputError(f"not a path: {problem}", found=str(path)[:80], expected="a folder's path") from None
    return path


def lock_folder(path: Path, file: str, remedy: str) -> FileLock:
    """The lock of a folder, held; the system frees it, even after kill -9. The folder is made where there is none.

    Raises:
        StoreLockedError: another process holds it.
        StoreError: this user may not write there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / file, thread_local=False)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreLockedError(
            f"another process has {path} open", expected="one process at a time, readers included", remedy=remedy
        ) from None
    except OSError as problem:
        raise StoreError(
            f"cannot write to {path}",
            found=problem.strerror or problem,
            expected="a folder that this user may write to",
        ) from problem
    return lock


def check_space(path: Path, size: int = 0) -> None:
    """Refuse to open or to write where the disk has no room for `size` bytes and some to spare.

    Raises:
        StoreFullError: before anything was touched.
    """
    free, needed = shutil.disk_usage(path).free, SPARE_BYTES + size
    if free < needed:
        raise StoreFullError(
            f"no room on the disk for {path}",
            found=f"{free / 2**20:.0f} MiB free",
            expected=f"{needed / 2**20:.0f} MiB",
            remedy=FREE_SOME,
        )
