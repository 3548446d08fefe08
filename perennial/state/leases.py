"""Leases: one holder of a name at a time, on any number of machines, over any storage. No waiting policy, no tables.

A lease is a row of numbered objects below ROOT/_perennial/leases/NAME; the highest number counts. To take, renew or
give back is to create the next number, which the storage lets only one do (the same guarantee that commits rest on).

No two clocks are ever compared to take a lease over: a contender does so only after *it has watched* the same number
stand for the lease's whole time by its own monotonic clock, and a holder counts itself out after that time without a
renewal, by its own. So clocks may differ by any amount. They only decide how patient a contender is: where the last
renewal looks fresh it gives up after its own wait, where it looks old (or in the future) it watches to the end.
A dead process of the same machine is replaced at once.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from perennial.errors import ConflictError, StorageError
from perennial.state.storage import Objects, dump

LOG = logging.getLogger("perennial.leases")
FOLDER = "_perennial/leases"
_KEPT = 8
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
# A contender waits this much longer than the holder dares to go on: clocks' rates differ a little.
_MARGIN = 1.1


@dataclass(frozen=True)
class Record:
    """One number of a lease.

    Attributes:
        sequence: Its number; only the highest counts.
        held: Whether it is held, or was given back.
        holder: Names this holding alone.
        host, machine, pid, started: Which process holds it: for people, and to see on its own machine that it died.
        renewed_at: By the holder's clock.
        seconds: How long it holds without a renewal.
    """

    sequence: int
    held: bool
    holder: str
    host: str
    machine: str
    pid: int
    started: str
    renewed_at: str
    seconds: float

    def age_seconds(self, now: datetime) -> float:
        """Since the renewal, by two machines' clocks."""
        return (now - datetime.fromisoformat(self.renewed_at)).total_seconds()

    def dead_here(self) -> bool:
        """Whether its process ran on this machine and is gone."""
        return self.machine == machine() and process_start(self.pid) != self.started


class Lease:
    """A held lease, renewed by a thread."""

    def __init__(self, row: _Row, record: Record, since: float) -> None:
        self._row, self._record, self._since = row, record, since
        self._lost = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="perennial-lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Go on only as the holder: to be called before what must not be done twice.

        Raises:
            ConflictError: It was not renewed in time (the storage or this process stood still), or was taken over.
        """
        if not self._lost and time.monotonic() - self._since > self._record.seconds:
            self._lost = f"was not renewed for {self._record.seconds:g} s"
        if self._lost:
            raise ConflictError(
                f"the lease {self._row.name} {self._lost}: another may be at work", "Nothing is lost: run it again"
            )

    def release(self) -> None:
        """Give it back; where that fails it runs out by itself."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            with suppress(StorageError):
                self._row.add(replace(self._record, sequence=self._record.sequence + 1, held=False))

    def _renew(self) -> None:
        pause = self._record.seconds / 4
        while not self._stop.wait(pause):
            began = time.monotonic()
            renewed = replace(
                self._record, sequence=self._record.sequence + 1, renewed_at=datetime.now(UTC).isoformat()
            )
            try:
                kept = self._row.add(renewed) or self._row.holds(renewed)
            except StorageError as error:
                LOG.warning("the lease %s can't be renewed: %s", self._row.name, error.problem)
                pause = min(1.0, self._record.seconds / 8)
                if began - self._since > self._record.seconds:
                    return
                continue
            if not kept:
                self._lost = "was taken over"
                return
            self._record, self._since, pause = renewed, began, self._record.seconds / 4


@contextmanager
def hold(
    objects: Objects, name: str, *, wait_seconds: float, busy: str, lease_seconds: float = 60.0,
    wall: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Lease]:  # fmt: skip
    """Hold the lease `name` while the body runs.

    Args:
        wait_seconds: How long to wait for a holder that is at work.
        busy: Says what the holder does, for the error.
        lease_seconds: How long it holds without a renewal; it is renewed four times as often.
        wall: The clock that is written down for people, and asked whether a renewal looks old.

    Raises:
        ConflictError: Another holds it for longer than that.
        StorageError: The storage did not answer.
    """
    row = _Row(objects, name)
    record, since = _acquire(row, wait_seconds, busy, lease_seconds, wall)
    lease = Lease(row, record, since)
    try:
        yield lease
    finally:
        lease.release()


def held(objects: Objects) -> dict[str, Record]:
    """Every lease that somebody holds, or held and never gave back, by name."""
    found = {name: _Row(objects, name).newest() for name in objects.folders(FOLDER)}
    return {name: record for name, record in found.items() if record is not None and record.held}


class _Row:
    """The numbered objects of one lease."""

    def __init__(self, objects: Objects, name: str) -> None:
        self.name = name
        self._objects = objects

    def newest(self) -> Record | None:
        for _ in range(10):
            entries = self._objects.entries(f"{FOLDER}/{self.name}")
            if not entries:
                return None
            content = self._objects.get(entries[-1].name)
            if content is not None:
                return Record(**json.loads(content))
        raise StorageError(f"the lease {self.name} moves too quickly to be read", "Try again")

    def add(self, record: Record) -> bool:
        """Create the record's number, and be the highest; False where somebody else is."""
        if not self._objects.create(self._object(record.sequence), dump(asdict(record))):
            return False
        entries = self._objects.entries(f"{FOLDER}/{self.name}")
        # The highest is never removed: who, late, fills a gap below it sees here that it came too late.
        if entries and entries[-1].name != self._object(record.sequence):
            return False
        for entry in entries[:-_KEPT]:
            with suppress(StorageError):
                self._objects.delete(entry.name)
        return True

    def holds(self, record: Record) -> bool:
        """Whether the number that is there already is this record's: the storage's answer may have been lost."""
        newest = self.newest()
        return newest is not None and (newest.holder, newest.sequence) == (record.holder, record.sequence)

    def _object(self, sequence: int) -> str:
        return f"{FOLDER}/{self.name}/{sequence:020d}.json"


def _acquire(
    row: _Row, wait_seconds: float, busy: str, lease_seconds: float, wall: Callable[[], datetime]
) -> tuple[Record, float]:
    deadline = time.monotonic() + wait_seconds
    watched, watched_since, alive, pause = -1, 0.0, False, _FIRST_PAUSE_SECONDS
    while True:
        began, newest = time.monotonic(), row.newest()
        now = time.monotonic()
        if newest is not None and newest.sequence != watched:
            alive = alive or watched >= 0
            watched, watched_since = newest.sequence, now
        if _is_free(newest, now - watched_since):
            began = time.monotonic()
            mine = _record((newest.sequence if newest else 0) + 1, lease_seconds, wall())
            if row.add(mine) or row.holds(mine):
                return mine, began
            continue  # somebody was quicker: look again
        assert newest is not None
        looks_old = not -2 <= newest.age_seconds(wall()) <= newest.seconds / 2
        watch_until = watched_since + newest.seconds * _MARGIN if looks_old and not alive else 0.0
        if began > max(deadline, watch_until):
            raise ConflictError(
                f"{busy} by process {newest.pid} on {newest.host}", "Wait for it to end, then try again"
            )
        time.sleep(max(0.01, min(pause, max(deadline, watch_until) - now + 0.01)))
        pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)


def _is_free(newest: Record | None, watched_seconds: float) -> bool:
    if newest is None or not newest.held or newest.dead_here():
        return True
    return watched_seconds >= newest.seconds * _MARGIN


def _record(sequence: int, seconds: float, now: datetime) -> Record:
    return Record(
        sequence, True, uuid.uuid4().hex, socket.gethostname(), machine(), os.getpid(), process_start(os.getpid()),
        now.isoformat(), seconds,
    )  # fmt: skip


@cache
def machine() -> str:
    """Names the machine since its start, and the container in it: within it, process ids mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{platform.node()}/{uuid.getnode():x}"


def process_start(pid: int) -> str:
    """When a process of this machine started, in a form that no clock change touches; empty where there is none."""
    try:
        # The name, in parentheses, may hold anything: count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.NoSuchProcess:
        return ""
