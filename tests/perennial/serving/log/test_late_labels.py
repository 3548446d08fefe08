"""Tests of late truth on its way to the table: once, corrected, and kept for a while where the id is unknown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_spool import entry

from perennial.serving.log.labels import LabelDesk
from perennial.serving.log.spool import Spool
from perennial.serving.log.waiting import Label
from perennial.state.store import Store

HOUR_US = 3_600_000_000


class Desk:
    """A desk with its spools and table."""

    def __init__(self, root: Path) -> None:
        self.store = Store(str(root / "tables"))
        self.predictions = Spool(root / "predictions", 10**6)
        self.spool = Spool(root / "labels", 10**6)
        self.expired: list[tuple[str, int]] = []
        self.desk = LabelDesk(
            self.spool, self.predictions, self.store, root / "locks", 2.0, lambda *facts: self.expired.append(facts)
        )

    def tell(self, name: str, truth: float, at_us: int | None = None) -> list[str]:
        label = Label(name, truth, time.time_ns() // 1000 if at_us is None else at_us, "test")
        self.desk.keep("m", [label])
        unknown: list[str] = self.desk.receipt("m", [label], self.desk.look_up("m", [label]))["unknown"]
        return unknown

    def ship(self) -> int:
        self.desk._look_at = 0.0
        return self.desk.ship()

    def table(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.store.read("m", "labels").sort_by("labelled_at").to_pylist()
        return rows


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_truth_of_an_unknown_id_waits_until_it_is_predicted(desk: Desk) -> None:
    at_us = time.time_ns() // 1000 - HOUR_US
    assert desk.tell("early", 1.0, at_us) == ["early"]
    assert desk.ship() == 0
    assert (desk.table(), desk.desk.waiting("m")) == ([], 1)

    desk.predictions.append("m", entry("early"), 1)
    assert desk.tell("early", 1.0, at_us) == []
    assert desk.ship() == 1
    assert desk.ship() == 0
    (row,) = desk.table()
    assert (row["id"], row["truth"], row["labelled_at"].timestamp()) == ("early", 1.0, at_us / 1e6)
    assert desk.desk.waiting("m") == 0
    assert desk.spool.used_bytes == 0


def test_an_ingested_row_is_known_without_a_prediction(desk: Desk) -> None:
    desk.tell("row", 0.0)
    desk.ship()
    at = pd.Timestamp("2026-01-01", tz="UTC")
    batch = pd.DataFrame({"_batch_id": ["b"], "_id": ["row"], "_time": [at], "_ingested_at": [at]})
    desk.store.append("m", "batches", batch)
    assert desk.tell("row", 0.0) == []
    assert desk.ship() == 1


def test_what_stays_unknown_is_given_up_in_time_and_counted(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    now = time.time_ns() // 1000
    desk.tell("ghost", 1.0, now - 2 * HOUR_US - 1_000_000)
    desk.tell("late", 1.0, now - 2 * HOUR_US + 60_000_000)
    desk.ship()

    assert desk.expired == [("m", 1)]
    assert desk.desk.waiting("m") == 1
    assert "given up" in caplog.text
    desk.desk.look_through("m", now + 3 * HOUR_US)
    assert desk.expired == [("m", 1), ("m", 1)]
    assert desk.desk.waiting("m") == 0
    assert desk.table() == []
    assert not list((desk.spool.root / ".waiting" / "m").iterdir())


def test_corrections_of_what_waits_and_of_what_is_known(desk: Desk) -> None:
    at_us = time.time_ns() // 1000 - HOUR_US
    desk.tell("x", 0.0, at_us)
    desk.ship()
    desk.tell("x", 1.0, at_us + 1000)
    desk.ship()
    desk.predictions.append("m", entry("x"), 1)
    assert desk.ship() == 2  # each step stays
    assert [row["truth"] for row in desk.table()] == [0.0, 1.0]
    desk.tell("x", 0.0, at_us + 2000)
    desk.tell("x", 0.0, at_us + 3000)
    desk.ship()
    desk.tell("x", 1.0, at_us + 1500)  # older than what the table says by now
    desk.ship()
    assert [row["truth"] for row in desk.table()] == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_dying_in_between_neither_loses_nor_doubles(desk: Desk, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    desk.predictions.append("m", entry("known"), 1)
    desk.tell("known", 1.0)
    desk.tell("early", 0.0)
    real = desk.store.append

    def dying(*arguments: Any, **options: Any) -> Any:
        if when == "after the commit":
            real(*arguments, **options)
        raise OSError("killed")

    monkeypatch.setattr(desk.store, "append", dying)
    assert desk.ship() == 0
    assert "killed" in desk.desk.failing
    monkeypatch.undo()
    desk.predictions.append("m", entry("early"), 1)
    desk.ship()
    desk.ship()
    assert sorted((row["id"], row["truth"]) for row in desk.table()) == [("early", 0.0), ("known", 1.0)]
    assert desk.desk.waiting("m") == 0


def test_labels_are_kept_where_the_tables_are_away(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where the folder should be")
    desk = Desk(tmp_path)
    desk.predictions.append("m", entry("x"), 1)
    assert desk.tell("x", 1.0) == []
    assert desk.ship() == 0
    assert desk.desk.failing
    (tmp_path / "tables").unlink()
    assert desk.ship() == 1
    assert not desk.desk.failing


def test_an_id_that_can_t_be_looked_up_is_no_standing_fault(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*arguments: Any, **options: Any) -> None:
        raise OSError("the storage is away")

    monkeypatch.setattr(desk.store, "read", away)
    assert desk.tell("x", 1.0) == ["x"]
    assert "can't be looked up" in caplog.text
    assert not desk.desk.failing  # a worker that only takes labels would say so for ever
    monkeypatch.undo()
    desk.predictions.append("m", entry("x"), 1)
    assert desk.ship() == 1


def test_waiting_labels_count_towards_the_spools_bound(desk: Desk) -> None:
    for number in range(20):
        desk.tell(f"ghost-{number}", 1.0)
    desk.ship()
    held = desk.spool.used_bytes
    assert held > 20 * len('["ghost-1",1.0,')
    full = Spool(desk.spool.root, held + 10)
    assert not full.append("m", [["another", 1.0, 0, "test"]], 1)
