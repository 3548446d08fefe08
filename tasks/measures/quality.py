"""The champion's loss on mature rows, with an interval, and how many of them have labels. No verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from perennial.errors import DataError
from perennial.model.scores import is_many, likeliest, of_truth, one_hot

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CLIP = 1e-6
AGES = 4
INCOMPLETE = 0.1
ADDITIVE = {
    "log_loss": "log_loss",
    "brier": "brier",
    "accuracy": "error",
    "mse": "mse",
    "rmse": "mse",
    "mae": "mae",
    "median_absolute_error": "mae",
    "r2": "mse",
}


@dataclass(frozen=True)
class MeanLoss:
    """A mean loss per row.

    Attributes:
        mean: NaN without rows.
        standard_error: The greater of what independent rows and what blocks of time give; NaN below two rows.
        rows: How many.
    """

    mean: float
    standard_error: float
    rows: int

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The normal interval of the mean."""
        reach = float(stats.norm.ppf(0.5 + confidence / 2)) * self.standard_error
        return (self.mean - reach, self.mean + reach)


@dataclass(frozen=True)
class Coverage:
    """How many of the mature predictions have labels.

    Attributes:
        predictions: Mature predictions.
        labelled: Those with a label.
        by_age: Oldest first, per quarter of the window: (age in days at its newest end, predictions, labelled).
    """

    predictions: int
    labelled: int
    by_age: tuple[tuple[float, int, int], ...]

    @property
    def share(self) -> float:
        return self.labelled / self.predictions if self.predictions else 0.0


def additive_loss(metric: str, task: str) -> str:
    """The loss per row that stands for a metric: ranking metrics have none, so the task's proper loss does."""
    return ADDITIVE.get(metric, "log_loss" if task == "classification" else "mse")


def row_losses(truth: Floats, score: Floats, loss: str) -> Floats:
    """Each row's loss, shape (n,): log_loss (natural logarithm), brier, error (of the likeliest class), mse or mae.

    Args:
        truth: Shape (n,); the class's code for classification.
        score: Shape (n,), or of many classes (n, k).

    Raises:
        DataError: The loss is not one of these.
    """
    if is_many(score):
        return _many_losses(truth, score, loss)
    if loss == "log_loss":
        p = np.clip(score, CLIP, 1 - CLIP)
        return np.asarray(-(truth * np.log(p) + (1 - truth) * np.log1p(-p)), dtype=np.float64)
    if loss in ("brier", "mse"):
        return np.asarray((truth - score) ** 2, dtype=np.float64)
    if loss == "mae":
        return np.asarray(np.abs(truth - score), dtype=np.float64)
    if loss == "error":
        return np.asarray((score >= 0.5) != (truth >= 0.5), dtype=np.float64)
    raise DataError(f"{loss!r} is no loss per row", "Use log_loss, brier, error, mse or mae")


def _many_losses(truth: Floats, score: Floats, loss: str) -> Floats:
    if loss == "log_loss":
        return np.asarray(-np.log(np.clip(of_truth(score, truth), CLIP, 1 - CLIP)), dtype=np.float64)
    if loss == "brier":
        return np.asarray(((score - one_hot(truth, score.shape[1])) ** 2).sum(axis=1), dtype=np.float64)
    if loss == "error":
        return np.asarray(likeliest(score) != truth, dtype=np.float64)
    raise DataError(f"{loss!r} is no loss of a row of classes", "Use log_loss, brier or error")


def mean_loss(losses: Floats, blocks: int = 8, weights: Floats | None = None) -> MeanLoss:
    """The mean and its standard error; rows in order of time: `blocks` contiguous parts carry autocorrelation.

    Args:
        losses: Shape (n,).
        blocks: The number of parts.
        weights: For how many rows each stands, shape (n,): the mean is Hájek's, its error that of its linearised form
            (Särndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, section 5.7).
    """
    rows = len(losses)
    if weights is not None and rows > 1:
        relative = weights / weights.mean()
        mean = float((relative * losses).mean())
        around = mean_loss(relative * (losses - mean), blocks)
        return MeanLoss(mean, around.standard_error, rows)
    if rows == 0:
        return MeanLoss(float("nan"), float("nan"), 0)
    mean = float(losses.mean())
    if rows < 2:
        return MeanLoss(mean, float("nan"), rows)
    error = float(losses.std(ddof=1)) / np.sqrt(rows)
    if rows >= 4 * blocks:
        means = np.array([part.mean() for part in np.array_split(losses, blocks)])
        error = max(error, float(means.std(ddof=1)) / np.sqrt(blocks))
    return MeanLoss(mean, float(error), rows)


def complete_ages(
    times: Counts, labelled: NDArray[np.bool_], end: int, length: int, reached: float = 0.0
) -> NDArray[np.bool_]:
    """Which rows are of an age whose labels have come, shape (n,): young rows have those that come first, a biased few.

    An age (a quarter of a window) is complete when as large a share of its rows has labels as of the best age, or as
    older windows have reached: chance of 3 standard errors and INCOMPLETE are allowed for. Where labels come for a
    share of the rows only, whatever their age, all ages are complete.

    Args:
        times: Shape (n,), microseconds.
        labelled: Shape (n,).
        end: The end of the mature time, microseconds.
        length: An age's length in microseconds.
        reached: The share that older windows have reached, as far as is known.
    """
    if not len(times):
        return np.zeros(0, dtype=bool)
    age = np.asarray(np.maximum(0, (end - 1 - times) // length), dtype=np.int64)
    rows = np.bincount(age)
    with_label = np.bincount(age, weights=labelled)
    share = (with_label + 1) / (rows + 2)
    chance = 3 * np.sqrt(share * (1 - share) / (rows + 2))
    best = max(float(np.max(np.where(rows > 0, share - chance, 0.0))), reached)
    return np.asarray((share + chance >= (1 - INCOMPLETE) * best)[age], dtype=bool)


def coverage(times: Counts, labelled: NDArray[np.bool_], start: int, end: int, as_of: int) -> Coverage:
    """Labels per quarter of the window [start, end); all times in microseconds since 1970.

    Args:
        times: Shape (n,), of the predictions.
        labelled: Shape (n,).
        start: The window's first moment.
        end: The window's end.
        as_of: The moment of the check.
    """
    edges = np.linspace(start, end, AGES + 1)
    quarter = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, AGES - 1)
    by_age = tuple(
        (round(float(as_of - edges[i + 1]) / 86_400e6, 3), int((quarter == i).sum()), int(labelled[quarter == i].sum()))
        for i in range(AGES)
    )
    return Coverage(len(times), int(labelled.sum()), by_age)
