"""Files of this machine alone: small ones written whole or not at all, and locks between its processes.

A lock is the operating system's (a locked file), so a killed process can't leave one behind. For what several machines
share see leases.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from perennial.errors import ConflictError


def write_whole(path: Path, content: str) -> None:
    """Put a file in place of what was there: on the disk before it gets its name, so that no torn one can have it.

    Raises:
        OSError: It could not be written; what was there is as it was.
    """
    staged = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with staged.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Bring a folder's files to the disk, before it is renamed to where it will be believed."""
    for path in sorted(folder.rglob("*"), reverse=True):
        _sync(path)
    _sync(folder)


@contextmanager
def exclusive(folder: Path, name: str, *, wait_seconds: float, busy: str) -> Iterator[None]:
    """Hold the lock `name` while the body runs.

    Raises:
        ConflictError: Somebody holds it for longer than `wait_seconds`; `busy` says what they are doing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise ConflictError(busy, "Wait for it to end, then try again") from None
    try:
        yield
    finally:
        lock.release()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
