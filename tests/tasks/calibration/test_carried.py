"""Whether maps of earlier windows served later ones: a lasting bend carries, windows of other worlds do not."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.calibration.carried import LEAST_PAIRS, Carried, carried_gain

WEEK = timedelta(days=7)
START = pd.Timestamp(datetime(2024, 1, 1, tzinfo=UTC))
WINDOWS, ROWS = 8, 300


def _past(shift: Any, *, version: Any = "1", seed: int = 0) -> pd.DataFrame:
    """A regression whose score is `shift` of the window too low."""
    rng = np.random.default_rng(seed)
    parts = []
    for window in range(WINDOWS):
        raw = rng.normal(size=ROWS)
        times = START + window * WEEK + pd.to_timedelta(np.sort(rng.uniform(0, 7, ROWS)), unit="D")
        truth = raw + shift(window) + 0.3 * rng.normal(size=ROWS)
        name = version(window) if callable(version) else version
        parts.append(pd.DataFrame({"time": times, "version": name, "raw_score": raw, "truth": truth}))
    return pd.concat(parts, ignore_index=True)


def _gain(past: pd.DataFrame | None, late: timedelta = WEEK, strength: float = 0.7) -> Carried:
    return carried_gain(past, "regression", "mse", window=WEEK, late=late, strength=strength, minimum_rows=100)


def test_a_bend_that_lasts_carries() -> None:
    found = _gain(_past(lambda window: 1.0))
    assert found.gain > 0.5
    assert found.pairs == WINDOWS - 2
    assert not found.harms


def test_a_bend_that_is_another_each_window_harms() -> None:
    found = _gain(_past(lambda window: 2.0 * (window % 3 == 0)))
    assert found.harms
    assert "would have changed the loss of later ones by +" in found.told()


def test_a_map_answers_as_many_windows_later_as_labels_are_late_and_one_more() -> None:
    alternates = _past(lambda window: 1.0 if window % 2 else -1.0)
    assert _gain(alternates, late=WEEK).gain > 0.3, "two windows later the world is the same again"
    assert _gain(alternates, late=timedelta(0)).harms, "one window later it is turned round"
    assert _gain(alternates, late=timedelta(days=3)).pairs == WINDOWS - 2


def test_windows_of_different_models_say_nothing_of_each_other() -> None:
    found = _gain(_past(lambda window: 1.0, version=lambda window: str(window)))
    assert (found.pairs, found.harms) == (0, False)
    assert math.isinf(found.error)


def test_without_labels_or_with_few_nothing_is_said() -> None:
    assert not _gain(None).harms
    past = _past(lambda window: 2.0 * (window % 3 == 0))
    assert _gain(past.assign(truth=np.nan)).pairs == 0
    few = past[past.index % ROWS < 50]
    assert _gain(few).pairs == 0


@settings(max_examples=50, deadline=None)
@given(st.floats(-1, 1), st.floats(0, 1), st.integers(0, 12))
def test_harm_is_said_of_enough_windows_only(gain: float, error: float, pairs: int) -> None:
    found = Carried(gain, error, pairs)
    assert found.harms == (gain < 0 and pairs >= LEAST_PAIRS)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_no_way_gone_changes_nothing(strength: float) -> None:
    found = _gain(_past(lambda window: 2.0 * (window % 3 == 0)), strength=strength)
    assert found.gain == pytest.approx(0.0, abs=1e-9) if strength == 0 else found.gain < 0
