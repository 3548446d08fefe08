"""Metrics, intervals and probes of more than two classes, beside scikit-learn's own on wine and digits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from perennial.errors import DataError
from tasks.measures.bootstrap import loss_value, paired_improvement
from tasks.measures.leakage import separations
from tasks.measures.metrics import (
    as_loss,
    checked,
    class_table,
    confusion,
    metric_names,
    metric_table,
    permutation_importance,
    row_losses,
)
from tasks.measures.quality import row_losses as losses_per_row


@cache
def scored(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores of every second row, by a weak model of the others."""
    found = {"wine": load_wine, "digits": load_digits}[name]()
    order = np.random.default_rng(0).permutation(len(found.target))
    rows, target = found.data[order][:, :6] if name == "wine" else found.data[order][:, 20:30], found.target[order]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(rows[::2], target[::2])
    return target[1::2].astype(np.float64), model.predict_proba(rows[1::2])


@pytest.mark.parametrize("name", ["wine", "digits"])
def test_metrics_are_scikit_learns(name: str) -> None:
    truth, score = scored(name)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(truth))
    hot, said, given = np.eye(score.shape[1])[truth.astype(int)], score.argmax(axis=1), {"sample_weight": weights}
    table = metric_table("classification", truth, score, weights)
    assert table == pytest.approx(
        {
            "roc_auc": metrics.roc_auc_score(truth, score, multi_class="ovr", average="macro", **given),
            "average_precision": metrics.average_precision_score(hot, score, **given),
            "log_loss": metrics.log_loss(truth, score, **given),
            "brier": metrics.brier_score_loss(truth, score, labels=list(range(score.shape[1])), **given),
            "accuracy": metrics.accuracy_score(truth, said, **given),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, said, **given),
            "f1": metrics.f1_score(truth, said, average="macro", **given),
            "calibration_error": table["calibration_error"],
        }
    )
    assert 0 < table["calibration_error"] < 0.2


@pytest.mark.parametrize("metric", metric_names("classification"))
def test_intervals_compare_by_the_metrics_own_value(metric: str) -> None:
    truth, score = scored("digits")
    weights = np.ones(len(truth))
    worse = 0.5 * score + 0.05
    assert loss_value(metric, truth, score, weights) == pytest.approx(
        as_loss(metric, metric_table("classification", truth, score)[metric])
    )
    found = paired_improvement(metric, truth, score, worse)
    tables = [metric_table("classification", truth, each)[metric] for each in (worse, score)]
    assert found.estimate == pytest.approx(as_loss(metric, tables[0]) - as_loss(metric, tables[1]), abs=1e-9)
    assert found.low <= found.estimate <= found.high


def test_losses_by_row_are_means_of_the_metric() -> None:
    truth, score = scored("wine")
    for metric, loss in (("log_loss", "log_loss"), ("brier", "brier"), ("accuracy", "error")):
        wanted = as_loss(metric, metric_table("classification", truth, score)[metric])
        assert row_losses(metric, truth, score).mean() == pytest.approx(wanted)
        assert losses_per_row(truth, score, loss).mean() == pytest.approx(wanted)
    for losses in (lambda: row_losses("mse", truth, score), lambda: losses_per_row(truth, score, "mse")):
        with pytest.raises(DataError, match="of classes"):
            losses()


def test_a_class_that_does_not_occur_is_left_out_and_one_alone_is_undefined() -> None:
    truth, score = scored("wine")
    two = truth < 2
    found = metric_table("classification", truth[two], score[two])
    aucs = [metrics.roc_auc_score(truth[two] == code, score[two][:, code]) for code in (0, 1)]
    assert found["roc_auc"] == pytest.approx(np.mean(aucs))
    one = metric_table("classification", truth[truth == 1], score[truth == 1])
    assert np.isnan([one["roc_auc"], one["f1"], one["balanced_accuracy"]]).all()
    assert np.isfinite([one["log_loss"], one["brier"], one["accuracy"]]).all()
    assert np.isnan(paired_improvement("roc_auc", truth[truth == 1], score[truth == 1], score[truth == 1]).estimate)


def test_classes_one_by_one_and_what_is_taken_for_what() -> None:
    truth, score = scored("wine")
    said = score.argmax(axis=1)
    table = class_table(truth, score, ["a", "b", "c"])
    precision, recall, f1, rows = metrics.precision_recall_fscore_support(truth, said)
    for code, name in enumerate("abc"):
        wanted = {"precision": precision[code], "recall": recall[code], "f1": f1[code], "rows": rows[code]}
        assert {key: table[name][key] for key in wanted} == pytest.approx(wanted)
    np.testing.assert_array_equal(confusion(truth, score, 3), metrics.confusion_matrix(truth, said))


@pytest.mark.parametrize(
    ("truth", "score", "problem"),
    [
        ([0, 3], [[0.2, 0.3, 0.5]] * 2, "1 of 2 truth values are none of 0 to 2"),
        ([0, 1.5], [[0.2, 0.3, 0.5]] * 2, "1 of 2 truth values are none of 0 to 2"),
        ([0, 1], [[0.2, 0.3, 0.6]] * 2, "2 of 2 scores are no probabilities"),
        ([0, 1], [[0.2, 0.3, np.nan]] * 2, "score values are missing"),
        ([0, 1, 2], [[0.2, 0.3, 0.5]] * 2, "truth, score and weights have shapes"),
    ],
)
def test_what_no_metric_can_take_is_refused(truth: list[float], score: list[list[float]], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        checked("classification", truth, score)


def test_importance_of_many_classes() -> None:
    iris = load_iris(as_frame=True)
    model = LogisticRegression(max_iter=500).fit(iris.data, iris.target)
    found = permutation_importance(model.predict_proba, iris.data, iris.target, "log_loss", 0)
    assert next(iter(found)) == "petal length (cm)"


def test_a_column_that_knows_the_target_is_found_and_one_that_tells_a_single_class_is_none() -> None:
    iris = load_iris(as_frame=True)
    frame = iris.data.assign(
        leak=iris.target.to_numpy() * -1.0, word=np.array(["x", "y", "z"])[iris.target],
        noise=np.random.default_rng(0).normal(size=150),
    )  # fmt: skip
    frame = pd.concat([frame] * 4, ignore_index=True)
    found = separations(frame, np.tile(iris.target, 4), "classification")
    assert found["leak"] == found["word"] == 1.0
    # A petal's width tells setosa without fault, and the other two from each other nearly.
    assert 0.9 < found["petal width (cm)"] < 0.999
    assert found["sepal width (cm)"] < 0.9
