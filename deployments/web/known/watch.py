"""Keeps every model's glance in memory, reads again what has changed, and tells whoever listens. It renders nothing.

A thread looks at the tables' versions; pages read what it left and wait for nothing. What it saw last stays when a
table can't be read, with the reason beside it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from deployments.web.known.glance import Glance, read_points
from deployments.web.known.neighbours import Neighbours
from perennial.definition import ModelDefinition
from perennial.errors import PerennialError
from perennial.review.desk import Desk
from perennial.state.registry import Registry
from perennial.state.store import Store
from perennial.workspace import Workspace

TABLES = ("decisions", "history", "figures", "quarantine", "quarantine_states", "receipts", "reviews")
_REST = 4.0
_log = logging.getLogger("perennial.web")


@dataclass
class _Known:
    stamp: tuple[object, ...]
    glance: Glance


@dataclass
class Watcher:
    """What is known of all models now.

    Args:
        workspace: Of this installation.
        neighbours: Prefect and MLflow, asked in the same round.
        pause_seconds: Between two rounds.
        clock: The moment of now, by which reviews expire.
    """

    workspace: Workspace
    neighbours: Neighbours
    pause_seconds: float = 1.0
    clock: Callable[[], datetime] = field(kw_only=True)
    glances: dict[str, Glance] = field(default_factory=dict, init=False)
    reading: bool = field(default=True, init=False)
    generation: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._stop, self._look = threading.Event(), threading.Event()
        self._rounds, self._begun, self._ended = threading.Condition(), 0, 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._look.set()
        if self._thread:
            self._thread.join(10)

    def look_now(self, patience_seconds: float = 0.0) -> bool:
        """Let the next round begin at once: somebody has just changed something.

        Args:
            patience_seconds: How long to wait for a whole round that began after this call.

        Returns:
            Whether that round is over, so that what was changed before this call is known.
        """
        with self._rounds:
            wanted = self._begun + 1
            self._look.set()
            return self._rounds.wait_for(lambda: self._ended >= wanted, patience_seconds)

    def listen(self) -> asyncio.Event:
        """An event that is set, in the caller's loop, whenever something changed; end it by `leave`."""
        event = asyncio.Event()
        with self._lock:
            self._listeners.add((asyncio.get_running_loop(), event))
        return event

    def leave(self, event: asyncio.Event) -> None:
        with self._lock:
            self._listeners = {pair for pair in self._listeners if pair[1] is not event}

    def look(self) -> bool:
        """One round over all models and neighbours; whether anything changed."""
        files = self.workspace.files()
        names = sorted(files)
        changed = [self._look_at(name, files[name]) for name in names]
        gone = set(self._known) - set(names)
        for name in gone:
            del self._known[name]
        if any(changed) or gone:
            self.glances = {name: self._known[name].glance for name in names}
        told = self.neighbours.look(names)
        return any(changed) or bool(gone) or told

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._rounds:
                self._look.clear()
                self._begun += 1
            began = time.monotonic()
            try:
                changed = self.look()
            except PerennialError as error:
                _log.warning("the models can't be looked at: %s", error)
                changed = False
            except Exception:  # noqa: BLE001 - it is logged whole, and the next round looks again
                _log.exception("the models can't be looked at")
                changed = False
            with self._rounds:
                self._ended = self._begun
                self._rounds.notify_all()
            if changed or self.reading:
                self.reading = False
                self._tell()
            # Where the tables are far away, a round is long: they are left alone for most of the time.
            self._look.wait(max(self.pause_seconds, _REST * (time.monotonic() - began)))

    def _tell(self) -> None:
        self.generation += 1
        with self._lock:
            listeners = list(self._listeners)
        for loop, event in listeners:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def _look_at(self, model: str, file: Path) -> bool:
        known = self._known.get(model)
        stamp: tuple[object, ...] = (_file_stamp(file),)
        try:
            stamp += tuple(table_stamp(self.workspace.store, model, name) for name in TABLES)
            if known and known.stamp == stamp:
                return False
            glance = read_glance(self.workspace, self.workspace.definition(model), self.clock())
        except PerennialError as error:
            stamp += (str(error),)
            if known and known.stamp == stamp:
                return False
            glance = replace(known.glance if known else Glance(model), problem=str(error))
        self._known[model] = _Known(stamp, glance)
        return True


def read_glance(workspace: Workspace, definition: ModelDefinition, now: datetime) -> Glance:
    """A model's glance from its tables."""
    store, model = workspace.store, definition.name
    rows = store.read(model, "decisions", columns=["kind", "body"])
    points, loss = read_points(zip(rows["kind"].to_pylist(), rows["body"].to_pylist(), strict=True))
    return Glance(
        model,
        description=definition.description,
        task=definition.task,
        reigns=tuple(_history(workspace.registry, model)),
        points=points,
        loss=loss,
        label_delay=definition.data.label_delay,
        window=definition.monitoring.window,
        quarantined=_quarantined(store, definition),
        reviews=_reviews(store, definition, now),
        schedule=definition.monitoring.schedule,
    )


def _history(registry: Registry, model: str) -> list:  # type: ignore[type-arg]
    return registry.history(model)


def _reviews(store: Store, definition: ModelDefinition, now: datetime) -> int | None:
    """How many rows wait for a person's answer."""
    if not definition.review.per_day:
        return None
    return sum(item.waits for item in Desk(store, definition, None).recent(now).values())


def _quarantined(store: Store, definition: ModelDefinition) -> int:
    if store.version(definition.name, "quarantine") is None:
        return 0
    from tasks.intake.quarantine import OPEN, entries

    return int((entries(store, definition)["state"] == OPEN).sum())


def _file_stamp(file: Path) -> object:
    """Something that differs when the file does: to read a hundred definitions each second would be work."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def table_stamp(store: Store, model: str, table: str) -> object:
    """Something that differs when the table does: of a folder the newest moment of its log, else its version."""
    location = store.location(model, table)
    if "://" in location:
        return store.version(model, table)
    try:
        return (Path(location) / "_delta_log").stat().st_mtime_ns
    except FileNotFoundError:
        return None
