"""A refitted map repairs a distorted score, changes nothing without evidence, and survives JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from perennial.errors import DataError
from tasks.calibration.fit import METHODS, Recalibrator, check_recalibration, fit_recalibration
from tasks.measures.quality import row_losses


def _two_class(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    chance = expit(rng.normal(-0.5, 1.2, rows))
    return (rng.random(rows) < chance).astype(float), chance


@pytest.mark.parametrize("method", METHODS["classification"])
def test_distorted_probabilities_are_repaired(method: str) -> None:
    truth, chance = _two_class(6000)
    score = expit(2 * logit(chance) + 1)
    fitted = fit_recalibration(truth[:3000], score[:3000], "classification", method=method)  # type: ignore[arg-type]
    before = row_losses(truth[3000:], score[3000:], "log_loss").mean()
    after = row_losses(truth[3000:], fitted.apply(score[3000:]), "log_loss").mean()
    ideal = row_losses(truth[3000:], chance[3000:], "log_loss").mean()
    assert after - ideal < 0.1 * (before - ideal)
    assert Recalibrator.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


@pytest.mark.parametrize("method", METHODS["regression"])
def test_shifted_values_are_repaired(method: str) -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(3, 2, 4000)
    truth, score = value + rng.normal(0, 0.5, 4000), (value - 4) / 1.5
    fitted = fit_recalibration(truth[:2000], score[:2000], "regression", method=method)  # type: ignore[arg-type]
    assert row_losses(truth[2000:], fitted.apply(score[2000:]), "mse").mean() < 0.3


def test_the_test_is_significant_only_where_a_map_helps() -> None:
    truth, chance = _two_class(3000)
    distorted = expit(1.6 * logit(chance) + 0.5)
    assert check_recalibration(truth, distorted, distorted, "classification").sigmas > 3
    fired = 0
    for seed in range(40):
        truth, chance = _two_class(1000, seed)
        fired += check_recalibration(truth, chance, chance, "classification").sigmas > 2
    assert fired <= 2


def test_a_map_in_force_is_not_proposed_again() -> None:
    truth, chance = _two_class(3000)
    score = expit(1.6 * logit(chance) + 0.5)
    answered = fit_recalibration(truth, score, "classification", method="platt").apply(score)
    assert check_recalibration(truth, score, answered, "classification").sigmas < 1


@pytest.mark.parametrize("truth", [[], [1.0], [1.0] * 50, [0.0, 1.0]])
def test_few_or_one_sided_rows_keep_close_to_the_identity(truth: list[float]) -> None:
    score = np.linspace(0.2, 0.8, len(truth))
    fitted = fit_recalibration(np.array(truth), score, "classification")
    assert np.abs(fitted.apply(score) - score).max(initial=0) < 0.1
    assert check_recalibration(np.array(truth), score, score, "classification").sigmas <= 2


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=60),
    st.sampled_from(METHODS["classification"]),
)
def test_maps_stay_probabilities_and_never_rank_against_the_score(rows: list[tuple[bool, float]], method: str) -> None:
    truth = np.array([float(t) for t, _ in rows])
    score = np.array([s for _, s in rows])
    mapped = fit_recalibration(truth, score, "classification", method=method).apply(score)  # type: ignore[arg-type]
    assert np.isfinite(mapped).all()
    assert (mapped >= 0).all()
    assert (mapped <= 1).all()


def test_missing_scores_stay_missing_and_bad_input_is_refused() -> None:
    truth, chance = _two_class(2000)
    fitted = fit_recalibration(truth, chance, "classification", method="isotonic")
    assert np.isnan(fitted.apply(np.array([np.nan, 0.5]))).tolist() == [True, False]
    with pytest.raises(DataError, match="shape"):
        fit_recalibration(truth, chance[:-1], "classification")
    with pytest.raises(DataError, match="missing or infinite"):
        fit_recalibration(truth, np.where(truth == 1, np.nan, chance), "classification")
