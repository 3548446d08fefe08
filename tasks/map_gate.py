"""A new map in front of the gate: cross-fitted by days and judged as any challenger is. Pure; it fits no final map.

The check asks this before it asks for a recalibration, and the run that makes the map asks it again: one judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.definition import GatePolicy
from tasks.gate import Evidence, GateReport, judge
from tasks.recalibration import METHODS, Floats, Task, cross_fit

LEAST_DAYS = 4
_RUNS = 8


@dataclass(frozen=True)
class MapCourt:
    """By whose rules a map is judged.

    Attributes:
        metric: The one to compare.
        baseline: The mean truth of the champion's training: what a model that learned nothing says; NaN if unknown.
        strength: As in `tasks.recalibration.fit_recalibration`.
    """

    policy: GatePolicy
    task: Task
    metric: str
    baseline: float
    strength: float
    seed: int = 0


def time_blocks(times: pd.Series[Any]) -> NDArray[np.intp]:
    """Each row's day, 0 …; where there are fewer than four days, its eighth of the rows, which are in order of time."""
    days = np.unique(times.dt.floor("D").astype("int64").to_numpy(), return_inverse=True)[1].astype(np.intp)
    if len(days) and int(days.max()) + 1 >= LEAST_DAYS:
        return days
    return np.arange(len(times)) * min(_RUNS, len(times)) // max(len(times), 1)


def cross_fitted(rows: pd.DataFrame, court: MapCourt) -> Floats:
    """What the map of the other days makes of each row's raw score."""
    truth, raw = (rows[name].to_numpy(dtype=np.float64) for name in ("truth", "raw_score"))
    method = METHODS[court.task][0]
    return cross_fit(truth, raw, court.task, method, court.strength, time_blocks(rows["time"]))


def judge_mapped(rows: pd.DataFrame, court: MapCourt) -> GateReport:
    """The gate's verdict: the cross-fitted map beside what the champion answered, on the same mature rows.

    Args:
        rows: time, truth, score (what was answered) and challenger (`cross_fitted`), in order of time.
    """
    truth = rows["truth"].to_numpy(dtype=np.float64)
    evidence = Evidence(
        truth=truth,
        challenger=rows["challenger"].to_numpy(),
        champion=rows["score"].to_numpy(),
        baseline=np.full(len(rows), truth.mean() if np.isnan(court.baseline) else court.baseline),
        overlap_rows=0,
        same_model=True,
        blocks=time_blocks(rows["time"]),
    )
    return judge(evidence, court.policy, task=court.task, metric=court.metric, seed=court.seed)
