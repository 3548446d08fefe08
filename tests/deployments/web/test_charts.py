"""Tests of the pictures' geometry: nothing leaves its panel, ticks are round and few, unknown values break lines."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.web.known.glance import Point, read_points
from deployments.web.shown.charts import LEFT, WIDTH, TimeScale, ValueScale, band, line, sparkline, steps
from deployments.web.shown.pictures import stretch

VALUES = st.lists(st.none() | st.floats(-1e9, 1e9), min_size=1, max_size=30)
MOMENTS = st.lists(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)), min_size=1, max_size=20
)


@settings(deadline=None)
@given(MOMENTS)
def test_moments_stay_in_the_picture_and_their_ticks_are_few(moments: list[datetime]) -> None:
    scale = TimeScale.of(moments)
    places = [scale.place(moment) for moment in sorted(moments)]
    assert all(LEFT <= place <= WIDTH for place in places)
    assert places == sorted(places)
    ticks = scale.ticks()
    assert len(ticks) <= 21
    assert all(LEFT <= tick.place <= WIDTH for tick in ticks)
    assert [tick.place for tick in ticks] == sorted({tick.place for tick in ticks})


def test_ticks_are_round_moments() -> None:
    start = datetime(2013, 2, 3, tzinfo=UTC)
    told = {
        days: [tick.text for tick in TimeScale(start, start + timedelta(days=days)).ticks()] for days in (1, 10, 365)
    }
    assert told[1] == ["3 Feb", "06:00", "12:00", "18:00", "4 Feb"]
    assert told[10] == ["4 Feb", "6 Feb", "8 Feb", "10 Feb", "12 Feb"]
    assert told[365] == ["Mar", "May", "Jul", "Sep", "Nov", "2014"]


@settings(deadline=None)
@given(VALUES)
def test_values_stay_in_their_panel(values: list[float | None]) -> None:
    scale = ValueScale.of(values, 10, 110)
    assert all(10 <= scale.place(value) <= 110 for value in values if value is not None)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7
    assert len({tick.text for tick in ticks}) == len(ticks)


@settings(deadline=None)
@given(VALUES)
def test_a_line_has_a_point_for_each_known_value_and_a_gap_for_each_unknown(values: list[float | None]) -> None:
    scale = ValueScale.of(values, 0, 100)
    across = [float(place) for place in range(len(values))]
    path = line(across, values, scale)
    known = [value is not None for value in values]
    assert len(re.findall("[ML]", path)) == sum(known)
    runs = sum(now and not before for now, before in zip(known, [False, *known], strict=False))
    assert path.count("M") == runs
    assert steps(across, values, scale).count("M") == runs


def test_a_check_after_a_long_silence_does_not_flatten_the_story() -> None:
    start = datetime(2013, 1, 1, tzinfo=UTC)
    weekly = [point(start + timedelta(weeks=number)) for number in range(12)]
    late = [point(start + timedelta(days=3000)), point(start + timedelta(days=3007))]
    assert stretch(weekly) == (weekly, ())
    assert stretch([*weekly, *late]) == (weekly, late)
    # As soon as there are more of them, they are the story.
    more = [point(start + timedelta(days=3000 + 7 * number)) for number in range(6)]
    assert stretch([*weekly, *more]) == ([*weekly, *more], ())


def point(at: datetime) -> Point:
    body = {"decision_id": str(at), "as_of": at.isoformat(), "verdict": "hold", "champion_version": "1"}
    return read_points([("decision", json.dumps(body))])[0][0]


def test_unknown_and_infinite_values_draw_nothing() -> None:
    scale = ValueScale.of([0.0, 1.0], 0, 100)
    assert line([0, 1, 2], [math.nan, math.inf, None], scale) == ""
    assert band([0, 1], [None, 0.2], [0.5, None], scale) == ""
    assert band([5], [0.0], [1.0], scale).count("L") == 3  # a check alone has a bar
    assert sparkline([0.3, None]) == ""
    assert sparkline([0.3, 0.3]).startswith("M2,")
