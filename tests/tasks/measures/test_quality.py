"""Losses per row, honest standard errors, and coverage by age."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error

from perennial.errors import DataError
from tasks.measures.quality import additive_loss, complete_ages, coverage, mean_loss, row_losses

RNG = np.random.default_rng(0)
TRUTH = (RNG.random(200) < 0.4).astype(float)
SCORE = RNG.uniform(0.05, 0.95, 200)


@pytest.mark.parametrize(
    ("loss", "ours"),
    [
        ("log_loss", log_loss(TRUTH, SCORE)),
        ("brier", brier_score_loss(TRUTH, SCORE)),
        ("mse", mean_squared_error(TRUTH, SCORE)),
        ("mae", mean_absolute_error(TRUTH, SCORE)),
        ("error", float(((SCORE >= 0.5) != TRUTH).mean())),
    ],
)
def test_mean_row_loss_is_scikit_learns(loss: str, ours: float) -> None:
    assert row_losses(TRUTH, SCORE, loss).mean() == pytest.approx(ours)


def test_certain_and_wrong_costs_much_but_not_infinitely() -> None:
    assert np.isfinite(row_losses(np.array([1.0, 0.0]), np.array([0.0, 1.0]), "log_loss")).all()
    with pytest.raises(DataError, match="no loss per row"):
        row_losses(TRUTH, SCORE, "roc_auc")
    assert additive_loss("roc_auc", "classification") == "log_loss"
    assert additive_loss("rmse", "regression") == "mse"


def test_standard_error_grows_with_autocorrelation() -> None:
    alone = RNG.normal(size=4000)
    in_runs = np.repeat(RNG.normal(size=40), 100)
    assert mean_loss(in_runs).standard_error > 4 * np.std(in_runs) / np.sqrt(4000)
    assert mean_loss(alone).standard_error == pytest.approx(np.std(alone) / np.sqrt(4000), rel=1.0)


def test_no_and_one_row() -> None:
    assert np.isnan(mean_loss(np.array([])).mean)
    assert np.isnan(mean_loss(np.array([1.0])).standard_error)


def test_coverage_tells_the_age_of_what_is_labelled() -> None:
    day = 86_400_000_000
    times = np.array([0, 1, 2, 3]) * day
    found = coverage(times, np.array([True, True, False, False]), 0, 4 * day, 5 * day)
    assert found.share == 0.5
    assert found.by_age == ((4.0, 1, 1), (3.0, 1, 1), (2.0, 1, 0), (1.0, 1, 0))
    assert coverage(times[:0], np.array([], dtype=bool), 0, 4 * day, 5 * day).share == 0


class TestCompleteAges:
    DAY = 86_400_000_000

    def ages(self, shares: list[float], rows: int = 100, reached: float = 0.0) -> list[bool]:
        """Which days are complete, the oldest first, when such shares of their rows have labels."""
        generator = np.random.default_rng(0)
        times = (np.arange(len(shares) * rows) // rows) * self.DAY + generator.integers(0, self.DAY, len(shares) * rows)
        labelled = generator.random(len(times)) < np.repeat(shares, rows)
        found = complete_ages(times, labelled, len(shares) * self.DAY, self.DAY, reached)
        return [bool(found[number * rows]) for number in range(len(shares))]

    def test_young_rows_with_few_labels_are_not_complete(self) -> None:
        assert self.ages([1.0, 1.0, 0.6, 0.2]) == [True, True, False, False]

    def test_a_steady_share_is_complete_whatever_its_size(self) -> None:
        assert all(self.ages([0.3] * 20))
        assert all(self.ages([0.6] * 20, rows=12))

    def test_what_older_windows_reached_counts(self) -> None:
        assert self.ages([0.5, 0.5], reached=0.9) == [False, False]
        assert self.ages([0.85, 0.85], reached=0.9) == [True, True]

    def test_no_rows(self) -> None:
        nothing = np.array([], dtype=np.int64)
        assert complete_ages(nothing, nothing.astype(bool), 10, 1).shape == (0,)


def test_a_weighted_mean_is_that_of_the_rows_that_each_stands_for() -> None:
    losses = row_losses(TRUTH, SCORE, "brier")
    weights = np.where(np.arange(len(losses)) % 2, 3.0, 1.0)
    found, plain = mean_loss(losses, weights=weights), mean_loss(losses)
    assert found.mean == pytest.approx(np.average(losses, weights=weights))
    assert found.rows == len(losses)
    alike = mean_loss(losses, weights=np.full(len(losses), 7.0))
    assert (alike.mean, alike.standard_error) == pytest.approx((plain.mean, plain.standard_error))


def test_a_weighted_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Rows drawn with known chances, many of the lossy ones: nineteen of twenty intervals hold the whole's mean."""
    rng = np.random.default_rng(1)
    whole = rng.exponential(size=4000) + (np.arange(4000) % 4 == 0) * 2
    chance = np.where(np.arange(4000) % 4 == 0, 0.3, 0.06)
    held = 0
    for _ in range(300):
        drawn = rng.permutation(np.flatnonzero(rng.random(4000) < chance))
        low, high = mean_loss(whole[drawn], weights=1 / chance[drawn]).interval()
        held += low <= whole.mean() <= high
    assert 0.9 < held / 300 <= 1
