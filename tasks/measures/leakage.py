"""Probes for leakage: rows seen before, and columns that know the target. What follows from them is the gate's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.measures.metrics import FloatArray, Task

LEAST_ROWS = 20
"""Of the rarer class (for regression, of all): fewer may be told apart by chance."""
_DISTINCT = 200


def shared_rows(holdout_ids: npt.ArrayLike, *training_ids: npt.ArrayLike) -> int:
    """How many rows of the holdout are among the training rows of any model."""
    trained = {each for ids in training_ids for each in np.asarray(ids, dtype=object).tolist()}
    return sum(each in trained for each in np.asarray(holdout_ids, dtype=object).tolist())


def separations(frame: pd.DataFrame, truth: npt.ArrayLike, task: Task) -> dict[str, float]:
    """How well each column alone tells the truth, the best first: a probe for leakage.

    AUC in [0.5, 1] for classification, squared rank correlation for regression; of many classes the least AUC of
    a class against the rest, see `_many_separation`. Columns of text count by the mean truth of their values, learned
    on every second row and judged on the others. A column that is known for less than half the rows, or judged on fewer
    than 20 rows of a class (for regression, of all), tells nothing: 0.5, or 0.
    """
    values = np.asarray(truth, dtype=np.float64)
    if task == "classification" and (values > 1).any():
        found = {str(column): _many_separation(frame[column], values) for column in frame.columns}
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))
    found = {str(column): _separation(frame[column], values, task) for column in frame.columns}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _many_separation(column: pd.Series, truth: FloatArray) -> float:
    """How well the column tells every class: the least of the classes' AUCs against the rest.

    A column that knows the target tells all of them; one that tells a single class without fault, as a petal's length
    tells one of three irises, does not. A number may tell a class in the middle by its nearness, so numbers are taken
    as texts are, by the share of the class in each of at most 200 steps.
    """
    classes = [code for code in np.unique(truth) if (truth == code).sum() >= LEAST_ROWS]
    if len(classes) < 2:
        return 0.5
    column = column.reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > _DISTINCT:
        column = pd.Series(pd.qcut(column, _DISTINCT, labels=False, duplicates="drop"))
    if pd.api.types.is_numeric_dtype(column):
        column = column.astype("float64").astype("str").where(column.notna())
    return min(_separation(column, (truth == code).astype(np.float64), "classification") for code in classes)


def _separation(column: pd.Series, truth: FloatArray, task: Task) -> float:
    column = column.reset_index(drop=True)
    if not pd.api.types.is_numeric_dtype(column):
        learned = np.arange(len(truth)) % 2 == 0
        means = pd.Series(truth[learned]).groupby(column[learned].fillna("").to_numpy()).mean()
        column = column[~learned].fillna("").map(means).reset_index(drop=True)
        truth = truth[~learned]
    nothing = 0.5 if task == "classification" else 0.0
    known = column.notna().to_numpy(dtype=bool)
    truth = truth[known]
    if len(truth) < max(LEAST_ROWS, len(known) / 2):
        return nothing
    ranks = column[known].astype("float64").rank().to_numpy()
    if task == "regression":
        ranked_truth = pd.Series(truth).rank().to_numpy()
        varied = np.ptp(ranks) > 0 and np.ptp(ranked_truth) > 0
        return float(np.corrcoef(ranks, ranked_truth)[0, 1] ** 2) if varied else nothing
    positive = truth > 0.5
    count, others = int(positive.sum()), int((~positive).sum())
    if min(count, others) < LEAST_ROWS:
        return nothing
    auc = (ranks[positive].sum() - count * (count + 1) / 2) / (count * others)
    return float(max(auc, 1 - auc))
