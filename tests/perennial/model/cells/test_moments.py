"""Tests of moments: one reading by cell and by column, nothing guessed, the calendar before 1970 included."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.model.cells.moments import MISSING, moment, moment_column, moment_rule, moment_text, moments

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])
AWARE = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=ZONES)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31 06:00", "2026-01-31T06:00:00Z"),
        (
            "2024-03-31T02:30:00+02:00",
            "2024-03-31T00:30:00Z",
        ),  # no such hour in Rome: the offset says when
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ("0001-01-01", "0001-01-01T00:00:00Z"),
        (date(1961, 4, 12), "1961-04-12T00:00:00Z"),
        (pd.Timestamp("1969-12-31T23:59:59.999999999"), "1969-12-31T23:59:59.999999Z"),
        (np.datetime64("1969-12-31T23:59:59.999999999"), "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_dates_and_times_are_read(cell: Any, text: str) -> None:
    found = moment(cell)
    assert found is not None
    assert moment_text(found) == text
    assert moment(moment_text(found)) == found


@pytest.mark.parametrize(
    "cell",
    ["now", "today", "01/02/2026", "20260131", "2026-02-30", "2026-01-31T24:00", "2026-01-31T06:00+25:00", "2026",
     1700000000, 1.7e9, "1700000000", True, timedelta(1), b"2026-01-31", "0000-01-01", "0001-01-01T00:00+05:00"],
)  # fmt: skip
def test_what_may_be_read_in_two_ways_is_no_moment(cell: Any) -> None:
    assert moment(cell) is None
    assert moments(pd.Series([cell], dtype=object))[1].tolist() == [True]


def test_numbers_are_moments_of_the_unit_that_was_told() -> None:
    assert moment(1700000000, "s") == moment("1700000000", "s") == moment(1700000000000, "ms") == 1700000000000000
    assert moment(-1.5, "ms") == -1500
    assert moment(-1, "ns") == -1  # cut off towards the past, as times of nanoseconds are
    assert moment(1700000000123456789, "ns") == 1700000000123456
    assert moment(np.inf, "s") is None
    assert moment(10**18, "s") is None
    assert moment("2026-01-31", "s") == moment("2026-01-31")
    assert "epoch_units" in moment_rule(None, "seen")
    assert "ms" in moment_rule("ms", "seen")


@given(st.lists(AWARE | st.none(), min_size=1, max_size=6), st.sampled_from(["s", "ms", "us", "ns"]))
def test_every_road_of_a_moment_ends_at_one_number(times: list[datetime | None], unit: str) -> None:
    whole = [None if time is None else time.replace(microsecond=0) for time in times]
    wanted = [MISSING if time is None else (time - EPOCH) // timedelta(microseconds=1) for time in whole]
    held = pd.Series(pd.to_datetime(whole, utc=True)).dt.as_unit(unit)
    texts = pd.Series([None if time is None else time.isoformat() for time in whole], dtype="str")
    per = {"s": 1_000_000, "ms": 1000, "us": 1}
    counts = [None if cell == MISSING else cell * 1000 if unit == "ns" else cell // per[unit] for cell in wanted]
    roads = [held, held.dt.tz_localize(None), pd.Series(whole, dtype=object), texts, held.astype(object)]
    for road in roads:
        found, wrong = moments(road)
        assert found.tolist() == wanted
        assert not wrong.any()
    for numbers in (pd.Series(counts, dtype=object), pd.Series(counts, dtype="Int64")):
        assert moments(numbers, unit)[0].tolist() == wanted
    assert moment_column(texts).dtype == "datetime64[us, UTC]"


def test_a_column_with_a_cell_that_is_none_stays_for_whoever_points_at_it() -> None:
    column = moment_column(pd.Series(["2026-01-31", "soon"]))
    assert column.tolist() == ["2026-01-31", "soon"]
    far = pd.Series(np.array([2**60], dtype="datetime64[us]"))  # the year 38505, which no text of ours can write
    assert moments(far)[1].tolist() == [True]
