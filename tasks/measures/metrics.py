"""What a score is worth: metrics, losses by row, slices, curves and importance. No intervals, no verdicts, no I/O.

A metric's *loss* is the metric itself where smaller is better, and one minus it where greater is better (every such
metric has 1 as its best), so that "ten per cent less loss" means something for each of them.

Scores of two classes are P(positive), shape (n,). Those of k > 2 are of shape (n, k), and truth is the class's code:
then log loss is that of the class that came true, Brier the sum over the classes (Brier 1950: 0 to 2), and what is made
for two classes (ROC AUC, average precision, F1, recall, calibration error) the plain mean over the classes that occur,
each against the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from perennial.definition import CLASSIFICATION_METRICS, GREATER_IS_BETTER, REGRESSION_METRICS
from perennial.errors import DataError
from perennial.model.scores import improbable, is_many, likeliest, of_truth, one_hot

FloatArray = npt.NDArray[np.float64]
Task = Literal["classification", "regression"]
ROW_LOSSES = frozenset({"log_loss", "brier", "accuracy", "mse", "mae"})
CALIBRATION_BINS = 10
CURVE_POINTS = 101
_SLICE_VALUES = 20
_EPSILON = float(np.finfo(np.float64).eps)
_MISSING = "missing"
_SHUFFLED_CELLS = 500_000


@dataclass(frozen=True)
class SliceMetrics:
    """One slice's metrics: the rows where `column` is `value`."""

    column: str
    value: str
    rows: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Curves:
    """Three curves of `CURVE_POINTS` points each, at 0, 0.01, …, 1 of the horizontal axis; NaN where undefined."""

    roc: FloatArray
    precision_recall: FloatArray
    calibration: FloatArray


def metric_names(task: Task) -> tuple[str, ...]:
    """Every metric that `metric_table` gives for a task, in its order."""
    return (*CLASSIFICATION_METRICS, "calibration_error") if task == "classification" else REGRESSION_METRICS


def as_loss(metric: str, value: float) -> float:
    """The metric's value as a loss: smaller is better, 0 is best."""
    return 1.0 - value if metric in GREATER_IS_BETTER else value


def improvement(metric: str, value: float, reference: float) -> float:
    """By how much `value` is better than `reference` in the metric's own unit; negative when it is worse."""
    return as_loss(metric, reference) - as_loss(metric, value)


def is_improvement(metric: str, value: float, reference: float) -> bool:
    """Whether `value` is better than `reference`; never when one of them is NaN."""
    return improvement(metric, value, reference) > 0


def checked(
    task: Task, truth: npt.ArrayLike, score: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Truth, score and weights as float64 of shape (n,), score of (n, k), after refusing what no metric can take.

    Raises:
        DataError: Lengths differ, values are missing or infinite, a truth is the code of no class, a probability lies
            outside [0, 1], those of many classes don't add up to one, or a weight is negative.
    """
    truth_values, scores = (np.asarray(values, dtype=np.float64) for values in (truth, score))
    row_weights = np.ones(len(truth_values)) if weights is None else np.asarray(weights, dtype=np.float64)
    fits = scores.shape[:1] == truth_values.shape == row_weights.shape and scores.ndim in (1, 2)
    if truth_values.ndim != 1 or not fits or (is_many(scores) and task != "classification"):
        shapes = f"{truth_values.shape}, {scores.shape} and {row_weights.shape}"
        raise DataError(f"truth, score and weights have shapes {shapes}", "Give one value of each for every row")
    for name, values in (("truth", truth_values), ("score", scores), ("weight", row_weights)):
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            raise DataError(
                f"{bad} of {len(values)} {name} values are missing or infinite", "Leave out or mend these rows"
            )
    if bad := int(np.count_nonzero(row_weights < 0)):
        raise DataError(f"{bad} of {len(row_weights)} weights are negative", "Give weights of zero or more")
    if task == "classification":
        classes = scores.shape[1] if is_many(scores) else 2
        if bad := int(np.count_nonzero(~np.isin(truth_values, np.arange(classes)))):
            wanted = "neither 0 nor 1" if classes == 2 else f"none of 0 to {classes - 1}"
            raise DataError(f"{bad} of {len(scores)} truth values are {wanted}", "Encode the target by its classes")
        if bad := int(np.count_nonzero(improbable(scores))):
            raise DataError(f"{bad} of {len(scores)} scores are no probabilities", "Score with the classes'")
    return truth_values, scores, row_weights


def metric_table(
    task: Task,
    truth: npt.ArrayLike,
    score: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """The task's metrics; NaN where one is undefined on these rows (no rows, one class, constant truth).

    Args:
        task: Classification scores are P(positive) or each class's, regression scores are predicted values.
        truth: Shape (n,); the class's code for classification.
        score: Shape (n,), or (n, k).
        weights: Shape (n,), zero or more; all equal when None.
        names: Which of them, without the cost of the others; all when None.

    Raises:
        DataError: As `checked` says.
    """
    wanted = metric_names(task) if names is None else names
    arrays = checked(task, truth, score, weights)
    kept = arrays[2] > 0
    truth_values, scores, row_weights = (values[kept] for values in arrays)
    if not len(scores):
        return dict.fromkeys(wanted, math.nan)
    from sklearn import config_context

    table = _many_classes if is_many(scores) else _classification if task == "classification" else _regression
    with config_context(assume_finite=True, skip_parameter_validation=True):  # both are checked above
        known = table(truth_values, scores, row_weights)
        return {name: float(known[name]()) for name in wanted}


def metric_value(
    metric: str, task: Task, truth: npt.ArrayLike, score: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """One metric of `metric_table`, without the cost of the others."""
    return metric_table(task, truth, score, weights, (metric,))[metric]


def _classification(truth: FloatArray, score: FloatArray, weights: FloatArray) -> dict[str, Callable[[], float]]:
    from sklearn import metrics

    label = (score >= 0.5).astype(np.float64)
    both = 0 < np.count_nonzero(truth) < len(truth)
    by_weight: dict[str, Any] = {"sample_weight": weights}

    def of_both(metric: Callable[..., float], given: FloatArray) -> Callable[[], float]:
        return lambda: metric(truth, given, **by_weight) if both else math.nan

    return {
        "roc_auc": of_both(metrics.roc_auc_score, score),
        "average_precision": of_both(metrics.average_precision_score, score),
        "log_loss": lambda: metrics.log_loss(truth, score, labels=[0.0, 1.0], **by_weight),
        "brier": lambda: metrics.brier_score_loss(truth, score, labels=[0.0, 1.0], **by_weight),
        "accuracy": lambda: metrics.accuracy_score(truth, label, **by_weight),
        "balanced_accuracy": of_both(metrics.balanced_accuracy_score, label),
        "f1": lambda: metrics.f1_score(truth, label, zero_division=0.0, **by_weight) if truth.any() else math.nan,
        "calibration_error": lambda: calibration_error(truth, score, weights),
    }


def _many_classes(truth: FloatArray, score: FloatArray, weights: FloatArray) -> dict[str, Callable[[], float]]:
    occurring = np.unique(truth).astype(np.intp)

    def mean(metric: str) -> Callable[[], float]:
        return lambda: _mean_over_classes(metric, truth, score, weights, occurring)

    def mean_of(metric: str) -> Callable[[], float]:
        return lambda: float(np.average(row_losses(metric, truth, score), weights=weights))

    return {
        "roc_auc": mean("roc_auc"),
        "average_precision": mean("average_precision"),
        "log_loss": mean_of("log_loss"),
        "brier": mean_of("brier"),
        "accuracy": lambda: 1 - mean_of("accuracy")(),
        "balanced_accuracy": mean("recall"),
        "f1": mean("f1"),
        "calibration_error": lambda: calibration_error(truth, score, weights),
    }


def _mean_over_classes(
    metric: str, truth: FloatArray, score: FloatArray, weights: FloatArray, occurring: npt.NDArray[np.intp]
) -> float:
    """NaN where a single class occurs."""
    if len(occurring) < 2:
        return math.nan
    said = likeliest(score)
    return float(np.mean([_of_class(metric, truth == c, score[:, c], said == c, weights) for c in occurring]))


def _of_class(
    metric: str, true: npt.NDArray[np.bool_], score: FloatArray, said: npt.NDArray[np.bool_], weights: FloatArray
) -> float:
    """One class against the rest: of its probability (ROC AUC, average precision), or of the answers."""
    from sklearn import metrics

    if metric == "roc_auc":
        return float(metrics.roc_auc_score(true, score, sample_weight=weights))
    if metric == "average_precision":
        return float(metrics.average_precision_score(true, score, sample_weight=weights))
    hits, own, claims = (float(weights[rows].sum()) for rows in (true & said, true, said))
    if metric == "recall":
        return hits / own if own else math.nan
    if metric == "precision":
        return hits / claims if claims else math.nan
    return 2 * hits / (own + claims) if own + claims else math.nan


CLASS_METRICS = ("roc_auc", "average_precision", "recall", "precision", "f1")


def class_table(truth: npt.ArrayLike, score: npt.ArrayLike, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each class against the rest, of more than two: `CLASS_METRICS` and how many rows are of it; NaN where undefined.

    Args:
        truth: Shape (n,), codes.
        score: Shape (n, k).
        classes: The k names.

    Raises:
        DataError: As `checked` says.
    """
    values, scores, weights = checked("classification", truth, score)
    said, found = likeliest(scores), {}
    for code, name in enumerate(classes):
        true = values == code
        known = bool(true.any()) and not bool(true.all())
        found[name] = {"rows": float(true.sum())} | {
            metric: _of_class(metric, true, scores[:, code], said == code, weights)
            if known or metric in ("recall", "precision", "f1")
            else math.nan
            for metric in CLASS_METRICS
        }
    return found


def confusion(truth: npt.ArrayLike, score: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """How many rows of each class (row) were answered as which (column): shape (k, k)."""
    values, scores, _ = checked("classification", truth, score)
    cells = values.astype(np.int64) * classes + likeliest(scores).astype(np.int64)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _regression(truth: FloatArray, score: FloatArray, weights: FloatArray) -> dict[str, Callable[[], float]]:
    from sklearn import metrics

    by_weight: dict[str, Any] = {"sample_weight": weights}
    return {
        "rmse": lambda: metrics.root_mean_squared_error(truth, score, **by_weight),
        "mae": lambda: metrics.mean_absolute_error(truth, score, **by_weight),
        "mse": lambda: metrics.mean_squared_error(truth, score, **by_weight),
        "r2": lambda: metrics.r2_score(truth, score, **by_weight) if np.ptp(truth) > 0 else math.nan,
        "median_absolute_error": lambda: metrics.median_absolute_error(truth, score, **by_weight),
    }


def calibration_bins(score: FloatArray, bins: int = CALIBRATION_BINS) -> npt.NDArray[np.intp]:
    """Each row's bin, 0 … bins - 1: about equal numbers of rows in each, equal scores always together."""
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.asarray(np.searchsorted(edges, score, side="right"), dtype=np.intp)


def calibration_error(truth: FloatArray, score: FloatArray, weights: FloatArray) -> float:
    """Expected calibration error over bins of equal numbers: the mean distance of said and seen probability.

    Source: Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning" (2015),
    with bins of equal mass (Nguyen and O'Connor 2015), which don't leave a bin with a handful of rows. Of many classes
    the mean of each class's (classwise: Kull, Perello-Nieto and others, "Beyond temperature scaling", 2019).
    """
    if is_many(score):
        hot = one_hot(truth, score.shape[1])
        return float(np.mean([calibration_error(hot[:, c], score[:, c], weights) for c in range(score.shape[1])]))
    gaps = np.bincount(calibration_bins(score), weights=weights * (score - truth))
    return float(np.abs(gaps).sum() / weights.sum())


def row_losses(metric: str, truth: npt.ArrayLike, score: npt.ArrayLike) -> FloatArray:
    """Each row's loss, shape (n,); their (weighted) mean is the metric's loss. Accuracy becomes the error, 0 or 1.

    Raises:
        DataError: The metric is no mean over rows.
    """
    truth_values, scores = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if is_many(scores):
        return _many_losses(metric, truth_values, scores)
    if metric == "log_loss":
        clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
        losses: FloatArray = -np.log(np.where(truth_values > 0.5, clipped, 1 - clipped))
        return losses
    if metric in ("brier", "mse"):
        return (truth_values - scores) ** 2
    if metric == "mae":
        return np.abs(truth_values - scores)
    if metric == "accuracy":
        return np.asarray((scores >= 0.5) != (truth_values > 0.5), dtype=np.float64)
    raise DataError(f"{metric} is no mean over rows", f"Take one of {', '.join(sorted(ROW_LOSSES))}")


def _many_losses(metric: str, truth: FloatArray, scores: FloatArray) -> FloatArray:
    if metric == "log_loss":
        return -np.log(np.clip(of_truth(scores, truth), _EPSILON, 1 - _EPSILON))
    if metric == "brier":
        return np.asarray(((scores - one_hot(truth, scores.shape[1])) ** 2).sum(axis=1))
    if metric == "accuracy":
        return np.asarray(likeliest(scores) != truth, dtype=np.float64)
    raise DataError(f"{metric} is no mean over rows of classes", "Take one of accuracy, brier, log_loss")


def iterate_slices(slices: Mapping[str, npt.ArrayLike]) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """Every slice as (column, value, mask); numbers with many values become quarters, missing ones are a slice too."""
    for column, values in slices.items():
        series = pd.Series(values).reset_index(drop=True)
        if pd.api.types.is_numeric_dtype(series) and series.nunique() > _SLICE_VALUES:
            series = pd.Series(pd.qcut(series, 4, duplicates="drop").astype(str).where(series.notna()))
        codes, uniques = pd.factorize(series, sort=False)
        for code in sorted(set(codes.tolist())):
            yield column, _MISSING if code < 0 else str(uniques[code]), codes == code


def slice_table(
    task: Task,
    truth: npt.ArrayLike,
    score: npt.ArrayLike,
    slices: Mapping[str, npt.ArrayLike],
    minimum_rows: int,
    weights: npt.ArrayLike | None = None,
) -> list[SliceMetrics]:
    """The metrics of every slice of at least `minimum_rows` rows, the largest first.

    Raises:
        DataError: As `checked` says, or a slice column has another length.
    """
    truth_values, scores, row_weights = checked(task, truth, score, weights)
    table = []
    for column, value, mask in iterate_slices(slices):
        if len(mask) != len(scores):
            raise DataError(f"slice {column} has {len(mask)} rows of {len(scores)}", "Give one value for every row")
        if (rows := int(mask.sum())) >= minimum_rows:
            metrics = metric_table(task, truth_values[mask], scores[mask], row_weights[mask])
            table.append(SliceMetrics(column, value, rows, metrics))
    return sorted(table, key=lambda entry: (-entry.rows, entry.column, entry.value))


def curves(truth: npt.ArrayLike, score: npt.ArrayLike) -> Curves:
    """ROC (true by false positive rate), precision by recall, and seen by said probability.

    Precision at a recall is the best one at that recall or beyond. The calibration curve is the isotonic fit of truth
    on score (the CORP reliability diagram of Dimitriadis, Gneiting and Jordan, 2021), NaN outside the scores' range.

    Raises:
        DataError: As `checked` says.
    """
    truth_values, scores, _ = checked("classification", truth, score)
    nothing = np.full(CURVE_POINTS, math.nan)
    if not 0 < np.count_nonzero(truth_values) < len(truth_values):
        return Curves(nothing, nothing.copy(), nothing.copy())
    from sklearn import metrics
    from sklearn.isotonic import IsotonicRegression

    grid = np.linspace(0, 1, CURVE_POINTS)
    false_rate, true_rate, _ = metrics.roc_curve(truth_values, scores)
    precision, recall, _ = metrics.precision_recall_curve(truth_values, scores)
    best = np.maximum.accumulate(precision[:-1])  # the last point is an artificial (recall 0, precision 1)
    at_recall = best[np.searchsorted(-recall[:-1], -grid, side="right") - 1]
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, truth_values).predict(grid)
    inside = (grid >= scores.min() - 0.005) & (grid <= scores.max() + 0.005)
    return Curves(np.interp(grid, false_rate, true_rate), at_recall, np.where(inside, fitted, math.nan))


def permutation_importance(
    predict: Callable[[pd.DataFrame], npt.ArrayLike],
    frame: pd.DataFrame,
    truth: npt.ArrayLike,
    metric: str,
    seed: int,
    columns: Sequence[str] | None = None,
    max_rows: int = 2000,
    repeats: int = 2,
) -> dict[str, float]:
    """How much loss rises when a column is shuffled, the greatest first; NaN when the metric is undefined.

    `predict` is asked for several columns' rows at once where they are few: a pipeline's fixed cost a call is high.

    Args:
        predict: A frame of n rows to n scores.
        frame: The rows; a random `max_rows` of them are used.
        truth: Shape (n,).
        metric: Any metric of the definition.
        seed: Chooses rows and shuffles.
        columns: Those to shuffle; all by default.
        max_rows: Bounds the work.
        repeats: Shuffles averaged for each column.
    """
    generator = np.random.default_rng(seed)
    truth_values = np.asarray(truth, dtype=np.float64)
    task: Task = "regression" if metric in REGRESSION_METRICS else "classification"
    if len(frame) > max_rows:
        chosen = np.sort(generator.choice(len(frame), max_rows, replace=False))
        frame, truth_values = frame.iloc[chosen], truth_values[chosen]
    frame = frame.reset_index(drop=True)
    count = len(frame)

    def loss(score: npt.ArrayLike) -> float:
        return as_loss(metric, metric_value(metric, task, truth_values, score))

    base = loss(predict(frame))
    names = list(frame.columns if columns is None else columns)
    found = {}
    at_once = max(1, _SHUFFLED_CELLS // max(1, repeats * frame.size))
    for first in range(0, len(names), at_once):
        some = names[first : first + at_once]
        in_order = np.tile(np.arange(count), len(some) * repeats)
        shuffled = frame.take(in_order).reset_index(drop=True)
        for number, column in enumerate(some):
            own, start = in_order.copy(), number * repeats * count
            own[start : start + repeats * count] = np.concatenate(
                [generator.permutation(count) for _ in range(repeats)]
            )
            shuffled[column] = frame[column].take(own).reset_index(drop=True)
        scores = np.asarray(predict(shuffled), dtype=np.float64)
        scores = scores.reshape(len(some), repeats, count, *scores.shape[1:])
        for column, parts in zip(some, scores, strict=True):
            found[str(column)] = float(np.mean([loss(part) for part in parts]) - base)
    return dict(sorted(found.items(), key=lambda entry: -entry[1] if entry[1] == entry[1] else math.inf))
