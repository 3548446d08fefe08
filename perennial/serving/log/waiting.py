"""Truth of ids that nobody knows yet: on disk until the id is known or its time is over. Looks nothing up itself.

A model's labels lie in a few small files, each replaced as a whole. Doubles are harmless: a step that says nothing
new is left out when it is appended.
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


class Label(msgspec.Struct, array_like=True, frozen=True):
    """One truth as the spool holds it; no truth takes back what was said of the id."""

    id: str
    truth: float | None
    at_us: int
    author: str


_decode = msgspec.json.Decoder(list[Label]).decode


def new_steps(before: Iterable[Label], labels: Iterable[Label]) -> list[Label]:
    """The labels that say something: another truth than the step before them of that id, or another author's word.

    Args:
        before: All that was said of these ids so far.
        labels: What is said now; of one moment, what is given later comes later.
    """
    found: list[Label] = []
    last: dict[str, float | None] = {}
    said: dict[tuple[str, str], float | None] = {}
    steps = [(label.at_us, 0, label) for label in before] + [(label.at_us, 1, label) for label in labels]
    later = {(label.id, label.author, label.truth): label.at_us for label in before}  # it came first by another way
    for _, given, label in sorted(steps, key=lambda step: step[:2]):
        known = label.id in last and last[label.id] == label.truth
        confirms = known and (label.author == "api" or said.get((label.id, label.author), ...) == label.truth)
        repeats = label.id not in last and later.get((label.id, label.author, label.truth), -1) >= label.at_us
        nothing_to_take_back = label.truth is None and last.get(label.id) is None
        if given and (confirms or repeats or nothing_to_take_back):
            continue
        if given:
            found.append(label)
        last[label.id] = said[label.id, label.author] = label.truth
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

    def all(self, model: str) -> tuple[list[Path], list[Label]]:
        """The files, and what they hold, each label once."""
        paths = sorted((self._root / model).glob(f"*{_SUFFIX}"))
        return paths, list(dict.fromkeys(label for path in paths for label in _decode(path.read_bytes())))

    def replace(self, model: str, paths: Iterable[Path], labels: Iterable[Label]) -> None:
        """Let these labels be what the files held."""
        self.add(model, labels)
        for path in paths:
            path.unlink(missing_ok=True)
