"""Tests of what a worker knows of the process that ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_spool import entry, logged

from perennial.serving.log import sealer as sealing
from perennial.serving.log.sealer import Sealer
from perennial.serving.log.spool import Spool
from perennial.serving.processes.shipping import SharedSpool, write_status
from perennial.settings import Settings
from perennial.state.layout import RECORD, migrate, require
from perennial.workspace import Workspace


def test_a_worker_seals_in_time_and_tells_what_the_shipper_says(tmp_path: Path) -> None:
    spool, status, ticks = Spool(tmp_path / "spool", 10**6), tmp_path / "shipper.json", [0]
    sealer = Sealer((spool,), status, ship_seconds=0.05, ship_rows=1000, tick=lambda: ticks.append(1))
    spool.append("m", entry("a"), 1)
    assert SharedSpool(spool.root).sealed() == []
    sealer.start()
    write_status(status, "the table is away")
    until = time.monotonic() + 10
    while not (SharedSpool(spool.root).sealed() and sealer.failing and len(ticks) > 2):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert sealer.failing == "the table is away"
    write_status(status, "")
    while sealer.failing:
        assert time.monotonic() < until
        time.sleep(0.01)
    sealer.stop()


def test_a_silent_shipper_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealer = Sealer((), tmp_path / "shipper.json", ship_seconds=30.0, ship_rows=1000)
    assert sealer._heard() == ""
    now = time.time()
    write_status(tmp_path / "shipper.json", "")
    monkeypatch.setattr(sealing.time, "time", lambda: now + 80)
    assert sealer._heard() == ""
    monkeypatch.setattr(sealing.time, "time", lambda: now + 100)
    assert sealer._heard().startswith("the shipping process has been silent for ")


def test_what_another_run_left_behind_is_not_taken_for_the_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(sealing.time, "time", lambda: now - 3600)
    write_status(tmp_path / "shipper.json", "the table is away")
    monkeypatch.undo()
    assert Sealer((), tmp_path / "shipper.json", ship_seconds=30.0, ship_rows=1000)._heard() == ""


def test_a_status_that_can_t_be_written_is_no_fault_of_shipping(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not write_status(tmp_path / "file" / "shipper.json", "")


@contextmanager
def shipping_process(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real one, as the watcher starts it."""
    metrics = home / "metrics"
    metrics.mkdir(parents=True)
    environment = {
        "PERENNIAL_HOME": str(home), "PERENNIAL_SERVING_SHIP_SECONDS": "0.2",
        shipping_variables()[0]: str(metrics), shipping_variables()[1]: str(os.getpid()),
    }  # fmt: skip
    command = [sys.executable, "-m", "perennial.serving.processes.shipping"]
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(120) == 0


def shipping_variables() -> tuple[str, str]:
    from perennial.serving.settings import METRICS_VARIABLE, PARENT_VARIABLE

    return METRICS_VARIABLE, PARENT_VARIABLE


@pytest.mark.process
def test_tables_of_another_layout_are_left_alone_until_they_are_migrated(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    (settings.home_path / "live").mkdir(parents=True)
    old = Workspace(settings, checked=True).store
    spool = Spool(settings.home_path / "serving" / "spool", 10**6)
    spool.append("m", entry("a"), 1)
    spool.seal()
    status = settings.home_path / "serving" / "shipper.json"
    with shipping_process(settings.home_path):
        until = time.monotonic() + 20
        while not (status.exists() and "run: perennial migrate" in json.loads(status.read_text())["failing"]):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert logged(old) == []
        list(migrate(settings))
        while logged(old) != ["a"] or json.loads(status.read_text())["failing"]:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.process
def test_the_first_rows_of_all_come_with_the_layouts_record(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    spool = Spool(settings.home_path / "serving" / "spool", 10**6)
    spool.append("m", entry("a"), 1)
    spool.close()
    until = time.monotonic() + 20
    with shipping_process(settings.home_path):
        while not (settings.home_path / "serving" / "shipper.json").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
    assert (Path(settings.tables_root) / RECORD).is_file()
    require(settings)
    assert logged(Workspace(settings).store) == ["a"]
