"""Do this model's maps carry? What maps of earlier windows would have done to later ones. No verdict, no I/O.

A map is fitted on one window and answers another, as many windows later as labels are late and one more. Where each
window is another world, the newest one wants a new map every time, and every such map harms the window it answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from perennial.model.scores import known_scores, score_array
from tasks.calibration.fit import Task, fit_recalibration, methods
from tasks.measures.quality import row_losses

LEAST_PAIRS = 3
FITTED_ROWS = 2_000


@dataclass(frozen=True)
class Carried:
    """What maps of earlier windows brought to later ones, beside the model's own score.

    Attributes:
        gain: The mean over pairs of windows, as a share of the own score's loss; negative is harm.
        error: Its standard error, over pairs; infinite with fewer than two.
        pairs: How many there were.
    """

    gain: float
    error: float
    pairs: int

    @property
    def harms(self) -> bool:
        """Whether maps have done more harm than good, as far as is known."""
        return self.pairs >= LEAST_PAIRS and self.gain < 0

    def told(self) -> str:
        return f"maps of {self.pairs} earlier windows would have changed the loss of later ones by {-self.gain:+.1%}"


def carried_gain(
    past: pd.DataFrame | None, task: Task, loss: str, *, window: timedelta, late: timedelta, strength: float,
    minimum_rows: int,
) -> Carried:  # fmt: skip
    """Fit a map on each earlier window, and let it answer the one that a live map of that time would have answered.

    Args:
        past: time, version, raw_score and truth (NaN where unknown) of earlier windows, in any order; the version is
            that of the trained model, whatever map stood before it.
        window: The length of a window.
        late: The label delay: a map of one window answers the next but so many.
        strength: As in `tasks.calibration.fit.fit_recalibration`.
        minimum_rows: Windows with fewer labelled rows of one version say nothing.
    """
    if past is None or not len(past):
        return Carried(0.0, math.inf, 0)
    known = past[np.isfinite(past["truth"].to_numpy(np.float64)) & known_scores(score_array(past["raw_score"]))]
    ages = ((past["time"].max() - known["time"]) // window).to_numpy()
    parts = {
        (int(age), str(version)): rows
        for (age, version), rows in known.groupby([ages, known["version"].astype(str)], sort=True)
        if len(rows) >= minimum_rows
    }
    lag = 1 + math.ceil(late / window)
    gains = [
        _gain(older, parts[age - lag, version], task, loss, strength)
        for (age, version), older in parts.items()
        if (age - lag, version) in parts
    ]
    error = float(np.std(gains, ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else math.inf
    return Carried(float(np.mean(gains)) if gains else 0.0, error, len(gains))


def _gain(older: pd.DataFrame, newer: pd.DataFrame, task: Task, loss: str, strength: float) -> float:
    older = older.iloc[:: max(1, -(-len(older) // FITTED_ROWS))]
    truth, raw = older["truth"].to_numpy(dtype=np.float64), score_array(older["raw_score"])
    found = fit_recalibration(truth, raw, task, method=methods(task, raw)[0], strength=strength)
    truth, raw = newer["truth"].to_numpy(dtype=np.float64), score_array(newer["raw_score"])
    own, mapped = (float(row_losses(truth, scores, loss).mean()) for scores in (raw, found.apply(raw)))
    return (own - mapped) / own if own > 0 else 0.0
