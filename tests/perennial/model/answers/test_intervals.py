"""Tests of intervals: the ranks of the theorem, the promise kept on new rows, and nothing where rows are too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.model.answers.intervals import LEVEL_ROWS, least_rows, make_intervals, read_intervals


def test_the_ranks_are_those_of_finite_samples() -> None:
    residuals = np.arange(1.0, 20.0)  # 19 rows, of which an interval of 90 % takes the least and the greatest residual
    made = make_intervals(residuals, np.zeros(19), 0.9)
    assert made is not None
    assert (made.below, made.above, made.rows) == ((1.0,), (19.0,), 19)
    more = make_intervals(np.arange(1.0, 100.0), np.zeros(99), 0.9)
    assert more is not None
    assert (more.below, more.above) == ((5.0,), (95.0,))  # (n + 1)·0.05 and (n + 1)·0.95
    assert least_rows(0.9) == 19
    assert least_rows(0.99) == 199
    assert make_intervals(residuals[1:], np.zeros(18), 0.9) is None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.sampled_from([60, 500, 4000]))
def test_the_promise_is_kept_on_rows_of_the_same_kind(seed: int, coverage: float, rows: int) -> None:
    """On average over draws: a bound of the theorem, held here with six standard errors of both samples' luck."""
    generator = np.random.default_rng(seed)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        prediction = generator.gamma(2, 10, count)
        return prediction + prediction * (generator.exponential(1, count) - 1), prediction

    made = make_intervals(*drawn(rows), coverage)
    assert made is not None
    truth, prediction = drawn(20_000)
    lower, upper = made.bounds(prediction)
    share = float(((lower <= truth) & (truth <= upper)).mean())
    error = np.sqrt(coverage * (1 - coverage) * (1 / rows + 1 / 20_000))
    assert share >= coverage - 6 * error


def test_large_predictions_have_wider_intervals() -> None:
    generator = np.random.default_rng(0)
    prediction = generator.uniform(0, 100, 20 * LEVEL_ROWS)
    truth = prediction + prediction * generator.normal(size=len(prediction))
    made = make_intervals(truth, prediction, 0.9)
    assert made is not None
    assert len(made.edges) == 9
    lower, upper = made.bounds(np.array([5.0, 95.0, np.nan]))
    assert (upper - lower)[1] > 5 * (upper - lower)[0]
    assert np.isnan(lower[2])
    inside = (made.bounds(prediction)[0] <= truth) & (truth <= made.bounds(prediction)[1])
    for level in range(10):  # each level keeps the promise, not only all of them together
        assert inside[np.searchsorted(made.edges, prediction, side="right") == level].mean() >= 0.9


@pytest.mark.parametrize("prediction", [np.zeros(900), np.repeat([0.0, 1.0], 450), np.r_[np.zeros(890), np.ones(10)]])
def test_equal_predictions_are_one_level(prediction: np.ndarray) -> None:
    truth = prediction + np.linspace(-1, 1, len(prediction))
    made = make_intervals(truth, prediction, 0.9)
    assert made is not None
    sizes = np.bincount(np.searchsorted(made.edges, prediction, side="right"))
    assert sizes.min() >= LEVEL_ROWS


def test_a_tag_is_read_for_its_own_coverage_alone() -> None:
    made = make_intervals(np.arange(100.0), np.full(100, np.nan), 0.9)
    assert made is None
    made = make_intervals(np.arange(100.0), np.zeros(100), 0.9)
    assert made is not None
    assert read_intervals(made.tag(), 0.9) == made
    assert read_intervals(made.tag(), 0.8) is None
    assert read_intervals(made.tag(), None) is None
    assert read_intervals("", 0.9) is None
