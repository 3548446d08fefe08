"""Tests of the write-ahead spool and of shipping it: once, whole, whoever dies and whatever is full."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_world import ROOT

from perennial.serving.log import spool as spool_module
from perennial.serving.log.entries import Entry
from perennial.serving.log.shipper import SHADOW, Shipper
from perennial.serving.log.spool import Spool, read_segment
from perennial.state.store import Store


def entry(*ids: str, role: str = "champion", own: bool = False, version: int = 1) -> Entry:
    return Entry(
        role=role, version=version, at_us=time.time_ns() // 1000, latency_us=250, own_ids=own, ids=list(ids),
        scores=[0.25] * len(ids), times=None, groups=["control"] * len(ids), control_share=0.1, columns=["a", "c"],
        rows=[[float("nan"), "red"] for _ in ids],
    )  # fmt: skip


def shipper_of(spool: Spool, store: Store, tmp_path: Path, **changes: Any) -> Shipper:
    return Shipper(
        spool, store, tmp_path / "locks", **{"ship_seconds": 30.0, "ship_rows": 1000, "compact_commits": 50} | changes
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "tables"))


def logged(store: Store, model: str = "m") -> list[str]:
    found: list[str] = store.read(model, "predictions", columns=["id"])["id"].to_pylist()
    return sorted(found)


def test_what_is_spooled_is_shipped_once_with_its_facts(tmp_path: Path, store: Store) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    shipper = shipper_of(spool, store, tmp_path)
    assert spool.append("m", entry("a", "b"), 2)
    assert spool.append("m", entry("c"), 1)
    spool.seal()

    assert shipper.ship() == 3
    assert shipper.ship() == 0
    rows = store.read("m", "predictions").to_pylist()
    assert logged(store) == ["a", "b", "c"]
    assert rows[0]["group"] == "control"
    assert rows[0]["propensity"] == pytest.approx(0.1)
    assert rows[0]["latency_ms"] == pytest.approx(0.25)
    assert json.loads(rows[0]["inputs"]) == {"a": None, "c": "red"}
    assert spool.used_bytes == 0
    spool.close()
    assert not list((tmp_path / "spool").iterdir())


def test_a_segment_shipped_again_after_a_crash_adds_nothing(tmp_path: Path, store: Store) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    spool.append("m", entry("a"), 1)
    spool.seal()
    (path,) = spool.sealed()
    content = path.read_bytes()
    shipper_of(spool, store, tmp_path).ship()
    path.write_bytes(content)  # killed between the commit and the removal

    shipper_of(spool, store, tmp_path).ship()
    assert logged(store) == ["a"]
    assert not path.exists()


def test_of_an_id_given_twice_the_first_counts_and_shadows_are_apart(tmp_path: Path, store: Store) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    shipper = shipper_of(spool, store, tmp_path)
    spool.append("m", entry("a", own=True), 1)
    spool.append("m", entry("a", own=True, role=SHADOW, version=2), 1)
    spool.seal()
    shipper.ship()
    spool.append("m", entry("a", "b", own=True, version=3), 2)
    spool.append("m", entry("b", own=True, version=4), 1)
    spool.seal()
    shipper.ship()

    rows = store.read("m", "predictions").to_pylist()
    assert {row["id"]: row["version"] for row in rows} == {"a": 1, "b": 3}
    assert len(rows) == 2
    assert logged(store, f"m/{SHADOW}") == ["a"]


def test_what_is_dropped_as_a_repeat_is_counted_and_other_inputs_are_told(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    spool, counted = Spool(tmp_path / "spool", 10**6), []
    shipper = shipper_of(spool, store, tmp_path, on_repeated=lambda *found: counted.append(found))
    other = entry("a", "b", own=True)
    other.rows[0] = [2.5, "red"]
    for item in (entry("a", own=True), entry("a", own=True), other):
        spool.append("m", item, len(item.ids))
    spool.seal()
    assert shipper.ship() == 2  # what was written, not what came
    spool.append("m", entry("a", "c", own=True), 2)
    spool.seal()
    assert shipper.ship() == 1

    assert logged(store) == ["a", "b", "c"]
    assert counted == [("m", 1, 1), ("m", 1, 0)]
    (told,) = [record for record in caplog.records if "other inputs" in record.message]
    assert told.facts == {"model": "m", "rows": 1, "ids": ["a"]}


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_torn_end_loses_only_what_was_never_answered(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "s.jsonl"
    lines = [msgspec.json.encode(entry(name)) + b"\n" for name in "abc"]
    data = b"".join(lines)[:cut]
    path.write_bytes(data)

    entries, torn = read_segment(path)
    whole = data.count(b"\n")
    assert [item[5] for item in entries] == [[name] for name in "abc"[:whole]]
    assert torn == int(bool(data) and not data.endswith(b"\n"))


def test_a_full_spool_sheds_says_so_and_recovers(tmp_path: Path, store: Store) -> None:
    spool = Spool(tmp_path / "spool", 1000)
    taken = [spool.append("m", entry(str(number)), 1) for number in range(20)]

    assert taken[0]
    assert not taken[-1]
    assert spool.shed_rows == taken.count(False)
    assert "bound" in spool.failing
    spool.seal()
    shipper_of(spool, store, tmp_path).ship()
    assert len(logged(store)) == taken.count(True)
    assert spool.append("m", entry("later"), 1)
    assert not spool.failing


@pytest.mark.parametrize("written", ["nothing", "a part"])
def test_a_full_disk_leaves_no_half_line(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    spool.append("m", entry("a"), 1)
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if written == "nothing":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:20])

    monkeypatch.setattr(spool_module.os, "write", full)
    assert not spool.append("m", entry("b"), 1)
    assert "space" in spool.failing.lower()
    monkeypatch.undo()
    assert spool.append("m", entry("c"), 1)
    spool.seal()
    shipper_of(spool, store, tmp_path).ship()
    assert logged(store) == ["a", "c"]


def test_a_start_on_a_full_disk_sheds_until_there_is_room(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    spool = Spool(tmp_path / "spool", 10**6)
    assert not spool.append("m", entry("a"), 1)
    assert (spool.shed_rows, "No space" in spool.failing) == (1, True)
    spool.close()
    monkeypatch.undo()
    spool._claim_at = 0.0
    assert spool.append("m", entry("b"), 1)
    assert not spool.failing
    spool.seal()
    shipper_of(spool, store, tmp_path).ship()
    assert logged(store) == ["b"]


@pytest.mark.parametrize("limit", ["disk", "bound"])
def test_room_is_noticed_without_anybody_writing(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    spool = Spool(tmp_path / "spool", 10**6 if limit == "disk" else 200)
    spool.append("m", entry("a"), 1)
    spool.seal()

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if limit == "disk":
        monkeypatch.setattr(spool_module.os, "write", full)
        monkeypatch.setattr(spool_module.tempfile, "TemporaryFile", full)
    assert not spool.append("m", entry("b"), 1)
    spool.recheck()
    assert spool.failing
    monkeypatch.undo()
    shipper_of(spool, store, tmp_path).ship()
    spool.recheck()
    assert (spool.failing, spool.shed_rows) == ("", 1)
    assert spool.append("m", entry("c"), 1)
    assert not list((tmp_path / "spool").glob(".*"))


def test_what_can_t_be_sealed_is_written_on_and_sealed_later(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    spool.append("m", entry("a"), 1)

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    spool.seal()
    assert "No space" in spool.failing
    monkeypatch.undo()
    assert spool.append("m", entry("b"), 1)
    assert spool.sealed() == []
    spool.seal()
    shipper_of(spool, store, tmp_path).ship()
    assert logged(store) == ["a", "b"]


@pytest.mark.parametrize("part", ["everything", "a segment"])
def test_a_spool_that_somebody_removed_is_told_and_begun_anew(tmp_path: Path, store: Store, part: str) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    spool.append("m", entry("lost", "too"), 2)
    shutil.rmtree(tmp_path / "spool" if part == "everything" else spool.folder / "m")
    spool.seal()
    assert "was removed" in spool.failing
    assert spool.shed_rows == 2
    spool.recheck()
    assert not spool.failing

    assert spool.append("m", entry("kept"), 1)
    other = Spool(tmp_path / "spool", 10**6)
    assert shipper_of(other, store, tmp_path).ship() == 0  # its owner lives: hands off
    spool.seal()
    shipper_of(spool, store, tmp_path).ship()
    assert logged(store) == ["kept"]


def test_an_unreachable_table_keeps_the_spool_and_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "tables"
    blocked.write_text("a file where the folder should be")
    spool = Spool(tmp_path / "spool", 10**6)
    shipper = shipper_of(spool, Store(str(blocked)), tmp_path)
    spool.append("m", entry("a"), 1)
    spool.seal()

    assert shipper.ship() == 0
    assert shipper.failing
    blocked.unlink()
    assert shipper.ship() == 1
    assert not shipper.failing
    assert logged(Store(str(blocked))) == ["a"]


CHILD = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
import msgspec
from perennial.serving.log.spool import Spool
spool = Spool(Path({folder!r}), 10**9)
number = 0
while True:
    now = time.time_ns() // 1000
    spool.append("m", ["champion", 1, now, 1, False, [f"k{{number}}"], [0.5], None, None, 0.0, ["a"], [[1.0]]], 1)
    print(f"k{{number}}", flush=True)
    number += 1
"""


@pytest.mark.process
def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path, store: Store) -> None:
    code = CHILD.format(root=str(ROOT), folder=str(tmp_path / "spool"))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    answered = [child.stdout.readline().strip() for _ in range(500)]
    living = Spool(tmp_path / "spool", 10**6)
    shipper = shipper_of(living, store, tmp_path)
    assert shipper.ship() == 0  # its owner lives: hands off
    child.send_signal(signal.SIGKILL)
    answered += [line.strip() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()

    shipper.ship()
    found = logged(store)
    assert set(answered) <= set(found)
    assert len(found) == len(set(found))
    shipper.ship()
    assert [folder.name for folder in (tmp_path / "spool").iterdir()] == [living.owner]


def test_nothing_is_lost_between_writing_and_shipping(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", 10**8)
    shipper = shipper_of(spool, store, tmp_path)
    real_glob, late = Path.glob, iter(range(1000))

    def glob_while_writing(self: Path, pattern: str) -> Any:
        """Somebody writes just before and just after the files are listed."""
        if self == spool.folder:
            spool.append("m", entry(f"before-{next(late)}"), 1)
            found = list(real_glob(self, pattern))
            spool.append("m", entry(f"after-{next(late)}"), 1)
            return iter(found)
        return real_glob(self, pattern)

    monkeypatch.setattr(Path, "glob", glob_while_writing)
    for _ in range(5):
        shipper.ship()
        spool.append("m", entry(f"between-{next(late)}"), 1)
        spool.seal()
    monkeypatch.undo()
    spool.seal()
    shipper.ship()
    assert len(logged(store)) == next(late)


def test_two_processes_may_find_the_same_orphan(tmp_path: Path, store: Store) -> None:
    dead = Spool(tmp_path / "spool", 10**6)
    for number in range(50):
        dead.append("m", entry(f"d{number}"), 1)
    dead.seal()
    dead._own.release()
    finders = [Spool(tmp_path / "spool", 10**6) for _ in range(3)]
    shippers = [shipper_of(finder, store, tmp_path) for finder in finders]
    threads = [threading.Thread(target=shipper.ship) for shipper in shippers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert logged(store) == sorted(f"d{number}" for number in range(50))


def test_the_thread_ships_by_rows_and_at_the_end_and_merges_small_files(tmp_path: Path, store: Store) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    shipper = shipper_of(spool, store, tmp_path, ship_seconds=0.05, compact_commits=3)
    shipper.start()
    for number in range(6):
        spool.append("m", entry(f"n{number}"), 1)
        before = time.monotonic()
        while len(logged(store)) <= number and time.monotonic() < before + 10:
            time.sleep(0.05)
    spool.append("m", entry("last"), 1)
    shipper.stop()

    assert "last" in logged(store)
    files = list((tmp_path / "tables" / "m" / "predictions").glob("*.parquet"))
    from deltalake import DeltaTable

    assert len(DeltaTable(str(tmp_path / "tables" / "m" / "predictions")).file_uris()) < len(files)
