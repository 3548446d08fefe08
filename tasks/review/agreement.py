"""How far people agree: percent, Cohen's kappa, Krippendorff's alpha. Values in, figures out."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

Level = Literal["nominal", "interval"]


def percent(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """The share of units to which two people said the same; None without a unit."""
    return float(np.mean([a == b for a, b in zip(first, second, strict=True)])) if len(first) else None


def cohens_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement beyond chance of two people; None where both always say the same one word: there is no chance to beat.

    Cohen, A Coefficient of Agreement for Nominal Scales, Educational and Psychological Measurement 20, 1960; computed
    by scikit-learn.
    """
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:
        return None
    codes = {value: number for number, value in enumerate(dict.fromkeys([*first, *second]))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return float(cohen_kappa_score([codes[value] for value in first], [codes[value] for value in second]))


def krippendorffs_alpha(units: Sequence[Sequence[float | str]], level: Level = "nominal") -> float | None:
    """Agreement beyond chance of any number of people, each of whom may have left units out.

    1 - observed / expected disagreement over all pairs of values within units, and over all pairs of values at all, by
    coincidences: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C; with its difference
    functions for nominal and interval data. The libraries at hand are either under the GPL or have no release in years.

    Args:
        units: What was said of each unit, by whomever; units with less than two values say nothing.

    Returns:
        None where nothing can be compared, or all values are one.
    """
    paired = [list(values) for values in units if len(values) > 1]
    values = sorted({value for unit in paired for value in unit}, key=str)
    place = {value: number for number, value in enumerate(values)}
    coincidences = np.zeros((len(values), len(values)))
    for unit in paired:
        counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(np.float64)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = coincidences.sum(axis=1)
    if level == "nominal":
        distance = 1.0 - np.eye(len(values))
    else:
        numbers = np.array([float(value) for value in values])
        distance = (numbers[:, None] - numbers[None, :]) ** 2
    expected = float((np.outer(totals, totals) * distance).sum())
    if expected == 0:
        return None
    observed = float((coincidences * distance).sum())
    return float(1.0 - (totals.sum() - 1) * observed / expected)
