"""What is told of a model's quality is what other ways to get it say; a planted weak segment is found, noise is not."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from perennial.definition import CLASSIFICATION_METRICS, REGRESSION_METRICS
from tasks.measures.bootstrap import metric_interval
from tasks.measures.evaluation import calibration_table, evaluate, weak_segments
from tasks.measures.metrics import Task, metric_value

METRICS: list[tuple[Task, str]] = [
    *(("classification", metric) for metric in (*CLASSIFICATION_METRICS, "calibration_error")),  # type: ignore[list-item]
    *(("regression", metric) for metric in REGRESSION_METRICS),  # type: ignore[list-item]
]


def sample(task: Task, rows: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    signal = random.normal(size=rows)
    if task == "regression":
        return signal + random.normal(size=rows), signal
    chance = 1 / (1 + np.exp(-signal))
    return (random.random(rows) < chance).astype(float), chance


@pytest.mark.parametrize(("task", "metric"), METRICS)
def test_a_metrics_interval_is_around_its_value_and_of_its_size(task: Task, metric: str) -> None:
    truth, score = sample(task)
    found = metric_interval(metric, truth, score, resamples=300)
    assert found.estimate == pytest.approx(metric_value(metric, task, truth, score), abs=1e-9)
    others = [metric_value(metric, task, *sample(task, seed=seed)) for seed in range(1, 40)]
    if metric == "calibration_error":  # of noise alone: drawn rows are worse calibrated than rows are
        assert found.low <= found.estimate
    else:
        assert found.low < found.estimate < found.high
        assert 0.5 < (found.high - found.low) / (3.92 * np.std(others)) < 2


def test_an_evaluation_is_json_and_keeps_what_is_undefined_as_nothing() -> None:
    found = evaluate("classification", np.ones(40), np.full(40, 0.9), loss="log_loss", minimum_rows=5)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["metrics"]["roc_auc"]["value"] is None
    assert found["metrics"]["accuracy"]["value"] == 1


def test_slices_are_told_with_rows_and_interval() -> None:
    truth, score = sample("classification", 1000)
    where = np.where(np.arange(1000) % 4 == 0, "north", "south")
    found = evaluate(
        "classification", truth, score, loss="brier", slices={"place": where, "all": np.arange(1000) // 990},
        minimum_rows=100,
    )  # fmt: skip
    told = [(item["column"], item["value_of"], item["rows"]) for item in found["slices"]]
    assert told == [("all", "0", 990), ("place", "south", 750), ("place", "north", 250)]
    assert all(item["low"] < item["value"] < item["high"] for item in found["slices"])
    own = found["slices"][2]
    assert own["value"] == pytest.approx(float(((truth - score)[where == "north"] ** 2).mean()))


def test_calibration_says_where_what_came_is_not_what_was_said() -> None:
    truth, score = sample("classification", 20_000)
    good = calibration_table("classification", truth, score, 0.95)
    assert sum(item["rows"] for item in good) == 20_000
    outside = [item for item in good if not item["low"] <= item["said"] <= item["high"]]
    assert len(outside) <= 2
    bad = calibration_table("classification", truth, score**2, 0.95)
    assert sum(not item["low"] <= item["said"] <= item["high"] for item in bad) >= 8


def features(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "place": random.choice(["north", "south", "east"], rows),
            "size": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows)),
            "id": [f"r{row}" for row in range(rows)],
            **{f"noise_{number}": random.choice(list("abcd"), rows) for number in range(20)},
        }
    )


def test_a_planted_weak_segment_is_found_and_comes_first() -> None:
    truth, score = sample("regression", 4000)
    frame = features(4000)
    score = np.where((frame["place"] == "east").to_numpy(), score + 2.0, score)
    found = weak_segments("regression", truth, score, frame, "mse", 200, 0.95)
    assert found["found"][0]["where"] == "place = east"
    assert found["found"][0]["loss"] > 3 > found["found"][0]["elsewhere"]
    assert found["looked_at"] > 80
    assert not [item for item in found["found"] if item["where"].startswith("id")]


def test_where_nothing_is_weak_hardly_ever_something_is_found() -> None:
    wrong = 0
    for seed in range(15):
        truth, score = sample("regression", 2000, seed)
        wrong += bool(weak_segments("regression", truth, score, features(2000, seed), "mse", 100, 0.95)["found"])
    assert wrong <= 4


def test_few_rows_are_not_searched() -> None:
    truth, score = sample("regression", 100)
    assert weak_segments("regression", truth, score, features(100), "mse", 200, 0.95) == {"looked_at": 0, "found": []}


def test_many_classes_are_told_by_the_likeliest() -> None:
    random = np.random.default_rng(3)
    score = random.dirichlet((1.0, 1.0, 1.0), 900)
    truth = np.array([random.choice(3, p=row) for row in score], dtype=np.float64)
    told = evaluate(
        "classification", truth, score, loss="log_loss", features=pd.DataFrame({"x": random.normal(size=900)}),
        minimum_rows=100,
    )  # fmt: skip
    json.dumps(told, allow_nan=False)
    accuracy = float((score.argmax(axis=1) == truth).mean())
    assert told["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert told["metrics"]["log_loss"]["low"] < told["metrics"]["log_loss"]["value"]
    # The truth is drawn from what was said: what came lies in its interval, mostly.
    inside = [row["low"] <= row["said"] <= row["high"] for row in told["calibration"]]
    assert np.mean(inside) >= 0.7
    assert sum(row["rows"] for row in told["calibration"]) == 900
    assert told["segments"]["looked_at"] == 4
