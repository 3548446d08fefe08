"""Leases hold off any other process on any machine, whatever the clocks say, and outlive nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perennial.errors import ConflictError, StorageError
from perennial.settings import PROJECT_ROOT
from perennial.state import leases
from perennial.state.leases import FOLDER, Lease, Record, held, hold
from perennial.state.storage import Entry, Objects, dump

pytestmark = pytest.mark.waits
BUSY = "m is being retrained"
HOLD = """
import sys, time
from perennial.state.leases import hold
from perennial.state.storage import Objects
with hold(Objects(sys.argv[1]), "m", wait_seconds=5, busy="busy", lease_seconds=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def objects(tables_root: str) -> Objects:
    return Objects(tables_root)


def take(objects: Objects, wait_seconds: float = 0.0, lease_seconds: float = 2.0) -> None:
    with hold(objects, "m", wait_seconds=wait_seconds, busy=BUSY, lease_seconds=lease_seconds):
        pass


def newest(objects: Objects) -> Record:
    content = objects.get(objects.entries(f"{FOLDER}/m")[-1].name)
    assert content
    return Record(**json.loads(content))


def write(objects: Objects, record: Record) -> None:
    assert objects.create(f"{FOLDER}/m/{record.sequence:020d}.json", dump(asdict(record)))


def elsewhere(sequence: int = 1, *, seconds: float = 1.0, renewed: timedelta = timedelta()) -> Record:
    """A holding of another machine, whose clock differs from ours by `renewed`."""
    at = (datetime.now(UTC) + renewed).isoformat()
    return Record(sequence, True, f"other-{sequence}", "otherhost", "another boot", 4711, "1", at, seconds)


def test_one_holder_at_a_time(objects: Objects) -> None:
    with hold(objects, "m", wait_seconds=0, busy=BUSY) as lease:
        lease.require()
        assert set(held(objects)) == {"m"}
        with pytest.raises(ConflictError, match=rf"{BUSY} by process {os.getpid()} on .*\. Wait for it to end"):
            take(objects)
        with hold(objects, "other", wait_seconds=0, busy="busy"):
            pass
    assert held(objects) == {}
    take(objects)


def test_many_at_once_are_one_after_the_other(objects: Objects) -> None:
    inside, most = [], []

    def work(number: int) -> None:
        with hold(objects, "m", wait_seconds=60, busy=BUSY, lease_seconds=5):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert most == [1] * 8


def test_free_after_an_error(objects: Objects) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), hold(objects, "m", wait_seconds=0, busy=BUSY):
            _ = 1 / 0


@pytest.mark.process
@pytest.mark.parametrize("machine", ["this", "another"])
def test_a_killed_holder_is_replaced(machine: str, tmp_path: Path) -> None:
    objects = Objects(str(tmp_path))
    lease_seconds = 60.0 if machine == "this" else 2.0
    command = [sys.executable, "-c", HOLD, str(tmp_path), str(lease_seconds)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConflictError):
            take(objects)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    if machine == "another":  # nobody here can see that its process is gone: it must be watched
        write(objects, replace(newest(objects), sequence=newest(objects).sequence + 1, machine="another boot"))
    started = time.monotonic()
    take(objects, wait_seconds=30)
    waited = time.monotonic() - started
    assert waited < 2 if machine == "this" else 2 <= waited < 10


def test_it_is_renewed_as_long_as_it_is_held(objects: Objects) -> None:
    with hold(objects, "m", wait_seconds=0, busy=BUSY, lease_seconds=2) as lease:
        first = newest(objects).sequence
        # Longer than the lease's time: without renewals it would be free.
        with pytest.raises(ConflictError):
            take(objects, wait_seconds=3)
        lease.require()
        assert newest(objects).sequence > first + 2
    assert len(objects.entries(f"{FOLDER}/m")) <= leases._KEPT + 1


def at_once(work: Callable[[float], None], hours: list[float]) -> None:
    """For each clock at the same time, as each only waits."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(work, hours))


def test_a_living_holder_is_left_alone_whatever_its_clock_says(tmp_path: Path) -> None:
    def watch(hours: float) -> None:
        objects, skew = Objects(str(tmp_path / str(hours))), timedelta(hours=hours)
        stop = threading.Event()

        def live() -> None:
            sequence = 1
            while not stop.is_set():
                write(objects, elsewhere(sequence, renewed=skew))
                sequence += 1
                stop.wait(0.25)

        thread = threading.Thread(target=live)
        thread.start()
        time.sleep(0.1)
        try:
            # Twice the time after which a dead one is replaced.
            with pytest.raises(ConflictError, match=rf"{BUSY} by process 4711 on otherhost"):
                take(objects, wait_seconds=2.2)
        finally:
            stop.set()
            thread.join()

    at_once(watch, [-24.0, 0.0, 24.0])


def test_a_dead_holder_elsewhere_is_replaced_after_a_look(tmp_path: Path) -> None:
    def watch(hours: float) -> None:
        objects, patient = Objects(str(tmp_path / str(hours))), hours != 0
        write(objects, elsewhere(renewed=timedelta(hours=hours)))
        if not patient:  # it looks as if it were at work: who doesn't want to wait is told so
            with pytest.raises(ConflictError):
                take(objects, wait_seconds=0)
        started = time.monotonic()
        take(objects, wait_seconds=0 if patient else 5)
        assert time.monotonic() - started >= 1, "its time was not watched to the end"

    at_once(watch, [-24.0, 0.0, 24.0])


def test_a_holder_that_stood_still_knows_that_it_lost_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease, "_renew", lambda self: None)
    objects = Objects(str(tmp_path))
    with hold(objects, "m", wait_seconds=0, busy=BUSY, lease_seconds=0.3) as lease:
        lease.require()
        time.sleep(0.35)
        with pytest.raises(ConflictError, match=r"lease m was not renewed for 0.3 s: another may be at work. Nothing"):
            lease.require()


def test_a_holder_that_was_taken_over_knows_it(tmp_path: Path) -> None:
    objects = Objects(str(tmp_path))
    with hold(objects, "m", wait_seconds=0, busy=BUSY, lease_seconds=1) as lease:
        write(objects, elsewhere(newest(objects).sequence + 1))
        deadline = time.monotonic() + 5
        while not lease._lost and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(ConflictError, match=r"the lease m was taken over"):
            lease.require()
    assert newest(objects).holder.startswith("other"), "what is another's was not given back"


def test_who_fills_a_gap_too_late_does_not_hold_it(tmp_path: Path) -> None:
    objects = Objects(str(tmp_path))
    write(objects, elsewhere(20))
    row = leases._Row(objects, "m")
    assert not row.add(replace(elsewhere(5), holder="late"))
    assert newest(objects).sequence == 20


class Flaky(Objects):
    """Creates, and then says that it did not: a lost answer that was sent again."""

    def create(self, name: str, content: bytes) -> bool:
        super().create(name, content)
        return False


def test_a_lost_answer_costs_nothing(tmp_path: Path) -> None:
    objects = Flaky(str(tmp_path))
    with hold(objects, "m", wait_seconds=0, busy=BUSY, lease_seconds=2) as lease:
        first, deadline = newest(objects).sequence, time.monotonic() + 20
        while newest(objects).sequence < first + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert newest(objects).sequence >= first + 2, "it was not renewed"
        lease.require()


def test_a_storage_that_fails_ends_the_lease_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(str(tmp_path))
    away = False
    entries: Callable[[str], list[Entry]] = objects.entries

    def fail(prefix: str = "") -> list[Entry]:
        if away:
            raise StorageError("the storage is away")
        return entries(prefix)

    monkeypatch.setattr(objects, "entries", fail)
    with hold(objects, "m", wait_seconds=0, busy=BUSY, lease_seconds=1) as lease:
        away = True
        time.sleep(0.6)
        lease.require()  # short absences are ridden out
        time.sleep(0.6)
        with pytest.raises(ConflictError, match="was not renewed"):
            lease.require()


def test_a_process_id_that_came_back_is_not_the_holder() -> None:
    started = leases.process_start(os.getpid())
    mine = replace(elsewhere(), machine=leases.machine(), pid=os.getpid(), started=started)
    assert started
    assert not mine.dead_here()
    assert replace(mine, started="1").dead_here()
    assert not replace(mine, started="1", machine="another boot").dead_here()
