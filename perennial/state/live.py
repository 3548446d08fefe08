"""Manifests: which version serves a model, and where its files are. Written by the registry, followed by the API.

On one machine a manifest is a file in HOME/live. Where the tables are shared (PERENNIAL_TABLES), it is published in
the table `live` as well, and every API brings its own files in line with that: no folder need be shared.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from perennial.errors import StorageError
from perennial.state.files import write_whole
from perennial.state.layout import stamp_home
from perennial.state.store import Store


def write_manifest(folder: Path, model: str, text: str) -> bool:
    """Put a manifest into HOME/live, where the API looks, by one rename; whether it differs from what was there.

    Raises:
        StorageError: It could not be written, as on a full disk; the one before it is as it was.
    """
    if not folder.exists():
        stamp_home(folder.parent)  # before there is anything in it: without a record it would be an old home
        folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{model}.json"
    if final.exists() and final.read_bytes() == text.encode():
        return False
    try:
        write_whole(final, text)
    except OSError as error:
        raise StorageError(
            f"{final} can't be written: {error.strerror}; the API goes on with the version before",
            f"Make room there; `perennial check {model}` writes it again",
        ) from error
    return True


def publish_manifest(store: Store, model: str, text: str, sequence: int) -> None:
    """Append a manifest to the shared tables, unless it is the one that counts there already."""
    if _counting(store, model) == (sequence, text):
        return
    row = {"published_at": [datetime.now(UTC)], "sequence": [sequence], "manifest": [text]}
    store.append(model, "live", pd.DataFrame(row))


class Follower:
    """Brings the manifests of one home in line with the shared tables."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._seen: dict[str, int] = {}

    def follow(self, model: str) -> bool:
        """Look once; whether the model's manifest changed here. One that is torn or gone is written again."""
        version = self._store.version(model, "live")
        if version is None or (self._seen.get(model) == version and self._sequence(model)):
            return False
        found = _counting(self._store, model)
        changed = found is not None and found[0] >= self._sequence(model)
        changed = changed and write_manifest(self._folder, model, found[1])  # type: ignore[index]
        self._seen[model] = version
        return changed

    def _sequence(self, model: str) -> int:
        """How far this home is: a command on this machine may have been quicker than the table."""
        try:
            here: Any = json.loads((self._folder / f"{model}.json").read_text(encoding="utf-8"))
            return int(here["sequence"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0


def _counting(store: Store, model: str) -> tuple[int, str] | None:
    frame = store.frame(model, "live")
    if frame.empty:
        return None
    newest = frame.sort_values(["sequence", "published_at"], kind="stable").iloc[-1]
    return int(newest["sequence"]), str(newest["manifest"])
