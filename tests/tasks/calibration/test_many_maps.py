"""Maps of more than two classes: a temperature and a bias for each, shrunk, tested, stored and applied."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

from perennial.model.calibrated import Recalibrated, apply_map
from perennial.model.scores import score_column
from tasks.calibration.carried import carried_gain
from tasks.calibration.fit import (
    MANY_CLASSES,
    Method,
    Recalibrator,
    check_recalibration,
    fair_answers,
    fit_recalibration,
)
from tasks.measures.quality import row_losses


def world(rows: int, power: float, shift: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth drawn from softmax(power·ln p + shift), and p."""
    generator = np.random.default_rng(seed)
    raw = generator.normal(size=(rows, len(shift))) * 1.5
    score = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    chance = apply_map(score, "shifted", [power, *shift], "classification")
    return (chance.cumsum(axis=1) < generator.random(rows)[:, None]).sum(axis=1).astype(np.float64), score


@pytest.mark.parametrize("method", MANY_CLASSES)
def test_a_map_finds_temperature_and_shift_and_saves_loss(method: Method) -> None:
    truth, score = world(4000, 0.6, [0.0, 0.8, -0.5])
    found = fit_recalibration(truth, score, "classification", method=method)
    weights, biases = found.parameters[:-3], np.array(found.parameters[-3:])
    np.testing.assert_allclose(weights, 0.6, atol=0.07)
    np.testing.assert_allclose(biases - biases[0], [0, 0.8, -0.5], atol=0.15)
    later, raw = world(4000, 0.6, [0.0, 0.8, -0.5], seed=1)
    before, after = (row_losses(later, each, "log_loss").mean() for each in (raw, found.apply(raw)))
    assert after < 0.85 * before
    np.testing.assert_allclose(found.apply(raw).sum(axis=1), 1)


def test_the_plain_map_is_chosen_tested_and_cross_fitted() -> None:
    truth, score = world(600, 1.0, [0.0, 1.0, 0.0, 0.0])
    assert fit_recalibration(truth, score, "classification").method == "shifted"
    assert check_recalibration(truth, score, score, "classification").sigmas > 3
    still, raw = world(600, 1.0, [0.0] * 4, seed=2)
    assert check_recalibration(still, raw, raw, "classification").sigmas < 2
    mapped = fair_answers(truth, score, "classification", 0.7)
    assert mapped.shape == score.shape
    assert row_losses(truth, mapped, "log_loss").mean() < row_losses(truth, score, "log_loss").mean()


def test_few_labels_change_little_and_a_map_never_turns_scores_round() -> None:
    truth, score = world(8, 1.0, [0.0, 2.0, 0.0])
    found = np.array(fit_recalibration(truth, score, "classification", method="shifted").parameters)
    assert np.abs(found - [1, 0, 0, 0]).max() < 0.6
    turned, raw = world(2000, -1.0, [0.0, 0.0, 1.0])
    flat = fit_recalibration(turned, raw, "classification", method="shifted")
    assert flat.parameters[0] == 0
    np.testing.assert_allclose(flat.apply(raw)[0], np.bincount(turned.astype(int)) / 2000, atol=0.01)
    one = fit_recalibration(np.ones(9), raw[:9], "classification", method="shifted")
    assert one.method == "identity"


def test_a_map_is_kept_and_applied_by_the_stored_model() -> None:
    truth, score = world(500, 0.7, [0.3, 0.0, 0.0])
    found = fit_recalibration(truth, score, "classification")
    again = Recalibrator.from_dict(found.to_dict())
    np.testing.assert_array_equal(again.apply(score), found.apply(score))
    gaps = score.copy()
    gaps[3] = np.nan
    assert np.isnan(found.apply(gaps)[3]).all()
    assert np.isfinite(np.delete(found.apply(gaps), 3, axis=0)).all()
    wine = load_wine(as_frame=True)
    model = LogisticRegression(max_iter=5000).fit(wine.data, wine.target)
    mapped = Recalibrated(model, found.method, list(found.parameters), "classification")
    wanted = found.apply(model.predict_proba(wine.data))
    np.testing.assert_allclose(mapped.predict_proba(wine.data), wanted)
    np.testing.assert_array_equal(mapped.predict(wine.data), wanted.argmax(axis=1))
    assert isinstance(wine.data, pd.DataFrame)


WEEK = timedelta(days=7)


def windows(*shifts: list[float]) -> pd.DataFrame:
    """Earlier windows of three classes, each with its own bend; some rows without a truth, some without a score."""
    parts = []
    for number, shift in enumerate(shifts):
        truth, score = world(300, 1.0, shift, seed=number)
        truth[:20], score[20:30] = np.nan, np.nan
        times = pd.date_range("2026-01-01", periods=300, freq="30min", tz="UTC") + number * WEEK
        parts.append(pd.DataFrame({"time": times, "version": "1", "raw_score": score_column(score), "truth": truth}))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("loss", ["log_loss", "brier"])
def test_whether_maps_carry_is_asked_of_many_classes_as_of_two(loss: str) -> None:
    one, other, third = [1.5, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 0.0, 1.5]
    asked = {"window": WEEK, "late": timedelta(0), "strength": 0.7, "minimum_rows": 100}
    lasting = carried_gain(windows(*[one] * 6), "classification", loss, **asked)
    assert lasting.gain > 0.05
    assert (lasting.pairs, lasting.harms) == (5, False)
    turning = carried_gain(windows(one, other, third, one, other, third), "classification", loss, **asked)
    assert (turning.pairs, turning.harms) == (5, True)
    assert carried_gain(windows(one, other).assign(truth=np.nan), "classification", loss, **asked).pairs == 0
