"""Where loss is surely higher than elsewhere: values of single columns, and of pairs of them. No cause, no verdict.

Of all segments that are looked at together the chance to name one wrongly is at most 1 - confidence (Holm, "A simple
sequentially rejective multiple test procedure", 1979). A pair is named only where it is surely worse than all other
rows, and than what else is in either of its two columns' values: else the wider segment says it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from tasks.measures.quality import MeanLoss, mean_loss

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

FEW_VALUES = 20
QUARTERS = (0.25, 0.5, 0.75)
MOST_ROWS = 100_000
MOST_TOLD = 5
_LEAST_REST = 30


@dataclass(frozen=True)
class Levels:
    """How a column is cut into segments.

    Attributes:
        column: Its name.
        cuts: Of a number with many values, its quarters' inner ends, ascending; else empty.
        values: Otherwise the values that are segments, as text.
    """

    column: str
    cuts: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of each segment, the missing values' last."""
        name, cuts = self.column, self.cuts
        if not cuts:
            return (*(f"{name} = {value}"[:120] for value in self.values), f"{name} is missing")
        inner = (f"{low:.4g} < {name} ≤ {high:.4g}" for low, high in pairwise(cuts))
        return (f"{name} ≤ {cuts[0]:.4g}", *inner, f"{name} > {cuts[-1]:.4g}", f"{name} is missing")

    def codes(self, series: pd.Series[Any]) -> Codes:
        """Each row's segment, shape (rows,); -1 where it is in none."""
        last = len(self.names) - 1
        if self.cuts:
            numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            found = np.searchsorted(self.cuts, numbers, side="left").astype(np.int64)
            found[np.isnan(numbers)] = last
            return found
        local, names = pd.factorize(series)
        known = {value: position for position, value in enumerate(self.values)}
        lookup = np.array([known.get(_text(name), -1) for name in names] + [last], dtype=np.int64)
        return lookup[local]


@dataclass(frozen=True)
class Segment:
    """One segment that is surely worse.

    Attributes:
        where: What it is, in words.
        parts: Of each column the position among its levels.
        own, rest: The loss in it, and of all other rows.
        low, high: The interval of the difference, at the level that it was found at.
    """

    where: str
    parts: tuple[tuple[str, int], ...]
    own: MeanLoss
    rest: MeanLoss
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "rows": self.own.rows,
            "loss": self.own.mean,
            "elsewhere": self.rest.mean,
            "lift_low": self.low,
            "lift_high": self.high,
        }


@dataclass(frozen=True)
class Search:
    """What a search found, the worst first; `looked_at` segments were."""

    looked_at: int
    found: tuple[Segment, ...] = ()

    def to_dict(self, metric: str, columns: int) -> dict[str, Any]:
        """As it is kept: at most `MOST_TOLD`, and how many there are."""
        told = [segment.to_dict() for segment in self.found[:MOST_TOLD]]
        return {"looked_at": self.looked_at, "columns": columns, "metric": metric, "found": told, "of": len(self.found)}


def make_levels(features: pd.DataFrame) -> tuple[Levels, ...]:
    """How each column is cut: quarters of a number with many values, else its values. Bytes are left out."""
    made = []
    for column in features.columns:
        values = features[column]
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > FEW_VALUES:
            cuts = np.unique(values.replace([np.inf, -np.inf], np.nan).dropna().quantile(list(QUARTERS)))
            made.append(Levels(str(column), tuple(float(cut) for cut in cuts)))
        elif not values.map(lambda value: isinstance(value, bytes)).any():
            names = values.value_counts().index
            made.append(Levels(str(column), values=tuple(_text(name) for name in names)))
    return tuple(made)


def search(
    losses: Floats, features: pd.DataFrame, levels: Sequence[Levels], *, columns: int, minimum_rows: int,
    confidence: float,
) -> Search:  # fmt: skip
    """The segments of one column, or of up to two, whose mean loss is surely higher than that of all other rows.

    Args:
        losses: Shape (n,), in order of time: blocks of it carry autocorrelation.
        features: n rows; of more than `MOST_ROWS` as many are looked at, evenly.
        levels: How its columns are cut.
        columns: 1 or 2.
        minimum_rows: A segment has at least so many rows, and as many are outside of it.
        confidence: Of all that is found, together.
    """
    if len(losses) > MOST_ROWS:
        chosen = np.linspace(0, len(losses) - 1, MOST_ROWS).astype(np.int64)
        losses, features = losses[chosen], features.iloc[chosen]
    codes = {each.column: _kept(each.codes(features[each.column]), minimum_rows) for each in levels}
    names = {each.column: each.names for each in levels}
    looked = list(_singles(losses, codes, minimum_rows))
    if columns > 1:
        looked += _pairs(losses, codes, minimum_rows)
    return Search(len(looked), _found(losses, codes, names, looked, 1 - confidence))


@dataclass(frozen=True)
class _Cell:
    parts: tuple[tuple[str, int], ...]
    chance: float


def _kept(codes: Codes, minimum_rows: int) -> Codes:
    """Segments of too few rows are in none."""
    counts = np.bincount(codes + 1)
    kept: Codes = np.where(counts[codes + 1] >= minimum_rows, codes, -1)
    return kept


def _sums(codes: Codes, losses: Floats, size: int) -> Floats:
    """Rows, sum and sum of squares of each code, shape (3, size)."""
    inside = codes >= 0
    if not inside.all():
        codes, losses = codes[inside], losses[inside]
    weights = (None, losses, losses**2)
    return np.stack([np.bincount(codes, weights=each, minlength=size).astype(np.float64) for each in weights])


def _chances(own: Floats, other: Floats) -> Floats:
    """The one-sided chances that means differ so if rows are independent, of sums of shape (3, …)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [part[1] / part[0] for part in (own, other)]
        errors = [(part[2] / part[0] - mean**2) / (part[0] - 1) for part, mean in zip((own, other), means, strict=True)]
        z = (means[0] - means[1]) / np.sqrt(np.maximum(errors[0] + errors[1], 1e-300))
    return np.asarray(np.where(np.isfinite(z), stats.norm.sf(z), 1.0), dtype=np.float64)


def _singles(losses: Floats, codes: Mapping[str, Codes], minimum_rows: int) -> Iterator[_Cell]:
    whole = np.array([len(losses), losses.sum(), (losses**2).sum()])
    for column, own in codes.items():
        sums = _sums(own, losses, int(own.max(initial=-1)) + 1)
        rest = whole[:, None] - sums
        chances = _chances(sums, rest)
        for code in np.flatnonzero((sums[0] >= minimum_rows) & (rest[0] >= minimum_rows)):
            yield _Cell(((column, int(code)),), float(chances[code]))


def _pairs(losses: Floats, codes: Mapping[str, Codes], minimum_rows: int) -> Iterator[_Cell]:
    whole = np.array([len(losses), losses.sum(), (losses**2).sum()])
    sizes = {column: int(own.max(initial=-1)) + 1 for column, own in codes.items()}
    alone = {column: _sums(own, losses, sizes[column]) for column, own in codes.items()}
    for left, right in combinations(codes, 2):
        size = (sizes[left], sizes[right])
        both = np.where((codes[left] < 0) | (codes[right] < 0), -1, codes[left] * size[1] + codes[right])
        sums = _sums(both, losses, size[0] * size[1]).reshape(3, *size)
        rests = (whole[:, None, None] - sums, alone[left][:, :, None] - sums, alone[right][:, None, :] - sums)
        chances = np.max([_chances(sums, rest) for rest in rests], axis=0)
        enough = (sums[0] >= minimum_rows) & (rests[0][0] >= minimum_rows)
        enough &= (rests[1][0] >= _LEAST_REST) & (rests[2][0] >= _LEAST_REST)
        for a, b in np.argwhere(enough):
            yield _Cell(((left, int(a)), (right, int(b))), float(chances[a, b]))


def _found(
    losses: Floats, codes: Mapping[str, Codes], names: Mapping[str, Sequence[str]], looked: Sequence[_Cell], rate: float
) -> tuple[Segment, ...]:
    """Those that Holm's correction leaves, with blocks of time in their errors, the surest worst first.

    The chance with independent rows is never above the one with blocks: where it is too great, no more is looked at.
    """
    careful: list[tuple[float, _Cell]] = []
    for cell in sorted(looked, key=lambda cell: cell.chance):
        if cell.chance > rate / max(1, len(looked) - len(careful)):
            break
        careful.append((max(_chance(losses, mask, rest) for mask, rest in _compared(codes, cell)), cell))
    found = []
    for place, (chance, cell) in enumerate(sorted(careful, key=lambda item: item[0])):
        level = rate / (len(looked) - place)
        if chance > level:
            break
        mask, rest = next(_compared(codes, cell))
        own, other = mean_loss(losses[mask]), mean_loss(losses[rest])
        reach = float(stats.norm.isf(level)) * math.hypot(own.standard_error, other.standard_error)
        lift = own.mean - other.mean
        where = " and ".join(names[column][code] for column, code in cell.parts)
        found.append(Segment(where, cell.parts, own, other, lift - reach, lift + reach))
    return tuple(sorted(found, key=lambda segment: segment.low, reverse=True))


def _compared(codes: Mapping[str, Codes], cell: _Cell) -> Iterator[tuple[Mask, Mask]]:
    """The segment and what it is held against: all other rows, then the rest of each of its parts."""
    parts = [codes[column] == code for column, code in cell.parts]
    mask: Mask = np.logical_and.reduce(parts)
    yield mask, ~mask
    if len(parts) > 1:
        yield from ((mask, part & ~mask) for part in parts)


def _chance(losses: Floats, mask: Mask, rest: Mask) -> float:
    own, other = mean_loss(losses[mask]), mean_loss(losses[rest])
    error = math.hypot(own.standard_error, other.standard_error)
    lift = own.mean - other.mean
    if not math.isfinite(lift) or not error > 0:
        return 1.0
    return float(stats.norm.sf(lift / error))


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
