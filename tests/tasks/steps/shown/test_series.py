"""Statistics as a frame: what each check kept, of before too; periods of windows that do not overlap."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from perennial.series.statistics import SHOWN
from perennial.workspace import Workspace
from tasks.measures.statistics import of_numbers, to_row
from tasks.steps.shown.series import side_by_side, statistics_series

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY, WEEK = timedelta(days=1), timedelta(days=7)


def values(day: int) -> np.ndarray:
    return np.random.default_rng(day).normal(day / 10, 1, 200)


@pytest.fixture
def checked_daily(workspace: Workspace) -> Workspace:
    """Checks on 28 days, each of a week."""
    for day in range(7, 36):
        window = np.concatenate([values(each) for each in range(day - 7, day)])
        end = START + day * DAY
        row = {"decision_id": f"d{day}", "start": end - WEEK, "end": end, "version": 1, "column": "a"} | to_row(
            of_numbers(window, rows=len(window) + 10, missing=10, unseen=3)
        )
        workspace.store.append("m", "column_statistics", pd.DataFrame([row]))
    return workspace


def test_each_check_is_a_row(checked_daily: Workspace) -> None:
    frame = statistics_series(checked_daily.store, "m")
    assert list(frame.columns) == list(SHOWN)
    assert len(frame) == 29
    assert (frame["missing_share"] == 10 / 1410).all()
    assert frame["end"].is_monotonic_increasing


def test_a_period_counts_each_row_once(checked_daily: Workspace) -> None:
    (month,) = statistics_series(checked_daily.store, "m", column="a", every=28 * DAY).tail(1).to_dict("records")
    rows = np.concatenate([values(day) for day in range(7, 35)])
    assert month["windows"] == 4
    assert (month["start"], month["end"]) == (START + 7 * DAY, START + 35 * DAY)
    assert month["rows"] == len(rows) + 40
    assert month["mean"] == pytest.approx(rows.mean())
    assert month["deviation"] == pytest.approx(rows.std(ddof=1))
    assert np.mean(rows < month["median"]) == pytest.approx(0.5, abs=0.03)
    assert month["low"] == rows.min()


def test_side_by_side_takes_the_newest_first() -> None:
    ends = np.array([3, 4, 5, 6, 8])
    assert side_by_side(ends - 2, ends).tolist() == [False, True, False, True, True]


def test_what_checks_kept_before_is_read(checked_daily: Workspace) -> None:
    profile = {"rows": 100, "columns": {"a": [0.1, 0.05, 0.0, [1, 2, 3, 4, 5]], "b": [0.0, 0.0, 0.5, []]}}
    row = {"block": START - 2 * WEEK, "profile_key": "v7:old", "recorded_at": START - WEEK,
           "profile": json.dumps(profile)}  # fmt: skip
    checked_daily.store.append("m", "statistics", pd.DataFrame([row]))
    frame = statistics_series(checked_daily.store, "m")
    assert len(frame) == 31
    first = frame[frame["column"] == "a"].iloc[0]
    assert (first["version"], first["missing"], first["median"], first["top"]) == (7, 10, 3.0, {})
    assert np.isnan(first["mean"])
    assert frame[frame["column"] == "b"]["kind"].tolist() == ["categorical"]


def test_nothing_is_an_empty_frame(workspace: Workspace) -> None:
    assert list(statistics_series(workspace.store, "m").columns) == list(SHOWN)
    assert len(statistics_series(workspace.store, "m", every=WEEK)) == 0
