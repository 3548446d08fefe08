"""How good a model is, for people: metrics and slices with intervals, calibration, weak segments. It judges nothing.

All of it is JSON's own types, kept with a version as `evaluation.json`, for its card.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from perennial.model.scores import is_many, likeliest
from tasks.measures.bootstrap import metric_interval
from tasks.measures.metrics import FloatArray, Task, calibration_bins, iterate_slices, metric_names
from tasks.measures.quality import additive_loss, row_losses
from tasks.measures.segments import make_levels, search

RESAMPLES = 500
_MOST_SLICES = 40


def evaluate(
    task: Task,
    truth: npt.ArrayLike,
    score: npt.ArrayLike,
    *,
    loss: str,
    blocks: npt.ArrayLike | None = None,
    slices: Mapping[str, npt.ArrayLike] | None = None,
    features: pd.DataFrame | None = None,
    minimum_rows: int = 200,
    confidence: float = 0.95,
    columns: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """How good scores are on rows that the model has not seen, in order of time.

    Args:
        task: As in `tasks.measures.metrics`.
        truth: Shape (n,).
        score: Shape (n,), or (n, k) of many classes.
        loss: The metric that models are compared by; slices are told in it.
        blocks: Shape (n,): which rows are drawn together; by default parts of about √n rows.
        slices: Each of shape (n,); the declared ones.
        features: n rows: where weak segments are looked for; None looks nowhere.
        minimum_rows: Smaller slices and segments are not told.
        confidence: Of every interval; of segments together, however many are looked at.
        columns: How many a weak segment is made of at most: 1 or 2.
        seed: Of the resamples.
    """
    truths, scores = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)

    def interval(metric: str, rows: npt.NDArray[np.bool_] | slice = slice(None)) -> dict[str, Any]:
        found = metric_interval(
            metric, truths[rows], scores[rows], blocks=None if blocks is None else np.asarray(blocks)[rows],
            confidence=confidence, resamples=RESAMPLES, seed=seed,
        )  # fmt: skip
        return {"value": _plain(found.estimate), "low": _plain(found.low), "high": _plain(found.high)}

    told: list[dict[str, Any]] = [
        {"column": column, "value_of": value, "rows": int(mask.sum()), "metric": loss} | interval(loss, mask)
        for column, value, mask in iterate_slices(slices or {})
        if mask.sum() >= minimum_rows
    ]
    return {
        "rows": len(truths),
        "confidence": confidence,
        "loss": loss,
        "metrics": {name: interval(name) for name in metric_names(task)},
        "slices": sorted(told, key=lambda item: item["rows"], reverse=True)[:_MOST_SLICES],
        "calibration": calibration_table(task, truths, scores, confidence),
        "segments": weak_segments(task, truths, scores, features, loss, minimum_rows, confidence, columns),
    }


def calibration_table(task: Task, truth: FloatArray, score: FloatArray, confidence: float) -> list[dict[str, Any]]:
    """What was said and what came, in bins of about equal numbers of rows; of many classes of the likeliest.

    The interval of what came is Wilson's for a class (Wilson, "Probable inference", 1927), the mean's for a number.
    """
    if not len(score):
        return []
    if is_many(score):  # how sure the likeliest class was, and how often it came
        truth, score = (likeliest(score) == truth).astype(np.float64), score.max(axis=1)
    codes = calibration_bins(score)
    reach, table = float(stats.norm.ppf(0.5 + confidence / 2)), []
    for code in np.unique(codes):
        came, said = truth[codes == code], float(score[codes == code].mean())
        seen, rows = float(came.mean()), len(came)
        if task == "classification":
            scale = 1 + reach**2 / rows
            centre = (seen + reach**2 / (2 * rows)) / scale
            half = reach / scale * math.sqrt(seen * (1 - seen) / rows + reach**2 / (4 * rows**2))
        else:
            centre, half = seen, reach * float(came.std(ddof=1)) / math.sqrt(rows) if rows > 1 else math.nan
        ends = {"low": _plain(centre - half), "high": _plain(centre + half)}
        table.append({"said": _plain(said), "came": _plain(seen), "rows": rows} | ends)
    return table


def weak_segments(
    task: Task, truth: FloatArray, score: FloatArray, features: pd.DataFrame | None, loss: str, minimum_rows: int,
    confidence: float, columns: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Where loss is surely higher than on all other rows: values and quarters of columns, the worst first.

    A higher loss may lie in the rows and not in the model: what is told is where it is, not why.

    Args:
        columns: 1, or 2 for pairs of columns too.
    """
    if features is None or len(truth) < 2 * minimum_rows:
        return {"looked_at": 0, "found": []}
    per_row = additive_loss(loss, task)
    losses, features = row_losses(truth, score, per_row), features.reset_index(drop=True)
    found = search(
        losses, features, make_levels(features), columns=columns, minimum_rows=minimum_rows, confidence=confidence
    )
    return found.to_dict(per_row, columns)


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
