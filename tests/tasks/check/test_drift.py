"""Drift's alarm keeps its rate where nothing drifts but the noise of days, and sees what moved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.check.drift import distances, importance_shares, measure_drift, measure_null
from tasks.check.reference import build_reference
from tasks.measures.profiles import Column, make_columns, profile

DAY = 86_400_000_000


def _autocorrelated(rng: np.random.Generator, days: int, columns: int, per_day: int, phi: float) -> np.ndarray:
    """Days' means follow an AR(1) with a stationary start and standard deviation 0.5; rows scatter by 1 around them."""
    means = np.empty((days, columns))
    means[0] = rng.normal(0, 0.5, columns)
    for day in range(1, days):
        means[day] = phi * means[day - 1] + rng.normal(0, 0.5 * np.sqrt(1 - phi**2), columns)
    return np.repeat(means, per_day, axis=0) + rng.normal(size=(days * per_day, columns))


@pytest.mark.parametrize("phi", [0.0, 0.7])
def test_false_alarm_rate_on_autocorrelated_data(phi: float) -> None:
    alarms = checks = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        values = _autocorrelated(rng, 200, 8, 60, phi)
        frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(8)])
        times = np.repeat(np.arange(200), 60) * DAY
        split = 90 * 60
        columns = make_columns(frame[:split], list(frame), [])
        reference = profile(frame[:split], times[:split], columns, 86_400)
        null = measure_null(reference, 7 * 86_400)
        for week in range(15):
            rows = slice(split + week * 420, split + (week + 1) * 420)
            current = profile(frame[rows], times[rows], columns, 86_400).counts.sum(axis=0)
            found = measure_drift(reference, null, current, {}, 0.01)
            alarms += found[0].ratio > 1
            checks += 1
    assert alarms / checks <= 0.02, f"{alarms} alarms in {checks} checks at a stated rate of 1 %"


def _world(seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = 90 * 60
    frame = pd.DataFrame({"x": rng.normal(size=rows), "y": rng.normal(size=rows)})
    frame["kind"] = pd.Series(rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]), dtype="str")
    return frame, np.repeat(np.arange(90), 60) * DAY


def _check(current: pd.DataFrame, importance: dict[str, float] | None = None) -> dict[str, float]:
    frame, times = _world()
    columns = make_columns(frame, ["x", "y"], ["kind"])
    reference = profile(frame, times, columns, 86_400)
    counts = profile(current, np.zeros(len(current), dtype=np.int64), columns, 86_400).counts.sum(axis=0)
    null = measure_null(reference, 7 * 86_400)
    return {item.name: item.ratio for item in measure_drift(reference, null, counts, importance or {}, 0.01)}


def test_a_moved_column_is_named_and_the_others_are_not() -> None:
    window = _world(1)[0][:420]
    ratios = _check(window.assign(x=window["x"] + 1.0))
    assert ratios["x"] > 1
    assert ratios["y"] < 1
    assert ratios["kind"] < 1


def test_a_missing_rate_from_one_to_three_percent_is_seen() -> None:
    frame, times = _world()
    rng = np.random.default_rng(3)
    frame["x"] = frame["x"].mask(rng.random(len(frame)) < 0.01)
    columns = make_columns(frame, ["x"], [])
    reference = profile(frame, times, columns, 86_400)
    null = measure_null(reference, 7 * 86_400)
    seen = 0
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        window = pd.DataFrame({"x": np.where(rng.random(2000) < 0.03, np.nan, rng.normal(size=2000))})
        counts = profile(window, np.zeros(2000, dtype=np.int64), columns, 86_400).counts.sum(axis=0)
        seen += measure_drift(reference, null, counts, {}, 0.01)[0].ratio > 1
    assert seen >= 19


def test_a_column_the_model_ignores_needs_more_to_be_called_drift() -> None:
    window = _world(1)[0][:420]
    moved = window.assign(x=window["x"] + 0.4)
    assert _check(moved, {"y": 1.0})["x"] < _check(moved, {"x": 1.0})["x"]


def test_a_new_mixture_of_categories_is_seen() -> None:
    window = _world(1)[0][:420].assign(kind=pd.Series(["c"] * 420, dtype="str"))
    assert _check(window)["kind"] > 1


def test_too_little_reference_gives_no_limit() -> None:
    frame, times = _world()
    short = slice(0, 60 * 20)
    columns = make_columns(frame[short], ["x"], [])
    reference = profile(frame[short], times[short], columns, 86_400)
    null = measure_null(reference, 7 * 86_400)
    found = measure_drift(reference, null, reference.counts.sum(axis=0), {}, 0.01)
    assert np.isnan(found[0].limit)
    assert np.isnan(found[0].ratio)


def test_distances_are_zero_for_equals_and_bounded() -> None:
    columns = (Column("n", "numeric", (0.0, 1.0)), Column("c", "categorical", ("a",)))
    left = np.array([[5, 0, 0, 0], [5, 0, 0, 0]])
    right = np.array([[0, 0, 5, 0], [0, 0, 5, 0]])
    assert distances(columns, left, left).max() == pytest.approx(0)
    apart = distances(columns, left, right)
    assert apart[0].tolist() == pytest.approx([1.0, 1.0])
    assert distances(columns, left, np.zeros_like(left)).max() == pytest.approx(0)


def test_importance_is_shared_with_a_least_part_for_each() -> None:
    shares = importance_shares(["a", "b", "c"], {"a": 1.0, "b": -0.2})
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == pytest.approx(shares[2])
    assert shares[1] > 0
    assert importance_shares(["a", "b"], {}).tolist() == pytest.approx([0.5, 0.5])


def _limit_ratio(frame: pd.DataFrame, window: pd.DataFrame, kind: str) -> float:
    """How far the column x of the window lies beyond its limit."""
    numeric, categorical = (("x",), ()) if kind == "numeric" else ((), ("x",))
    made = build_reference(
        frame, time="time", task="regression", loss="mse", window_seconds=7 * 86_400, numeric=numeric,
        categorical=categorical,
    )  # fmt: skip
    counts = profile(window, np.zeros(len(window), dtype=np.int64), made.profile.columns, 1.0).counts.sum(axis=0)
    wide = np.zeros(made.profile.counts.shape[1:], dtype=np.int64)
    wide[:, : counts.shape[1] - 1], wide[:, -1] = counts[:, :-1], counts[:, -1]
    return measure_drift(made.profile, made.null, wide, {}, 0.01)[0].ratio


@pytest.mark.parametrize("nature", ["counter", "walk", "turnover", "float noise"])
def test_what_moves_on_by_nature_is_no_drift(nature: str) -> None:
    rng, rows = np.random.default_rng(3), 200 * 21
    time = pd.Series(pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows) * 7 / 200, unit="D"))
    week = np.arange(rows) // 200
    values = {
        "counter": np.arange(rows, dtype=np.float64),
        "walk": np.cumsum(rng.normal(size=21))[week] + 0.1 * rng.normal(size=rows),
        "turnover": np.where(rng.random(rows) < 0.4, np.arange(rows), week * 5 + rng.integers(0, 20, rows)).astype(str),
        "float noise": 1.0 + np.where(week < 20, 0.0, 1e-7 * rng.normal(size=rows)),
    }[nature]
    series = pd.Series(values, dtype="str" if nature == "turnover" else "float64")
    frame = pd.DataFrame({"time": time.astype("datetime64[us, UTC]"), "x": series})
    ratio = _limit_ratio(frame[week < 20], frame[week == 20], "categorical" if nature == "turnover" else "numeric")
    assert ratio <= 1.0


def test_a_level_that_moved_once_is_drift_still() -> None:
    rng, rows = np.random.default_rng(4), 200 * 21
    time = pd.Series(pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows) * 7 / 200, unit="D"))
    week = np.arange(rows) // 200
    values = rng.normal(size=rows) + np.where(week == 20, 1.5, 0.0)
    frame = pd.DataFrame({"time": time.astype("datetime64[us, UTC]"), "x": values})
    assert _limit_ratio(frame[week < 20], frame[week == 20], "numeric") > 1.5
