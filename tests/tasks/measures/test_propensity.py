"""Inverse-propensity weights: whom they leave out, how they are clipped, what they are worth, and no bias."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures.propensity import clipped, differ, effective_rows, experiment_of, figure
from tasks.measures.quality import MeanLoss

T = pd.Timestamp("2026-01-01", tz="UTC")


def log(*rows: tuple[str, str, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", "group", "propensity"])
    return frame.assign(time=T)


def weights_of(found: Any, *ids: str, time: pd.Timestamp = T) -> list[float]:
    ids_ = pd.Series(ids, dtype="str")
    weights: list[float] = found.weights(ids_, pd.Series([time] * len(ids))).tolist()
    return weights


def test_who_was_acted_on_once_stays_so() -> None:
    found = experiment_of(log(("a", "control", 0.5), ("a", "treated", 0.5), ("b", "control", 0.5)), whole_log=True)
    assert weights_of(found, "a", "b", "stranger") == [0, 2, 1]


def test_a_chance_of_nothing_is_no_group() -> None:
    found = experiment_of(log(("a", "treated", 0.0), ("b", "control", 1.0)), whole_log=True)
    assert weights_of(found, "a", "b") == [1, 1]


def test_of_a_sampled_log_rows_without_a_group_count_only_if_they_are_older() -> None:
    found = experiment_of(log(("b", "control", 0.5)), whole_log=False)
    assert weights_of(found, "stranger", "b") == [0, 2]
    assert weights_of(found, "stranger", time=T - pd.Timedelta(hours=1)) == [1]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=200))
def test_clipping_keeps_order_and_bounds_the_greatest(chances: list[float]) -> None:
    raw = 1 / np.array(chances)
    kept = clipped(np.append(raw, 0.0))
    assert kept[-1] == 0
    assert (kept[:-1] <= raw).all()
    assert kept.max() <= np.sqrt(len(raw)) * raw.mean() * (1 + 1e-9)
    assert (np.diff(kept[:-1][np.argsort(raw)]) >= 0).all()


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=50))
def test_effective_rows_lie_between_one_and_all(weights: list[float]) -> None:
    worth = effective_rows(np.array(weights))
    assert 1 - 1e-9 <= worth <= len(weights) + 1e-9
    assert effective_rows(np.full(len(weights), weights[0])) == pytest.approx(len(weights))


def test_effective_rows_of_none() -> None:
    assert effective_rows(np.zeros(3)) == 0


def test_the_weighted_mean_is_that_of_all_and_its_interval_holds_it_as_often_as_it_says() -> None:
    """Left alone the less often the likelier a failure is: by itself the group is far off."""
    rng = np.random.default_rng(0)
    held, weighted_means, plain_means = 0, [], []
    for _ in range(300):
        score = rng.beta(2, 2, 1500)
        truth = (rng.random(1500) < score).astype(float)
        chance = np.where(score > 0.5, 0.1, 0.5)
        alone = rng.random(1500) < chance
        found = figure(truth[alone], score[alone], "brier", "regression", clipped(1 / chance[alone]))
        low, high = found.seen.interval()
        held += low <= truth.mean() <= high
        weighted_means.append(found.seen.mean - truth.mean())
        plain_means.append(truth[alone].mean() - truth.mean())
    assert abs(np.mean(weighted_means)) < 0.01
    assert np.mean(plain_means) < -0.1
    assert held / 300 > 0.92


def test_a_figure_is_json_and_knows_what_it_can_not_tell() -> None:
    empty = figure(np.zeros(0), np.zeros(0), "log_loss", "classification")
    told = json.loads(json.dumps(empty.to_dict(), allow_nan=False))
    assert told["rows"] == 0
    assert told["loss"] == [None, None, None]
    many = figure(np.array([0.0, 2.0]), np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]), "log_loss", "classification")
    assert many.seen.mean == 0.5
    assert many.said == pytest.approx(0.6)
    assert many.calibration_error is None


def test_means_differ_only_surely() -> None:
    assert differ(MeanLoss(1.0, 0.1, 10), MeanLoss(2.0, 0.1, 10))
    assert not differ(MeanLoss(1.0, 0.3, 10), MeanLoss(2.0, 0.3, 10))
    assert not differ(MeanLoss(1.0, float("nan"), 1), MeanLoss(9.0, 0.1, 10))
