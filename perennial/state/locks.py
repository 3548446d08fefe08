"""Locks between processes of one machine, over what that machine alone holds: spool, cache. For more see leases.py.

A lock is the operating system's (a locked file under HOME/locks), so a killed process can't leave one behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from perennial.errors import ConflictError


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
