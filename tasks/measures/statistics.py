"""One column over one stretch of time in numbers that can be merged: part by part, or window after window.

Counts and moments are exact (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm", 1979). Quantiles of
merged parts come from `POINTS` order statistics of each, weighted by its rows: the distribution of the whole is the
mixture of the parts', so that ranks are off by no more than in the worst part, within about 3 %. Numbers of different
values are exact up to `HASHES`, beyond that estimated from the least hashes (Bar-Yossef and others, "Counting distinct
elements in a data stream", 2002), within about 9 % as a standard error. Nothing is compared and nothing judged here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.util import hash_array

from tasks.measures.profiles import Column, Counts, Floats

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
POINTS = 65
HASHES = 128
TOP_VALUES = 10
MOST_VALUES = 1_000
_SAMPLE = 2_048
_MOST_POINTS = 64 * POINTS
_Hashes = NDArray[np.uint64]
_HASHED = 2.0**64


@dataclass(frozen=True)
class ColumnStatistics:
    """A column's values.

    Attributes:
        kind: numeric or categorical.
        rows, missing: How many, and how many of them have no value.
        unseen: Values outside the reference's range (numeric), or that it does not have (categorical).
        finite, mean, squares, low, high: Of finite numbers: how many, mean, sum of squared deviations from it, least
            and greatest; 0 and NaN without any.
        points, weights: Of finite numbers, values that stand for so many of them each, ascending; empty without any.
        hashes: The least `HASHES` different 64-bit hashes of the values, ascending.
        values: Categorical: how often each of the `MOST_VALUES` most frequent values came.
    """

    kind: str
    rows: int
    missing: int = 0
    unseen: int = 0
    finite: int = 0
    mean: float = float("nan")
    squares: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    points: Floats = field(default_factory=lambda: np.empty(0))
    weights: Floats = field(default_factory=lambda: np.empty(0))
    hashes: _Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    values: Mapping[str, int] = field(default_factory=dict)

    @property
    def deviation(self) -> float:
        """The standard deviation, with n - 1; NaN below two numbers."""
        return math.sqrt(max(self.squares, 0.0) / (self.finite - 1)) if self.finite > 1 else float("nan")

    @property
    def distinct(self) -> int:
        """How many different values."""
        if len(self.hashes) < HASHES:
            return len(self.hashes)
        return round((HASHES - 1) / ((float(self.hashes[-1]) + 1) / _HASHED))

    @property
    def top(self) -> dict[str, int]:
        """The most frequent values of a category, most frequent first."""
        return dict(sorted(self.values.items(), key=lambda item: (-item[1], item[0]))[:TOP_VALUES])

    def quantiles(self) -> tuple[float, ...]:
        """At `QUANTILES`; empty without numbers."""
        return tuple(_at(self.points, self.weights, np.array(QUANTILES)).tolist()) if len(self.points) else ()

    def plus(self, other: ColumnStatistics) -> ColumnStatistics:
        """Both together."""
        finite = self.finite + other.finite
        mean, squares = self.mean, self.squares
        if not self.finite:
            mean, squares = other.mean, other.squares
        elif other.finite:
            apart = other.mean - self.mean
            mean = self.mean + apart * other.finite / finite
            squares = self.squares + other.squares + apart**2 * self.finite * other.finite / finite
        points, weights = _together(self, other)
        return ColumnStatistics(
            kind=self.kind,
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            unseen=self.unseen + other.unseen,
            finite=finite,
            mean=mean,
            squares=squares,
            low=float(np.fmin(self.low, other.low)),
            high=float(np.fmax(self.high, other.high)),
            points=points,
            weights=weights,
            hashes=_least(np.concatenate([self.hashes, other.hashes])),
            values=_added(self.values, other.values),
        )


def of_numbers(finite: Floats, *, rows: int, missing: int, unseen: int) -> ColumnStatistics:
    """The statistics of numbers.

    Args:
        finite: Shape (n,): those that are; infinities are counted as rows, and are in no moment.
        rows, missing, unseen: As `ColumnStatistics` has them.
    """
    if not len(finite):
        return ColumnStatistics("numeric", rows, missing, unseen)
    mean = float(finite.mean())
    apart = finite - mean
    points = _order_statistics(finite)
    return ColumnStatistics(
        kind="numeric",
        rows=rows,
        missing=missing,
        unseen=unseen,
        finite=len(finite),
        mean=mean,
        squares=float(apart @ apart),
        low=float(finite.min()),
        high=float(finite.max()),
        points=points,
        weights=np.full(len(points), len(finite) / len(points)),
        hashes=_least(hash_array(finite)),
    )


def of_categories(column: Column, series: pd.Series[Any], codes: Counts) -> ColumnStatistics:
    """The statistics of categories whose bins are known already.

    Args:
        column: The reference's.
        series: The values, shape (rows,).
        codes: Each row's bin, shape (rows,).
    """
    known = len(column.categories)
    counts = np.bincount(codes, minlength=column.bins + 1)
    if counts[known : column.bins].any():
        values = _counted(series)
    else:
        values = {name: n for name, n in zip(column.categories, counts[:known].tolist(), strict=True) if n}
    most = values
    if len(values) > MOST_VALUES:
        most = dict(sorted(values.items(), key=lambda item: (-item[1], item[0]))[:MOST_VALUES])
    return ColumnStatistics(
        kind="categorical",
        rows=len(codes),
        missing=int(counts[column.bins]),
        unseen=int(counts[column.bins - 1]),
        hashes=_least(_hash_texts(list(values))),
        values=most,
    )


def _counted(series: pd.Series[Any]) -> dict[str, int]:
    """How often each value comes; Arrow counts texts in a fraction of the time that pandas takes."""
    try:
        found = pc.value_counts(pa.array(series, type=pa.large_string(), from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # values of other types
        counts = series.astype(object).value_counts()
        return {str(value): int(count) for value, count in counts.items()}
    names, counts = found.field(0).to_pylist(), found.field(1).to_pylist()
    return {name: count for name, count in zip(names, counts, strict=True) if name is not None}


def add_up(parts: Sequence[ColumnStatistics]) -> ColumnStatistics:
    """All of them together; at least one."""
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total


def to_row(found: ColumnStatistics, quantiles: Sequence[float] = ()) -> dict[str, Any]:
    """As a row of the table `column_statistics` has it; missing numbers as None.

    Args:
        quantiles: Exact ones, where they are known; by default as the points have them.
    """
    numbers = {name: getattr(found, name) for name in ("mean", "deviation", "low", "high")}
    return {
        "kind": found.kind,
        "rows": found.rows,
        "missing": found.missing,
        "unseen": found.unseen,
        "finite": found.finite,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "quantiles": list(quantiles or found.quantiles()),
        "distinct": found.distinct,
        "top": json.dumps(found.top, ensure_ascii=False),
        "points": _evened(found.points, found.weights, POINTS)[0].tolist(),
        "hashes": found.hashes.astype("<u8").tobytes(),
    }


def from_row(row: Mapping[str, Any]) -> ColumnStatistics:
    """The inverse of `to_row`, as far as a row keeps it: of a category's values the most frequent ones."""
    finite, deviation = int(row["finite"]), _number(row["deviation"])
    points = np.asarray([] if row["points"] is None else row["points"], dtype=np.float64)
    return ColumnStatistics(
        kind=row["kind"],
        rows=int(row["rows"]),
        missing=int(row["missing"]),
        unseen=int(row["unseen"]),
        finite=finite,
        mean=_number(row["mean"]),
        squares=deviation**2 * (finite - 1) if finite > 1 else 0.0 if finite else float("nan"),
        low=_number(row["low"]),
        high=_number(row["high"]),
        points=points,
        weights=np.full(len(points), finite / max(1, len(points))),
        hashes=np.frombuffer(row["hashes"] or b"", dtype="<u8").astype(np.uint64),
        values=json.loads(row["top"] or "{}"),
    )


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _added(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    total = dict(left)
    for value, count in right.items():
        total[value] = total.get(value, 0) + count
    return total


def _order_statistics(values: Floats) -> Floats:
    """At most `POINTS` of them, evenly by rank, of an even sample: a part of a sort is what this costs."""
    sample = values[:: max(1, -(-len(values) // _SAMPLE))]
    if len(sample) <= POINTS:
        return np.sort(sample)
    ranks = ((np.arange(POINTS) + 0.5) / POINTS * len(sample)).astype(np.int64)
    found: Floats = np.partition(sample, ranks)[ranks]
    return found


def _together(left: ColumnStatistics, right: ColumnStatistics) -> tuple[Floats, Floats]:
    points = np.concatenate([left.points, right.points])
    weights = np.concatenate([left.weights, right.weights])
    order = np.argsort(points, kind="stable")
    return _thinned(points[order], weights[order], _MOST_POINTS)


def _thinned(points: Floats, weights: Floats, most: int) -> tuple[Floats, Floats]:
    """No more than so many; of more, that many of equal weight, evenly by rank."""
    return (points, weights) if len(points) <= most else _evened(points, weights, most)


def _evened(points: Floats, weights: Floats, most: int) -> tuple[Floats, Floats]:
    """At most so many of equal weight, evenly by rank."""
    if not len(points) or (len(points) <= most and bool((weights == weights[0]).all())):
        return points, weights
    kept = _at(points, weights, (np.arange(most) + 0.5) / most)
    return kept, np.full(most, weights.sum() / most)


def _at(points: Floats, weights: Floats, shares: Floats) -> Floats:
    """The values at these shares of the weight, between points in a straight line."""
    middles = np.cumsum(weights) - weights / 2
    return np.asarray(np.interp(shares * weights.sum(), middles, points), dtype=np.float64)


def _hash_texts(texts: Sequence[str]) -> _Hashes:
    """Hashes that are the same in every process; shape (n,)."""
    return np.asarray(hash_array(np.asarray(texts, dtype=object), categorize=False), dtype=np.uint64)


def _least(hashes: _Hashes) -> _Hashes:
    """The least different ones, ascending, at most `HASHES`."""
    if len(hashes) > 8 * HASHES:
        # Nearly all are too great to be among the least: only where few are different all must be looked at.
        few = np.unique(hashes[hashes < np.uint64(_HASHED * 2 * HASHES / len(hashes))])
        if len(few) >= HASHES:
            return few[:HASHES]
        hashes = np.asarray(pd.unique(hashes), dtype=np.uint64)
    return np.unique(hashes)[:HASHES]
