"""The interval around a regression's prediction: two residual quantiles, by the level of the prediction. Fits no model.

Split-conformal prediction (Vovk, Gammerman and Shafer 2005; Lei et al. 2018): from n rows that the model has not
learned from, the k-th smallest residual bounds the next row's from above with probability at least k/(n + 1), if the
rows are exchangeable. Each side gets half of what may lie outside, by its own signed residuals, so that a skewed error
has a skewed interval (as the asymmetric intervals of Romano, Patterson and Candès 2019):

    upper = prediction + residual of rank ⌈(n + 1)(1 - α/2)⌉
    lower = prediction + residual of rank ⌊(n + 1)(α/2)⌋          with α = 1 - coverage

Errors mostly grow with what is predicted, so the ranks are taken among the rows of like prediction (Mondrian conformal
regression: Boström and Johansson 2020): up to ten levels of at least 200 rows each; with fewer rows there is one.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MOST_LEVELS = 10
LEVEL_ROWS = 200


@dataclass(frozen=True)
class Intervals:
    """What a version adds to its prediction on both sides.

    Attributes:
        coverage: The share of truths that is to lie inside.
        edges: Between the levels of the prediction, ascending; one less than there are levels.
        below, above: For each level what is added for the lower and the upper bound.
        rows: How many rows they were made of.
    """

    coverage: float
    edges: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    rows: int

    def bounds(self, predictions: Floats) -> tuple[Floats, Floats]:
        """Lower and upper bounds, each of shape (n,); NaN where there is no prediction."""
        values = np.asarray(predictions, dtype=np.float64)
        level = np.searchsorted(self.edges, values, side="right") if self.edges else np.zeros(len(values), np.intp)
        return values + np.take(self.below, level), values + np.take(self.above, level)

    def tag(self) -> str:
        """What a version carries."""
        return json.dumps(asdict(self))


def read_intervals(tag: object, coverage: float | None) -> Intervals | None:
    """A version's intervals; None where it has none of this coverage: of another one they would say something else."""
    if coverage is None or not tag:
        return None
    raw = json.loads(str(tag))
    if raw["coverage"] != coverage:
        return None
    return Intervals(coverage, tuple(raw["edges"]), tuple(raw["below"]), tuple(raw["above"]), int(raw["rows"]))


def least_rows(coverage: float) -> int:
    """Fewer rows than this have no residual of the rank that the coverage asks for: n with (n + 1)·α/2 ≥ 1."""
    return math.ceil(round(2 / (1 - coverage), 9)) - 1


def make_intervals(truth: Floats, prediction: Floats, coverage: float) -> Intervals | None:
    """Intervals from rows that the model has not learned from; None where they are fewer than `least_rows`.

    Args:
        truth, prediction: Shape (n,); rows where one is missing are left out.
        coverage: In (0, 1).
    """
    known = np.isfinite(truth) & np.isfinite(prediction)
    values, residuals = prediction[known], (truth - prediction)[known]
    least = least_rows(coverage)
    if len(values) < least:
        return None
    edges = _edges(values, max(LEVEL_ROWS, least))
    level = np.searchsorted(edges, values, side="right")
    sides = [_sides(np.sort(residuals[level == number]), coverage) for number in range(len(edges) + 1)]
    below, above = zip(*sides, strict=True)
    return Intervals(coverage, tuple(edges.tolist()), below, above, len(values))


def _edges(values: Floats, least: int) -> Floats:
    """Of as many levels as have enough rows each."""
    for count in range(min(MOST_LEVELS, len(values) // least), 1, -1):
        edges = np.unique(np.quantile(values, np.arange(1, count) / count))
        sizes = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        if sizes.min() >= least:
            return edges
    return np.empty(0)


def _sides(residuals: Floats, coverage: float) -> tuple[float, float]:
    """The residuals of both ranks, of ascending ones."""
    count, tail = len(residuals), (1 - coverage) / 2
    low = math.floor(round((count + 1) * tail, 9))
    high = math.ceil(round((count + 1) * (1 - tail), 9))
    return float(residuals[max(low, 1) - 1]), float(residuals[min(high, count) - 1])
