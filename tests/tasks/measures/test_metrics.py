"""Metrics agree with their definitions, and say NaN instead of warning where they have no meaning."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from perennial.definition import CLASSIFICATION_METRICS, REGRESSION_METRICS
from perennial.errors import DataError
from tasks.measures.metrics import (
    CURVE_POINTS,
    ROW_LOSSES,
    as_loss,
    calibration_error,
    curves,
    improvement,
    is_improvement,
    iterate_slices,
    metric_names,
    metric_table,
    permutation_importance,
    row_losses,
    slice_table,
)


def sample(rows: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    score = generator.random(rows)
    return (generator.random(rows) < score).astype(float), score


def test_every_metric_of_the_definition_is_there_and_finite() -> None:
    truth, score = sample()
    table = metric_table("classification", truth, score)
    assert tuple(table) == (*CLASSIFICATION_METRICS, "calibration_error") == metric_names("classification")
    assert all(math.isfinite(value) and type(value) is float for value in table.values())
    assert tuple(metric_table("regression", score, truth)) == REGRESSION_METRICS


def test_values_by_hand() -> None:
    table = metric_table("classification", [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.8])
    assert table["roc_auc"] == pytest.approx(0.75)
    assert [table[name] for name in ("accuracy", "balanced_accuracy", "f1")] == pytest.approx([0.5] * 3)
    assert table["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.04) / 4)
    assert table["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.4, 0.8])))
    regression = metric_table("regression", [1.0, 2, 3, 4], [1.0, 2, 3, 6])
    assert regression == pytest.approx({"rmse": 1, "mae": 0.5, "mse": 1, "r2": 0.2, "median_absolute_error": 0})


@pytest.mark.parametrize("truth", [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0], [0.0], []])
def test_one_class_one_row_and_no_row_are_nan_without_warning(truth: list[float]) -> None:
    table = metric_table("classification", truth, [0.7] * len(truth))
    undefined = {"roc_auc", "average_precision", "balanced_accuracy"}
    assert all(math.isnan(table[name]) for name in undefined)
    assert math.isfinite(table["log_loss"]) == math.isfinite(table["brier"]) == bool(truth)
    assert math.isnan(metric_table("regression", truth, [0.7] * len(truth))["r2"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.floats(0, 1), st.integers(0, 3)), max_size=30))
def test_weights_count_like_repeated_rows(rows: list[tuple[float, float, int]]) -> None:
    truth, score, weights = (np.array([row[at] for row in rows], dtype=float) for at in range(3))
    repeated = np.repeat(np.arange(len(rows)), weights.astype(int))
    for task in ("classification", "regression"):
        weighted = metric_table(task, truth, score, weights)
        plain = metric_table(task, truth[repeated], score[repeated])
        # Bins of equal numbers are cut by rows, so the calibration error of repeated rows may have other bins.
        names = [name for name in plain if name != "calibration_error"]
        assert [weighted[name] for name in names] == pytest.approx([plain[name] for name in names], nan_ok=True)


@pytest.mark.parametrize(
    ("truth", "score", "weights", "says"),
    [
        ([0, 1, 1], [0.1, math.nan, math.inf], None, "2 of 3 score values"),
        ([0, math.nan, 1], [0.1, 0.2, 0.3], None, "1 of 3 truth values"),
        ([0, 2, 1], [0.1, 0.2, 0.3], None, "neither 0 nor 1"),
        ([0, 1, 1], [0.1, 1.2, 0.3], None, "1 of 3 scores are no probabilities"),
        ([0, 1], [0.1, 0.2, 0.3], None, "shapes"),
        ([0, 1], [0.1, 0.2], [1, -1], "1 of 2 weights are negative"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_count(truth, score, weights, says) -> None:
    with pytest.raises(DataError, match=says):
        metric_table("classification", truth, score, weights)


@pytest.mark.parametrize("metric", sorted(ROW_LOSSES))
def test_row_losses_average_to_the_metric(metric: str) -> None:
    truth, score = sample()
    score[:3] = [0.0, 1.0, 1.0]
    task = "classification" if metric in CLASSIFICATION_METRICS else "regression"
    table = metric_table(task, truth, score)
    assert row_losses(metric, truth, score).mean() == pytest.approx(as_loss(metric, table[metric]), rel=1e-12)


def test_no_row_losses_for_rank_metrics() -> None:
    with pytest.raises(DataError, match="roc_auc is no mean"):
        row_losses("roc_auc", [0, 1], [0.1, 0.9])


def test_direction() -> None:
    assert improvement("roc_auc", 0.8, 0.7) == pytest.approx(0.1) == improvement("log_loss", 0.3, 0.4)
    assert is_improvement("f1", 0.6, 0.5)
    assert not is_improvement("mse", 0.6, 0.5)
    assert not is_improvement("mse", 0.5, 0.5)
    assert not is_improvement("mse", math.nan, 0.5)


def test_calibration_error_of_calibrated_and_shifted_scores() -> None:
    truth, score = sample(20_000)
    ones = np.ones(len(truth))
    assert calibration_error(truth, score, ones) < 0.02
    assert calibration_error(truth, np.clip(score + 0.2, 0, 1), ones) == pytest.approx(0.18, abs=0.03)
    assert calibration_error(truth, np.full(len(truth), truth.mean()), ones) == pytest.approx(0, abs=1e-12)


def test_slices_of_text_numbers_and_missing_values() -> None:
    truth, score = sample(200)
    port = np.array(["EWR", "JFK"] * 95 + ["LGA"] * 5 + [None] * 5, dtype=object)
    distance = np.concatenate([np.arange(199.0), [math.nan]])
    found = slice_table("classification", truth, score, {"port": port, "distance": distance}, minimum_rows=5)
    sizes = {(entry.column, entry.value): entry.rows for entry in found}
    assert sizes[("port", "EWR")] == 95
    assert sizes[("port", "missing")] == 5
    assert sorted(rows for (column, _), rows in sizes.items() if column == "distance") == [49, 50, 50, 50]
    whole = next(entry for entry in found if entry.value == "JFK")
    assert whole.metrics == metric_table("classification", truth[port == "JFK"], score[port == "JFK"])
    assert sum(mask.sum() for _, _, mask in iterate_slices({"distance": distance})) == 200
    with pytest.raises(DataError, match="slice port has 3 rows of 200"):
        slice_table("classification", truth, score, {"port": port[:3]}, 1)


def test_curves_are_101_points_that_mean_what_they_say() -> None:
    truth, score = sample(5000)
    found = curves(truth, score)
    assert found.roc.shape == found.precision_recall.shape == found.calibration.shape == (CURVE_POINTS,)
    area = float(np.trapezoid(found.roc, dx=0.01))
    assert area == pytest.approx(metric_table("classification", truth, score)["roc_auc"], abs=0.01)
    assert found.roc[-1] == 1
    assert found.precision_recall[-1] == pytest.approx(truth.mean(), abs=0.02)
    assert np.all(np.diff(found.precision_recall) <= 0)
    assert np.nanmax(np.abs(found.calibration - np.linspace(0, 1, CURVE_POINTS))) < 0.1
    narrow = curves(truth, 0.4 + score / 5).calibration
    assert np.isnan(narrow[:39]).all()
    assert np.isfinite(narrow[41:60]).all()
    assert np.isnan(curves(np.ones(5), score[:5]).roc).all()


def test_importance_finds_the_column_that_matters_in_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_breast_cancer(as_frame=True)
    frame = data.data[["worst radius", "smoothness error"]].assign(label=["a", "b", None] * 189 + ["a", "b"])
    model = LogisticRegression(max_iter=5000).fit(frame[["worst radius", "smoothness error"]], data.target)
    calls = []

    def predict(rows: pd.DataFrame) -> np.ndarray:
        calls.append(len(rows))
        return model.predict_proba(rows[["worst radius", "smoothness error"]])[:, 1]

    found = permutation_importance(predict, frame, data.target, "log_loss", seed=1, max_rows=300, repeats=3)
    assert next(iter(found)) == "worst radius"
    assert found["worst radius"] > 0.5 > 10 * abs(found["smoothness error"])
    assert found["label"] == pytest.approx(0, abs=1e-12)  # a sum in another order, on another processor
    assert calls == [300, 2700]
    monkeypatch.setattr("tasks.measures.metrics._SHUFFLED_CELLS", 4000)  # of three columns: one's rows and a half
    again = permutation_importance(predict, frame, data.target, "log_loss", seed=1, max_rows=300, repeats=3)
    assert again == pytest.approx(found, abs=1e-12)
    assert calls == [300, 2700, 300, 900, 900, 900]
    only = permutation_importance(predict, frame, data.target, "roc_auc", seed=1, columns=["worst radius"])
    assert set(only) == {"worst radius"}
