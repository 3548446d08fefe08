"""Small files that are there whole or not at all, whenever the power goes or the disk is full. It knows no content."""

from __future__ import annotations

import os
from pathlib import Path


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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
