"""Tests of our transformers: the parts of moments, whatever they are held in."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given
from hypothesis import strategies as st

from perennial.model.cells.moments import MISSING, moment
from perennial.model.transformers import DATE_PARTS, TRUSTED_TYPES, DateParts, date_parts


def parts_of(text: str, timezone: str = "UTC") -> dict[str, float]:
    return dict(zip(DATE_PARTS, date_parts(np.array([moment(text)]), timezone)[0].tolist(), strict=True))


def test_parts_are_those_of_the_calendar_also_before_1970() -> None:
    late = parts_of("1969-12-28T18:00Z")  # a Sunday
    assert [late[name] for name in ("days", "month", "day", "weekday", "hour")] == [-3.25, 12, 28, 6, 18]
    assert (late["hour_sin"], late["hour_cos"]) == (-1, 0)
    assert parts_of("2024-02-29")["day"] == 29
    near, far = parts_of("2025-12-31T23:59"), parts_of("2026-01-01T00:01")
    for cycle in ("hour", "year"):  # the two ends of a circle lie side by side
        assert abs(near[f"{cycle}_cos"] - far[f"{cycle}_cos"]) < 1e-3
        assert abs(near[f"{cycle}_sin"] - far[f"{cycle}_sin"]) < 0.02


def test_hours_are_told_by_the_clocks_of_the_zone_and_days_pass_alike() -> None:
    winter, summer = parts_of("2024-03-31T00:30Z", "Europe/Rome"), parts_of("2024-03-31T01:30Z", "Europe/Rome")
    assert (winter["hour"], summer["hour"]) == (1.5, 3.5)  # the clocks went on between them
    assert summer["days"] - winter["days"] == pytest.approx(1 / 24)
    autumn = [parts_of(f"2024-10-27T0{hour}:30Z", "Europe/Rome")["hour"] for hour in (0, 1)]
    assert autumn == [2.5, 2.5]
    assert parts_of("2024-01-01T23:30Z", "Asia/Tokyo")["day"] == 2


@given(
    st.lists(st.datetimes(pd.Timestamp("1800-01-01"), pd.Timestamp("2200-01-01")) | st.none(), min_size=1, max_size=5)
)
def test_parts_do_not_depend_on_what_holds_the_moments(times: list[Any]) -> None:
    naive = pd.DataFrame(
        {"a": pd.Series(times, dtype="datetime64[us]"), "b": pd.Series(times[::-1], dtype="datetime64[us]")}
    )
    transformer = DateParts(timezone="America/New_York").fit(naive)
    wanted = transformer.transform(naive)
    assert wanted.shape == (len(times), 2 * len(DATE_PARTS))
    aware = naive.apply(lambda column: column.dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata"))
    counted = np.stack([naive[name].to_numpy().astype(np.int64) for name in naive], axis=1)
    for other in (aware, counted, naive.to_numpy()):
        np.testing.assert_array_equal(transformer.transform(other), wanted)
    missing = np.array([time is None for time in times])
    assert np.isnan(wanted[missing][:, : len(DATE_PARTS)]).all()
    assert np.isfinite(wanted[~missing][:, : len(DATE_PARTS)]).all()
    one_by_one = np.concatenate([transformer.transform(counted[row : row + 1]) for row in range(len(times))])
    np.testing.assert_array_equal(one_by_one, wanted)


def test_a_stored_transformer_is_named_by_its_address_and_loads() -> None:
    frame = pd.DataFrame({"seen": pd.Series(["2024-01-01"], dtype="datetime64[us]")})
    stored = skops.io.dumps(DateParts("Europe/Rome").fit(frame))
    assert skops.io.get_untrusted_types(data=stored) == ["perennial.transformers.DateParts"]
    loaded = skops.io.load(io.BytesIO(stored), trusted=list(TRUSTED_TYPES))
    np.testing.assert_array_equal(loaded.transform(frame), DateParts("Europe/Rome").fit(frame).transform(frame))
    assert loaded.get_feature_names_out(["seen"])[0] == "seen_days"
    assert np.datetime64("NaT").astype(np.int64) == MISSING
