"""Truth of ids that nobody knows yet: on disk until the id is known or its time is over. Looks nothing up itself.

A model's labels lie in a few small files, each replaced as a whole. Doubles are harmless: of an id the newest counts.
They lie within the labels' spool, so that its bound holds for them too, under a name that no owner has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

_FOLDER = ".waiting"
_SUFFIX = ".jsonl"
_encode = msgspec.json.Encoder().encode


class Label(msgspec.Struct, array_like=True):
    """One truth as the spool holds it."""

    id: str
    truth: float
    at_us: int
    author: str


_decode = msgspec.json.Decoder(list[Label]).decode


def newest(labels: Iterable[Label]) -> dict[str, Label]:
    """Of each id the label that was given last."""
    found: dict[str, Label] = {}
    for label in labels:
        if label.id not in found or found[label.id].at_us <= label.at_us:
            found[label.id] = label
    return found


class WaitingLabels:
    """The waiting labels of all models. Whoever changes a model's holds that model's lock.

    Args:
        spool_root: The labels' spool.
    """

    def __init__(self, spool_root: Path) -> None:
        self._root = spool_root / _FOLDER

    def models(self) -> list[str]:
        return sorted(path.name for path in self._root.iterdir()) if self._root.is_dir() else []

    def add(self, model: str, labels: Iterable[Label]) -> None:
        """Keep labels beside those that wait already."""
        if kept := list(labels):
            folder = self._root / model
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{time.time_ns():x}-{os.getpid()}{_SUFFIX}"
            staged = path.with_suffix(".tmp")
            staged.write_bytes(_encode(kept))
            staged.replace(path)

    def all(self, model: str) -> tuple[list[Path], dict[str, Label]]:
        """The files, and of each id the newest label."""
        paths = sorted((self._root / model).glob(f"*{_SUFFIX}"))
        return paths, newest(label for path in paths for label in _decode(path.read_bytes()))

    def replace(self, model: str, paths: Iterable[Path], labels: Iterable[Label]) -> None:
        """Let these labels be what the files held."""
        self.add(model, labels)
        for path in paths:
            path.unlink(missing_ok=True)
