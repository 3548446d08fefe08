"""What a check reads of its window's rows, as facts that can be added: whole, or part by part wherever a part is.

Nothing is compared here. Parts are cut by time, so that a row and its repetition, which are equal in time too, are in
one part; all else are counts, least and greatest values, and evenly spaced samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.check.reference import QUANTILES, ColumnSummary, Reference, RunSummary, row_digests
from tasks.measures import statistics
from tasks.measures.dates import date_columns
from tasks.measures.described.columns import has, with_repeats
from tasks.measures.profiles import SAMPLE_ROWS, Column, Counts, column_codes, microseconds
from tasks.measures.statistics import ColumnStatistics

Floats = NDArray[np.float64]
FAR_RANGES = 5.0
FAR_SIZES = 9.0
FAR_MULTIPLE = 100.0
_MOST_STRANGE = 1_000


@dataclass(frozen=True)
class ColumnFacts:
    """One column's values.

    Attributes:
        counts: By bin, missing last; shape (bins + 1,).
        first: The first value that is not missing; None where all are.
        low, high: Numeric: the least and the greatest value, NaN without any.
        finite: Numeric: how many values are finite.
        sample: Numeric: evenly spaced finite values.
        away: Numeric: how many values lie far outside the reference's range; `example` is one of them.
        strange: Categorical: values that the reference does not have, with their number.
        statistics: What is kept of the column beside all this; None where nobody asked.
    """

    counts: Counts
    first: Any = None
    low: float = float("nan")
    high: float = float("nan")
    finite: int = 0
    sample: Floats = field(default_factory=lambda: np.empty(0))
    away: int = 0
    example: float | None = None
    strange: Mapping[str, int] = field(default_factory=dict)
    statistics: ColumnStatistics | None = None

    def plus(self, other: ColumnFacts) -> ColumnFacts:
        strange = dict(self.strange)
        for value, count in other.strange.items():
            strange[value] = strange.get(value, 0) + count
        return ColumnFacts(
            counts=self.counts + other.counts,
            first=other.first if self.first is None else self.first,
            low=float(np.fmin(self.low, other.low)),
            high=float(np.fmax(self.high, other.high)),
            finite=self.finite + other.finite,
            sample=np.concatenate([self.sample, other.sample]),
            away=self.away + other.away,
            example=other.example if self.example is None else self.example,
            strange=strange,
            statistics=self.statistics.plus(other.statistics) if self.statistics and other.statistics else None,
        )


@dataclass(frozen=True)
class WindowFacts:
    """A window's rows.

    Attributes:
        rows: How many.
        missing: Columns that the reference has and the rows lack.
        kinds: Of columns that should hold numbers or moments and do not: what they hold, and a value of theirs.
        columns: Facts by column; empty where something is missing or of another kind, or there are no rows.
        repeated: How many rows repeat another one in every column and in time.
        hours: Rows by hour of the day, 24 numbers.
    """

    rows: int
    missing: tuple[str, ...] = ()
    kinds: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    columns: Mapping[str, ColumnFacts] = field(default_factory=dict)
    repeated: int = 0
    hours: tuple[int, ...] = (0,) * 24

    @property
    def readable(self) -> bool:
        return bool(self.columns)

    def plus(self, other: WindowFacts) -> WindowFacts:
        """Both together; `other` comes later in time."""
        if not self.rows or not other.rows:
            return other if other.rows else self
        broken = self.missing or other.missing or self.kinds or other.kinds
        return WindowFacts(
            rows=self.rows + other.rows,
            missing=tuple(dict.fromkeys([*self.missing, *other.missing])),
            kinds={**other.kinds, **self.kinds},
            columns={} if broken else {name: facts.plus(other.columns[name]) for name, facts in self.columns.items()},
            repeated=self.repeated + other.repeated,
            hours=tuple(int(a + b) for a, b in zip(self.hours, other.hours, strict=True)),
        )

    def summary(self, columns: Sequence[Column]) -> RunSummary:
        """The window in a few numbers per column, as `tasks.check.reference.summarise` gives them of a run."""
        return RunSummary(
            self.rows,
            float(self.repeated / self.rows) if self.rows > 1 else 0.0,
            {column.name: _summary(column, self.columns[column.name], self.rows) for column in columns},
            self.hours,
        )


def read_facts(
    reference: Reference, window: pd.DataFrame, time: str, *, total_rows: int | None = None, statistics: bool = False
) -> WindowFacts:
    """The facts of some rows.

    Args:
        reference: The champion's, with the bins.
        window: Features and time; texts and images as they are, or described.
        time: The time column.
        total_rows: Of the whole window, if this is a part of it: it says how dense the samples are.
        statistics: Whether each column's statistics are wanted too.
    """
    missing = missing_features(reference, window)
    kinds = {
        name: (str(window[name].dtype), next(iter(window[name].dropna().iloc[:1]), None))
        for name in reference.numeric
        if name in window and not pd.api.types.is_numeric_dtype(window[name])
    }
    kinds |= {
        name: (str(window[name].dtype), next(iter(window[name].dropna().iloc[:1]), None))
        for name in reference.dates.columns
        if name in window and not pd.api.types.is_datetime64_any_dtype(window[name])
    }
    if missing or kinds or not len(window):
        return WindowFacts(len(window), missing, kinds)
    columns, features, times = reference.columns, window, microseconds(window[time])
    if reference.watched or reference.dates.columns:
        order = np.argsort(times, kind="stable")
        times = times[order]
        features = reference.described(window.iloc[order].reset_index(drop=True))
        features = with_repeats(features, reference.watched, np.zeros_like(times))
    codes = column_codes(features, columns)
    step = max(1, (total_rows or len(window)) // SAMPLE_ROWS)
    digests = np.sort(row_digests(features, times, reference.row_columns))
    return WindowFacts(
        rows=len(window),
        columns={
            column.name: _column_facts(column, features[column.name], codes[position], step, statistics)
            for position, column in enumerate(columns)
        },
        repeated=int((digests[1:] == digests[:-1]).sum()),
        hours=tuple(np.bincount((times // 3_600_000_000) % 24, minlength=24).tolist()),
    )


def missing_features(reference: Reference, frame: pd.DataFrame) -> tuple[str, ...]:
    """The champion's features that a frame lacks."""
    absent = [name for name in (*reference.numeric, *reference.categorical) if name not in frame]
    absent += [name for name in reference.dates.columns if name not in frame and date_columns(name)[0] not in frame]
    return (*absent, *(item.feature for item in reference.watched if not has(frame, item)))


def add_up(parts: Iterable[WindowFacts]) -> WindowFacts:
    """All parts together, in the order of their time."""
    total = WindowFacts(0)
    for part in parts:
        total = total.plus(part)
    return total


def far_limits(column: Column) -> tuple[float, float] | None:
    """Below and above which a value lies far outside the reference's range; None for a column without a range."""
    low, high = column.edges[0], column.edges[-1]
    size = max(abs(low), abs(high))
    # Prices, budgets and rates outgrow a narrow range and stay of their own size.
    reach = max(FAR_RANGES * (high - low), FAR_SIZES * size) if high > low else FAR_MULTIPLE * size
    return (low - reach, high + reach) if reach else None


def _column_facts(column: Column, series: pd.Series[Any], codes: Counts, step: int, described: bool) -> ColumnFacts:
    counts = np.bincount(codes, minlength=column.bins + 1)
    present = codes < column.bins
    first = series.iloc[int(present.argmax())] if present.any() else None
    if column.kind == "categorical":
        strange = series[codes == column.bins - 1].astype(object).value_counts().head(_MOST_STRANGE)
        return ColumnFacts(
            counts,
            first,
            strange={str(name): int(count) for name, count in strange.items()},
            statistics=statistics.of_categories(column, series, codes) if described else None,
        )
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    known = values[np.isfinite(values)]
    least, most = (known.min(), known.max()) if len(known) else (np.nan, np.nan)
    if present.any() and len(known) + counts[column.bins] < len(values):  # there are infinities
        least, most = np.nanmin(values), np.nanmax(values)
    sample = known if step == 1 else values[::step]
    away, limits = np.zeros(0), far_limits(column)
    if limits and (least < limits[0] or most > limits[1]):
        away = values[(values < limits[0]) | (values > limits[1])]
    return ColumnFacts(
        counts=counts,
        first=first,
        low=float(least),
        high=float(most),
        finite=len(known),
        sample=sample if step == 1 else sample[np.isfinite(sample)],
        away=len(away),
        example=float(away[0]) if len(away) else None,
        statistics=_of_numbers(column, counts, known, len(values)) if described else None,
    )


def _of_numbers(column: Column, counts: Counts, known: Floats, rows: int) -> ColumnStatistics:
    return statistics.of_numbers(known, rows=rows, missing=int(counts[column.bins]), unseen=_outside(column, counts))


def _summary(column: Column, facts: ColumnFacts, rows: int) -> ColumnSummary:
    counts = facts.counts
    present = max(1, int(counts[:-1].sum()))
    missing = float(counts[-1] / max(rows, 1))
    if column.kind == "categorical":
        top = float(counts[:-2].max(initial=0) / present)
        return ColumnSummary(missing, float(counts[column.bins - 1] / present), top)
    known = tuple(float(v) for v in np.quantile(facts.sample, QUANTILES)) if len(facts.sample) else ()
    same = bool(len(facts.sample)) and facts.low == facts.high
    return ColumnSummary(missing, float(_outside(column, counts) / present), float(same), known)


def _outside(column: Column, counts: Counts) -> int:
    """How many numbers lie outside the reference's range."""
    return int(counts[0] + counts[column.bins - 1]) if column.bins > 1 else 0
