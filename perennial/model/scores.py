"""Scores as arrays and as table cells: one number a row, or one a class where there are more than two. Judges nothing.

A classifier of two classes scores P(positive), a regression its value: shape (n,). One of k > 2 classes scores the
probability of each, in the order of the version's classes: shape (n, k). In a DataFrame, a Delta table and the API's
spool both are one column, `score`: of floats, or of lists of k floats. So whatever carries rows about carries either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from perennial.errors import DataError

Floats = NDArray[np.float64]
ROUNDING = 1e-6
"""So far the sum of a row's probabilities may be from one: what was stored in single precision still counts."""


def is_many(scores: Floats) -> bool:
    """Whether these are scores of more than two classes."""
    return scores.ndim == 2


def score_array(column: pd.Series[Any]) -> Floats:
    """A column's scores: shape (n,), or (n, k) where its cells are lists; NaN where there is none.

    Raises:
        DataError: The cells have different numbers of classes.
    """
    if column.dtype != object or not len(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    cells = column.to_numpy(dtype=object)
    lists = np.fromiter((isinstance(cell, np.ndarray | list | tuple) for cell in cells), bool, len(cells))
    if not lists.any():
        return pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
    widths = {len(cell) for cell in cells[lists]}
    if len(widths) != 1:
        raise DataError(
            f"the scores are of {' and '.join(str(width) for width in sorted(widths))} classes",
            "Score these rows with versions of the same classes",
        )
    scores = np.full((len(cells), widths.pop()), np.nan)
    scores[lists] = np.concatenate(cells[lists]).reshape(-1, scores.shape[1])
    return scores


def own_scores(log: pd.DataFrame) -> pd.Series[Any]:
    """Of logged predictions the model's own scores, before any map: `raw_score` where it was logged, else `score`."""
    if "raw_score" not in log:
        return log["score"]
    return log["raw_score"].where(log["raw_score"].notna(), log["score"])


def score_column(scores: ArrayLike, index: pd.Index[Any] | None = None) -> pd.Series[Any]:
    """The scores as a DataFrame's column; a row of NaN is a missing cell."""
    given = np.asarray(scores, dtype=np.float64)
    if not is_many(given):
        return pd.Series(given, index=index)
    cells = np.empty(len(given), dtype=object)
    cells[:] = list(given)
    cells[np.isnan(given).any(axis=1)] = None
    return pd.Series(cells, index=index, dtype=object)


def score_arrow(scores: Floats) -> pa.Array:
    """The scores as a table's column: float64, or lists of float64."""
    if not is_many(scores):
        return pa.array(scores, type=pa.float64())
    flat = pa.array(np.ascontiguousarray(scores).ravel(), type=pa.float64())
    return pa.FixedSizeListArray.from_arrays(flat, scores.shape[1]).cast(pa.list_(pa.float64()))


def known_scores(scores: Floats) -> NDArray[np.bool_]:
    """Which rows have a finite score: shape (n,)."""
    finite = np.isfinite(scores)
    return np.asarray(finite.all(axis=1) if is_many(scores) else finite)


def improbable(scores: Floats) -> NDArray[np.bool_]:
    """Which rows hold no probabilities: outside of [0, 1], or of k that don't add up to one. Shape (n,)."""
    outside = ~((scores >= 0) & (scores <= 1))
    if not is_many(scores):
        return outside
    return np.asarray(outside.any(axis=1) | ~(np.abs(scores.sum(axis=1) - 1) <= ROUNDING))


def likeliest(scores: Floats, threshold: float = 0.5) -> Floats:
    """The code of each row's answer: the class of the greatest probability, or 1 from the threshold on. Shape (n,)."""
    said = np.argmax(scores, axis=1) if is_many(scores) else scores >= threshold
    return np.asarray(said, dtype=np.float64)


def of_truth(scores: Floats, truth: Floats) -> Floats:
    """The probability that was given to what came true: shape (n,)."""
    if is_many(scores):
        return np.asarray(scores[np.arange(len(truth)), truth.astype(np.int64)])
    return np.where(truth > 0.5, scores, 1 - scores)


def one_hot(truth: Floats, classes: int) -> Floats:
    """Codes of shape (n,) as 0 and 1 by class: shape (n, k)."""
    return np.asarray(truth[:, None] == np.arange(classes), dtype=np.float64)


def shares(truth: Floats, classes: int) -> Floats:
    """The share of each class: shape (k,)."""
    return np.bincount(truth.astype(np.int64), minlength=classes) / max(len(truth), 1)


def constant_scores(score: float | Sequence[float] | Floats, rows: int) -> Floats:
    """One answer for every row: shape (rows,), or (rows, k)."""
    given = np.asarray(score, dtype=np.float64)
    return np.broadcast_to(given, (rows, *given.shape)).copy()


def class_scores(probabilities: Floats, known: ArrayLike | None, classes: int | None = None) -> Floats:
    """What `predict_proba` gives, as scores: of two classes P(1), shape (n,); of more each one's, shape (n, k).

    Args:
        probabilities: Shape (n, number of known classes).
        known: The codes that the estimator has seen, as its `classes_`; None where it does not say: all in order.
        classes: How many there are, where it may have seen fewer; those that it has not get zero.

    Raises:
        DataError: The estimator gives other columns than it has classes.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    width = given.shape[1] if given.ndim == 2 else 0
    codes = np.arange(width) if known is None else np.asarray(known).astype(np.int64)
    if len(codes) != width:
        raise DataError(
            f"the estimator gives {width} probabilities a row for {len(codes)} classes", "Check its predict_proba"
        )
    count = max(classes or 0, int(codes.max(initial=1)) + 1)
    if count == 2:
        return given[:, list(codes).index(1)]
    if width == count and np.array_equal(codes, np.arange(count)):
        return given
    spread = np.zeros((len(given), count))
    spread[:, codes] = given
    return spread
