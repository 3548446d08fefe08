"""What rows say on which nobody acted: their weights, how many rows these are worth, figures by them. Pure.

Where predictions are acted on, outcomes are what the acting made of them: a loan that was refused is never paid back,
a machine that was stopped does not break. A control group, left alone at random, has the outcomes that a model is
about. Each of its rows has a known chance to be left alone, its propensity, and stands for 1/propensity rows: sums
weighted so are unbiased for all rows (Horvitz and Thompson, "A generalization of sampling without replacement from a
finite universe", JASA 1952); means divide by the weights' sum, which is steadier (Hájek 1971).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from perennial.model.scores import is_many, likeliest
from tasks.measures.bootstrap import Interval, metric_interval
from tasks.measures.quality import Floats, MeanLoss, mean_loss, row_losses

CONTROL, TREATED = "control", "treated"
APART = 0.99
_BLOCKS = 20
_RESAMPLES = 500


@dataclass(frozen=True)
class Experiment:
    """Which rows were acted on while a control group was set, as the serving log says.

    Attributes:
        treated: The ids on whose predictions the application could act.
        chances: Of each id of the control group its propensity.
        since: The event time of the first row of either group; NaT without any.
        whole_log: Whether every answered row is logged: then one without a group was not answered, or before all this.
    """

    treated: frozenset[str]
    chances: Mapping[str, float]
    since: pd.Timestamp
    whole_log: bool = True

    def weights(self, ids: pd.Series[Any], times: pd.Series[Any]) -> Floats:
        """For how many rows each stands, shape (n,); 0 for one that was acted on, or may have been.

        The control group's have the inverse of their chance, clipped; rows without a group stand for themselves, but
        not those since the first group where the log is a sample: they may have been answered, and acted on.
        """
        chances = ids.map(dict(self.chances)).to_numpy(dtype=np.float64)
        mine = np.isfinite(chances)
        weights = np.ones(len(ids), dtype=np.float64)
        weights[mine] = 1.0 / chances[mine]
        weights[~mine & ids.isin(self.treated).to_numpy()] = 0.0
        if not self.whole_log:
            weights[~mine & (times >= self.since).to_numpy()] = 0.0
        return clipped(weights)


def experiment_of(log: pd.DataFrame, *, whole_log: bool) -> Experiment:
    """From the log's rows that have a group, columns id, time, group and propensity. An id once acted on stays so."""
    log = log[log["propensity"] > 0]
    treated = frozenset(log.loc[log["group"] == TREATED, "id"])
    control = log[(log["group"] == CONTROL) & ~log["id"].isin(treated)].drop_duplicates("id")
    chances = dict(zip(control["id"], control["propensity"].astype(float), strict=True))
    return Experiment(treated, chances, log["time"].min(), whole_log)


def clipped(weights: Floats) -> Floats:
    """No weight above √n times the mean of those above zero, n how many these are.

    A few rows that stand for very many would be all that is seen. So clipped, the error of the mean goes to zero as
    rows grow, whatever the chances (Ionides, "Truncated importance sampling", J. Comput. Graph. Statist. 2008).
    """
    counted = weights[weights > 0]
    return weights if not len(counted) else np.minimum(weights, math.sqrt(len(counted)) * float(counted.mean()))


def effective_rows(weights: Floats) -> float:
    """So many rows of one weight would give as sure a mean (Kish, Survey Sampling, 1965): (Σw)² / Σw²."""
    total = float(weights.sum())
    return total**2 / float((weights**2).sum()) if total > 0 else 0.0


@dataclass(frozen=True)
class Figure:
    """How a model does on some rows.

    Attributes:
        effective_rows: Of Kish; the number of rows where all weigh the same.
        loss: Its mean loss.
        seen: The mean truth; of many classes, how often the likeliest came true.
        said: The mean score; of many classes, how likely the likeliest was said to be.
        gap: seen less said, row by row: calibration in the large.
        calibration_error: Of two classes, the expected one, with its interval; else None.
    """

    rows: int
    effective_rows: float
    loss: MeanLoss
    seen: MeanLoss
    said: float
    gap: MeanLoss
    calibration_error: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types; what can't be told is None."""
        error = self.calibration_error
        return {
            "rows": self.rows,
            "effective_rows": round(self.effective_rows, 3),
            "loss": _told(self.loss),
            "seen": _told(self.seen),
            "said": _known(self.said),
            "gap": _told(self.gap),
            "calibration_error": None
            if error is None
            else [_known(v) for v in (error.estimate, error.low, error.high)],
        }


def figure(
    truth: Floats,
    score: Floats,
    loss: str,
    task: Literal["classification", "regression"],
    weights: Floats | None = None,
) -> Figure:
    """The figure of rows in order of time.

    Args:
        truth: Shape (n,).
        score: Shape (n,), or of many classes (n, k).
        loss: A loss per row, see `tasks.measures.quality.row_losses`.
        task: Of two classes the calibration error is measured too.
        weights: For how many rows each stands, above 0, shape (n,).
    """
    many = is_many(score)
    seen = (likeliest(score) == truth).astype(np.float64) if many else truth
    said = score.max(axis=1) if many else score
    worth = float(len(truth)) if weights is None else effective_rows(weights)
    error = None
    if task == "classification" and not many and len(truth) >= _BLOCKS:
        blocks = np.arange(len(truth)) * _BLOCKS // len(truth)
        error = metric_interval(
            "calibration_error", truth, score, blocks=blocks, weights=weights, resamples=_RESAMPLES
        )  # fmt: skip
    return Figure(
        rows=len(truth),
        effective_rows=worth,
        loss=mean_loss(row_losses(truth, score, loss), weights=weights),
        seen=mean_loss(seen, weights=weights),
        said=mean_loss(said, weights=weights).mean,
        gap=mean_loss(seen - said, weights=weights),
        calibration_error=error,
    )


def differ(one: MeanLoss, other: MeanLoss, confidence: float = APART) -> bool:
    """Whether two means of different rows are surely not the same (two-sided, normal)."""
    reach = float(stats.norm.ppf(0.5 + confidence / 2)) * float(np.hypot(one.standard_error, other.standard_error))
    return bool(abs(one.mean - other.mean) > reach)  # never where one is unknown


def _told(mean: MeanLoss) -> list[float | None]:
    """The mean, and its 95 % interval."""
    return [_known(value) for value in (mean.mean, *mean.interval())]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
