"""A new map in front of the gate: cross-fitted, and judged with a challenger's checks. Pure; it fits no final map.

The check asks this before it asks for a recalibration, and the run that makes the map asks it again: one judge.

A map is two numbers that the next check can take back, so it is let in on less evidence than a model: it must be ahead
by `monitoring.recalibration_sigmas` standard errors of its rows. By whole days with 95 %, as models are judged, most
maps that help are refused, and a part of the gain that `benchmarks/decisions.py` measures is lost. `gate.doubt` is
about models: a map gets no other benefit of a doubt than this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perennial.definition import GatePolicy
from perennial.model.scores import constant_scores, is_many, score_array, shares
from tasks.calibration.fit import Floats, Task, cross_fit, methods
from tasks.gate.court import judge
from tasks.gate.evidence import Evidence
from tasks.gate.report import GateReport

_LEAST_CONFIDENCE = 0.01


@dataclass(frozen=True)
class MapCourt:
    """By whose rules a map is judged.

    Attributes:
        metric: The one to compare.
        baseline: The mean truth of the champion's training, of many classes their shares: what a model that learned
            nothing says; None if unknown.
        strength: As in `tasks.calibration.fit.fit_recalibration`; 0 where what is judged is the model's own score.
        sigmas: Standard errors by which the map must be ahead.
        minimum_rows: As many rows as let the check test a map: a model's holdout is another matter.
        note: Why the strength is another than the policy's; empty where it is not.
    """

    policy: GatePolicy
    task: Task
    metric: str
    baseline: float | Floats | None
    strength: float
    sigmas: float
    minimum_rows: int
    seed: int = 0
    note: str = ""


def cross_fitted(rows: pd.DataFrame, court: MapCourt) -> Floats:
    """What the map of the other rows makes of each row's raw score."""
    truth, raw = rows["truth"].to_numpy(dtype=np.float64), score_array(rows["raw_score"])
    return cross_fit(truth, raw, court.task, methods(court.task, raw)[0], court.strength)


def judge_mapped(rows: pd.DataFrame, court: MapCourt, *, every_metric: bool = True) -> GateReport:
    """The gate's verdict: the cross-fitted map beside what the champion answered, on the same mature rows.

    Args:
        rows: time, truth, score (what was answered) and challenger (`cross_fitted`), in order of time.
        court: By what it is judged.
        every_metric: As in `tasks.gate.court.judge`.
    """
    truth = rows["truth"].to_numpy(dtype=np.float64)
    challenger, champion = (score_array(rows[name]) for name in ("challenger", "score"))
    usual = court.baseline
    if usual is None:
        usual = shares(truth, challenger.shape[1]) if is_many(challenger) else float(truth.mean())
    evidence = Evidence(
        truth=truth,
        challenger=challenger,
        champion=champion,
        baseline=constant_scores(usual, len(rows)),
        overlap_rows=0,
        same_model=True,
        blocks=np.arange(len(rows)),
    )
    confidence = max(_LEAST_CONFIDENCE, math.erf(court.sigmas / math.sqrt(2)))
    policy = court.policy.model_copy(
        update={"confidence": confidence, "minimum_rows": court.minimum_rows, "doubt": "keep"}
    )
    return judge(evidence, policy, task=court.task, metric=court.metric, seed=court.seed, every_metric=every_metric)
