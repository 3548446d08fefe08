"""Tests of what a worker knows of the process that ships."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from test_spool import entry

from perennial.serving import shipping
from perennial.serving.shipping import Sealer, SharedSpool, write_status
from perennial.serving.spool import Spool


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
    monkeypatch.setattr(shipping.time, "time", lambda: now + 80)
    assert sealer._heard() == ""
    monkeypatch.setattr(shipping.time, "time", lambda: now + 100)
    assert sealer._heard().startswith("the shipping process has been silent for ")


def test_what_another_run_left_behind_is_not_taken_for_the_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(shipping.time, "time", lambda: now - 3600)
    write_status(tmp_path / "shipper.json", "the table is away")
    monkeypatch.undo()
    assert Sealer((), tmp_path / "shipper.json", ship_seconds=30.0, ship_rows=1000)._heard() == ""


def test_a_status_that_can_t_be_written_is_no_fault_of_shipping(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_status(tmp_path / "file" / "shipper.json", "")
