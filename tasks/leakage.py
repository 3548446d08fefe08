"""Probes for leakage: rows seen before, and columns that know the target. What follows from them is the gate's."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.metrics import FloatArray, Task


def shared_rows(holdout_ids: Iterable[object], *training_ids: Iterable[object]) -> int:
    """How many rows of the holdout are among the training rows of any model."""
    trained = pd.Index([each for ids in training_ids for each in ids], dtype=object)
    return int(pd.Index(list(holdout_ids), dtype=object).isin(trained).sum())


def separations(frame: pd.DataFrame, truth: npt.ArrayLike, task: Task) -> dict[str, float]:
    """How well each column alone tells the truth, the best first: a probe for leakage.

    AUC in [0.5, 1] for classification, squared rank correlation for regression. Columns of text count by the mean
    truth of their values, learned on every second row and judged on the others.
    """
    values = np.asarray(truth, dtype=np.float64)
    found = {str(column): _separation(frame[column], values, task) for column in frame.columns}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _separation(column: pd.Series, truth: FloatArray, task: Task) -> float:
    column = column.reset_index(drop=True)
    if not pd.api.types.is_numeric_dtype(column):
        learned = np.arange(len(truth)) % 2 == 0
        means = pd.Series(truth[learned]).groupby(column[learned].fillna("").to_numpy()).mean()
        column = column[~learned].fillna("").map(means).reset_index(drop=True)
        truth = truth[~learned]
    known = column.notna().to_numpy(dtype=bool)
    if known.sum() < 0.5 * len(truth) or np.ptp(truth[known]) == 0:
        return 0.5 if task == "classification" else 0.0
    ranks = column[known].astype("float64").rank().to_numpy()
    if task == "regression":
        ranked_truth = pd.Series(truth[known]).rank().to_numpy()
        return float(np.corrcoef(ranks, ranked_truth)[0, 1] ** 2) if np.ptp(ranks) else 0.0
    positive = truth[known] > 0.5
    count = int(positive.sum())
    auc = (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(ranks) - count))
    return float(max(auc, 1 - auc))
