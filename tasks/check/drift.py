"""Has a column's distribution moved further than it ordinarily does? Distances and calibrated limits; no verdict.

A limit is a prediction limit for the distance of one more window: contiguous runs of the reference, each as long as
the window, are each compared with the rest of it, and the limit is Student's t prediction limit of the distances'
roots (as many degrees of freedom as runs fit without overlap, less one; the root of a distance that is itself a root of
few squares is about normal, as Wilson and Hilferty's cube root is for many), never below what chance alone gives rows
that are independent. The false-alarm rate is shared among the columns by their importance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tasks.measures.profiles import Column, Profile

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MINIMUM_RUNS = 5
LEAST_WEIGHT = 0.1
LARGEST = 0.5
WALK_DEVIATIONS = 2.0
_NULL_ARRAYS = ("mean", "deviation", "missing_deviation")


@dataclass(frozen=True)
class Null:
    """How far ordinary runs of the reference lie from the rest of it, per column.

    Attributes:
        mean: Shape (columns,): the mean root of the distance of values.
        deviation: Shape (columns,): its standard deviation.
        missing_deviation: Shape (columns,): the standard deviation of the share missing, beyond what chance gives.
        runs: How many runs fit into the reference without overlap.
    """

    mean: Floats
    deviation: Floats
    missing_deviation: Floats
    runs: int

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in _NULL_ARRAYS} | {"runs": self.runs}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Null:
        mean, deviation, missing = (np.asarray(raw[name], dtype=np.float64) for name in _NULL_ARRAYS)
        return cls(mean, deviation, missing, int(raw["runs"]))


@dataclass(frozen=True)
class ColumnDrift:
    """One column's movement in one window.

    Attributes:
        name: The column.
        distance: Of its values, as `distances` has it.
        limit: What `distance` may be by chance and custom; NaN where there was too little reference to say.
        missing: The share missing less the reference's.
        missing_limit: What that difference may be, up or down.
        importance: The column's share of the model's importance.
    """

    name: str
    distance: float
    limit: float
    missing: float
    missing_limit: float
    importance: float

    @property
    def ratio(self) -> float:
        """The greater of both distances over their limits; above 1 the column has drifted. NaN without limits."""
        if np.isnan(self.limit):
            return float("nan")
        return max(self.distance / self.limit, abs(self.missing) / self.missing_limit)


def distances(columns: Sequence[Column], current: Counts, rest: Counts) -> Floats:
    """How far two tables of counts lie apart.

    Args:
        columns: Their bins.
        current: Shape (..., columns, width).
        rest: The same shape.

    Returns:
        Shape (2, ..., columns): the distance of the present values, in [0, 1], and the difference of the share missing
        (absolute). Cramér–von Mises: the root of the mean squared difference of the cumulative shares at the edges.
        Hellinger: sqrt(1 - sum sqrt(p q)).
    """
    values, total = current[..., :-1], current.sum(axis=-1)
    others, other_total = rest[..., :-1], rest.sum(axis=-1)
    p = values / np.maximum(values.sum(axis=-1, keepdims=True), 1)
    q = others / np.maximum(others.sum(axis=-1, keepdims=True), 1)
    apart = np.zeros(current.shape[:-1])
    for position, column in enumerate(columns):
        mine, theirs = p[..., position, : column.bins], q[..., position, : column.bins]
        if column.kind == "numeric":
            gaps = np.cumsum(mine - theirs, axis=-1)[..., :-1]
            apart[..., position] = np.sqrt(np.mean(gaps**2, axis=-1)) if column.bins > 1 else 0.0
        else:
            # Rare and unseen ones together: where a share of values comes once, new ones of them are no news.
            shared = np.sqrt(mine[..., :-2] * theirs[..., :-2]).sum(axis=-1)
            shared += np.sqrt(mine[..., -2:].sum(axis=-1) * theirs[..., -2:].sum(axis=-1))
            apart[..., position] = np.sqrt(np.clip(1 - shared, 0, 1))
    empty = (values.sum(axis=-1) == 0) | (others.sum(axis=-1) == 0)
    missing = current[..., -1] / np.maximum(total, 1) - rest[..., -1] / np.maximum(other_total, 1)
    return np.stack([np.where(empty, 0.0, apart), np.abs(missing)])


def measure_null(reference: Profile, window_seconds: float) -> Null:
    """Compare every contiguous run of the window's length with the rest of the reference.

    A column that walks (a counter, a rate, categories with turnover) lies further from what came before it than from
    the rest, always: of such a one, runs are compared with what came before them, as a new window is.
    """
    blocks = max(1, round(window_seconds / reference.block_seconds))
    dense = _dense(reference)
    nothing = np.zeros(len(reference.columns))
    if len(dense) < 2 * blocks:
        return Null(nothing, nothing, nothing, 0)
    sums = np.concatenate([np.zeros((1, *dense.shape[1:]), dtype=np.int64), np.cumsum(dense, axis=0)])
    runs = sums[blocks:] - sums[:-blocks]
    rows = runs[:, 0].sum(axis=-1)
    whole = rows >= 0.5 * np.median(rows)
    walk = _walk(reference, sums, runs, whole)
    runs = runs[whole]
    rows = np.maximum(runs[:, 0].sum(axis=-1), 1)
    apart, missing = distances(reference.columns, runs, sums[-1] - runs)
    roots = np.sqrt(apart)
    share = sums[-1][:, -1] / np.maximum(sums[-1].sum(axis=-1), 1)
    beyond_chance = np.mean(missing**2, axis=0) - share * (1 - share) * np.mean(1 / rows)
    fitting = max(1, min(len(dense) // blocks, len(runs)))
    deviation = roots.std(axis=0, ddof=1) if len(runs) > 1 else nothing
    mean = roots.mean(axis=0)
    if len(walk) > 1:
        walks = walk.mean(axis=0) > mean + WALK_DEVIATIONS * deviation
        mean = np.where(walks, walk.mean(axis=0), mean)
        deviation = np.where(walks, np.maximum(walk.std(axis=0, ddof=1), deviation), deviation)
    return Null(mean, deviation, np.sqrt(np.maximum(beyond_chance, 0.0)), fitting)


def _walk(reference: Profile, sums: Counts, runs: Counts, whole: NDArray[np.bool_]) -> Floats:
    """The roots of the distances of the later runs from all that came before each, shape (runs, columns)."""
    later = np.flatnonzero(whole & (np.arange(len(runs)) >= len(runs) / 2))
    roots: Floats = np.sqrt(distances(reference.columns, runs[later], sums[later])[0])
    return roots


def limits(
    null: Null, reference: Profile, rows: Counts, window_rows: int, importance: Floats, false_alarm_rate: float
) -> tuple[Floats, Floats]:
    """The distances that an ordinary window stays below, all columns together with 1 - false_alarm_rate.

    Args:
        null: Of this reference.
        reference: The champion's profile.
        rows: Shape (columns,): values present in the window, per column.
        window_rows: The window's rows, missing values included.
        importance: Shape (columns,), adding up to 1.
        false_alarm_rate: For all columns together.

    Returns:
        Two arrays of shape (columns,), for the values and for the share missing; NaN with fewer than 5 runs.
    """
    columns = reference.columns
    rate = false_alarm_rate * importance / 2
    if null.runs < MINIMUM_RUNS:
        return np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    factor = stats.t.isf(rate, null.runs - 1) * np.sqrt(1 + 1 / null.runs)
    largest = np.where(null.mean**2 > LARGEST / 2, 1.0, LARGEST)  # what is ordinarily far can't be limited so
    learned = np.minimum((null.mean + factor * null.deviation) ** 2, largest)
    total = reference.counts.sum(axis=0)
    share = np.maximum((total[:, -1] + 1) / (total.sum(axis=-1) + 2), 1 / window_rows)
    learned_missing = factor * null.missing_deviation
    chance_missing = stats.norm.isf(rate / 2) * np.sqrt(share * (1 - share) / window_rows) + 1 / window_rows
    present = np.maximum(total[:, :-1].sum(axis=-1), 1)
    size = 1 / (1 / np.maximum(rows, 1) + 1 / present)
    chance = np.empty(len(columns))
    for position, column in enumerate(columns):
        if column.kind == "numeric":
            chance[position] = np.sqrt(np.log(2 / rate[position]) / (2 * size[position]))
        else:
            used = max(1, int((total[position, : column.bins] > 0).sum()) - 1)
            chance[position] = np.sqrt(stats.chi2.isf(rate[position], used) / (8 * size[position]))
    return np.maximum(learned, chance), np.hypot(learned_missing, chance_missing)


def measure_drift(
    reference: Profile, null: Null, current: Counts, importance: Mapping[str, float], false_alarm_rate: float
) -> tuple[ColumnDrift, ...]:
    """Every column's movement, the furthest beyond its limit first.

    Args:
        reference: The champion's profile.
        null: Of this reference, at the window's length.
        current: The window's counts, shape (columns, width).
        importance: Per column; missing ones count as the least. A column that the model ignores keeps a tenth of an
            equal share, so that it is watched, with a wide limit.
        false_alarm_rate: For all columns together.
    """
    total = reference.counts.sum(axis=0)
    shares = importance_shares([column.name for column in reference.columns], importance)
    rows, reference_rows = max(1, int(current[0].sum())), max(1, int(total[0].sum()))
    present = current[:, :-1].sum(axis=-1)
    value_limits, missing_limits = limits(null, reference, present, rows, shares, false_alarm_rate)
    apart = distances(reference.columns, current, total)
    missing = current[:, -1] / rows - total[:, -1] / reference_rows
    found = [
        ColumnDrift(column.name, *(float(v) for v in numbers))
        for column, *numbers in zip(
            reference.columns, apart[0], value_limits, missing, missing_limits, shares, strict=True
        )
    ]
    return tuple(sorted(found, key=lambda item: (-np.nan_to_num(item.ratio, nan=-1.0), item.name)))


def importance_shares(names: Sequence[str], importance: Mapping[str, float]) -> Floats:
    """Shape (columns,), adding up to 1: importance where known and positive, at least a tenth of an equal share."""
    if not names:
        return np.zeros(0)
    raw = np.array([max(0.0, importance.get(name, 0.0)) for name in names])
    shares = raw / raw.sum() if raw.sum() > 0 else np.full(len(names), 1 / len(names))
    shares = np.maximum(shares, LEAST_WEIGHT / len(names))
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _dense(reference: Profile) -> Counts:
    """Counts with empty blocks where the reference has none, so that a run of blocks is a run of time.

    Where time has holes of more than half (positions, closing hours), the blocks are taken as they follow each other.
    """
    if not len(reference.starts):
        return reference.counts
    span = int(reference.starts[-1] - reference.starts[0]) + 1
    if span > 2 * len(reference.starts):
        return reference.counts
    dense = np.zeros((span, *reference.counts.shape[1:]), dtype=np.int64)
    dense[reference.starts - reference.starts[0]] = reference.counts
    return dense
