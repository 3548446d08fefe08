"""From which probability on to act, by what the two mistakes cost. It decides about no model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from perennial.definition.serving import Cost

# Of each class; fewer leave the choice to the formula.
LEAST_ROWS = 50


@dataclass(frozen=True)
class Threshold:
    """The probability from which on the label is 1.

    Attributes:
        value: In (0, 1).
        cost: What a row's mistakes cost on average with it, on the rows that it was chosen by; NaN without any.
        rows: How many those are; 0 where the formula of calibrated probabilities was taken.
    """

    value: float
    cost: float
    rows: int

    def tag(self, cost: Cost) -> str:
        """What a version carries: with the costs that it was chosen for."""
        return json.dumps(asdict(self) | cost.model_dump(), allow_nan=True)


def cheapest_threshold(truth: npt.NDArray[np.float64], score: npt.NDArray[np.float64], cost: Cost) -> Threshold:
    """The threshold with the least cost on rows that the model has not learned from.

    Of equal ones the nearest to fp / (fp + fn), which is best where probabilities are calibrated (Elkan 2001), and
    which is taken where a class has fewer than `LEAST_ROWS` rows.

    Args:
        truth: 0 and 1, shape (n,).
        score: P(positive), shape (n,).
    """
    best = cost.calibrated_threshold
    positives = int((truth == 1).sum())
    if min(positives, len(truth) - positives) < LEAST_ROWS:
        return Threshold(best, float("nan"), 0)
    order = np.argsort(score, kind="stable")
    ordered, hit = score[order], truth[order] == 1
    # Acting from place k on misses the positives below it, and acts on the negatives from it on.
    missed = np.concatenate([[0], np.cumsum(hit)])
    acted = (len(truth) - positives) - np.concatenate([[0], np.cumsum(~hit)])
    total = cost.false_negative * missed + cost.false_positive * acted
    edges = np.concatenate([[0.0], (ordered[1:] + ordered[:-1]) / 2, [1.0]])
    apart = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    inside = apart & (edges > 0) & (edges < 1)
    if not inside.any():
        return Threshold(best, float(total[0] / len(truth)), 0)
    places = np.flatnonzero(inside)
    least = places[total[places] <= total[places].min()]
    place = least[np.argmin(np.abs(edges[least] - best))]
    return Threshold(float(edges[place]), float(total[place] / len(truth)), len(truth))
