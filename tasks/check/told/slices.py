"""Declared slices of a check's window: how many rows, how good, what moved in each. No verdict.

Drift within a slice is held against the training's rows of that slice, by the same distances and the same ordinary
movement as the whole, widened as for so few rows; the false-alarm rate is shared among the slices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from perennial.definition import Monitoring
from perennial.model.scores import score_array
from tasks.check.drift import Null, measure_drift
from tasks.check.inputs import Aside, CheckInputs
from tasks.check.reference import Reference, is_prediction
from tasks.check.told.weak import promotion_loss, with_features
from tasks.measures.profiles import Counts, Profile, column_codes
from tasks.measures.quality import MeanLoss, mean_loss, row_losses
from tasks.measures.segments import Levels, make_levels

Mask = NDArray[np.bool_]

MOST_SLICES = 40
LEAST_ROWS = 30
CONFIDENCE = 0.95
_MOST_MOVED = 3


@dataclass(frozen=True)
class _Slice:
    name: str
    now: Mask
    before: Mask
    own: MeanLoss | None
    promised: MeanLoss | None

    @property
    def change(self) -> tuple[float, float] | None:
        """How much the loss has risen since promotion, and the standard error of that."""
        if self.own is None or self.promised is None:
            return None
        error = math.hypot(self.own.standard_error, self.promised.standard_error)
        return (self.own.mean - self.promised.mean, error) if error > 0 else None


def look_at_slices(
    inputs: CheckInputs, aside: Aside, policy: Monitoring, joined: pd.DataFrame, rows: int, as_of: datetime
) -> list[dict[str, Any]]:
    """Each slice with enough rows in the window, the largest first.

    Args:
        rows: Of the whole window, of which `aside.window` may be an even sample.

    Returns:
        Per slice: `slice`, `rows`, `share` and `share_in_training`; `quality`, with the mean loss on the newest mature
        window and its interval, and where that is known `at_promotion`, and `fell`: whether it surely rose since
        (Holm's correction for all slices); `moved`: columns beyond their limit, the furthest first.
    """
    window, sample = aside.window, aside.sample
    if window is None or sample is None:
        return []
    found = list(_slices(inputs, aside, policy, joined, as_of))
    found = sorted(found, key=lambda item: (-int(item.now.sum()), item.name))[:MOST_SLICES]
    fallen = _fallen(found)
    rate = policy.false_alarm_rate / max(1, len(found))
    drift = _Drift(inputs.reference, window, sample)
    return [
        {
            "slice": item.name,
            "rows": round(rows * float(item.now.mean())),
            "share": round(float(item.now.mean()), 5),
            "share_in_training": round(float(item.before.mean()), 5),
            "quality": _quality(item, fell=item.name in fallen),
            "moved": drift.moved(item.now, item.before, rate),
        }
        for item in found
    ]


def _slices(
    inputs: CheckInputs, aside: Aside, policy: Monitoring, joined: pd.DataFrame, as_of: datetime
) -> Iterator[_Slice]:
    window, sample, reference = aside.window, aside.sample, inputs.reference
    assert window is not None
    assert sample is not None
    mature = with_features(joined, aside)
    if mature is not None:
        end = pd.Timestamp(as_of - inputs.label_delay)
        mature = mature[(mature["time"] >= end - policy.window) & (mature["time"] < end)]
    for level in _levels(window, sample, aside.slices):
        now, before = level.codes(window[level.column]), level.codes(sample[level.column])
        judged = None if mature is None else level.codes(mature[level.column])
        for code, name in enumerate(level.names):
            if int((now == code).sum()) < LEAST_ROWS:
                continue
            rows = None if mature is None or judged is None else mature[judged == code]
            own = None if rows is None or len(rows) < LEAST_ROWS else _loss(rows, reference)
            yield _Slice(name, now == code, before == code, own, promotion_loss(reference, aside, before == code))


def _levels(window: pd.DataFrame, sample: pd.DataFrame, columns: Sequence[str]) -> Iterator[Levels]:
    """As the training's rows have them; values that only the window has are slices too."""
    for level in make_levels(sample[list(columns)]):
        if level.cuts:
            yield level
            continue
        new = make_levels(window[[level.column]])
        more = tuple(value for each in new for value in each.values if value not in level.values)
        yield Levels(level.column, values=(*level.values, *more))


def _loss(rows: pd.DataFrame, reference: Reference) -> MeanLoss:
    return mean_loss(row_losses(rows["truth"].to_numpy(dtype=np.float64), score_array(rows["score"]), reference.loss))


def _fallen(found: Sequence[_Slice]) -> set[str]:
    """The names of those whose loss has surely risen, by Holm's correction."""
    chances = sorted((float(stats.norm.sf(rise / error)), name) for name, rise, error in _changes(found))
    fallen: set[str] = set()
    for place, (chance, name) in enumerate(chances):
        if chance > (1 - CONFIDENCE) / (len(chances) - place):
            break
        fallen.add(name)
    return fallen


def _changes(found: Sequence[_Slice]) -> Iterator[tuple[str, float, float]]:
    for item in found:
        if item.change is not None:
            yield (item.name, *item.change)


def _quality(item: _Slice, *, fell: bool) -> dict[str, Any] | None:
    if item.own is None:
        return None
    low, high = item.own.interval(CONFIDENCE)
    told: dict[str, Any] = {"loss": item.own.mean, "low": low, "high": high, "rows": item.own.rows}
    if item.promised is not None:
        told["at_promotion"] = item.promised.mean
    return told | {"fell": fell}


class _Drift:
    """Movement within slices, by the bins of the whole.

    Args:
        reference: The champion's.
        window, sample: Rows of the window and of the training.
    """

    def __init__(self, reference: Reference, window: pd.DataFrame, sample: pd.DataFrame) -> None:
        # Not what is said of texts and images: to say it costs more than all else here.
        left_out = reference.owners
        places = [
            place
            for place, column in enumerate(reference.profile.columns)
            if not is_prediction(column.name) and column.name not in left_out
        ]
        null = reference.null
        self._null = Null(null.mean[places], null.deviation[places], null.missing_deviation[places], null.runs)
        self._reference = reference
        self._columns = tuple(reference.profile.columns[place] for place in places)
        self._width = max((column.bins for column in self._columns), default=0) + 1
        self._now, self._before = (column_codes(frame, self._columns) for frame in (window, sample))

    def moved(self, now: Mask, before: Mask, rate: float) -> list[dict[str, Any]]:
        """The columns that are beyond their limit in the rows of a slice."""
        if int(before.sum()) < LEAST_ROWS:
            return []
        counts = self._counts(self._before[:, before])[None]
        profile = Profile(self._columns, np.zeros(1, dtype=np.int64), counts, self._reference.window_seconds)
        found = measure_drift(
            profile,
            self._wider(float(now.mean())),
            self._counts(self._now[:, now]),
            dict(self._reference.importance),
            rate,
        )
        return [{"column": item.name, "ratio": round(item.ratio, 4)} for item in found[:_MOST_MOVED] if item.ratio > 1]

    def _wider(self, share: float) -> Null:
        """What is ordinary for so small a share of the rows: distances of means of n rows shrink as the root of n."""
        null, root = self._null, share**-0.25  # of the distances' roots
        return Null(null.mean * root, null.deviation * root, null.missing_deviation * root**2, null.runs)

    def _counts(self, codes: Counts) -> Counts:
        counts = np.zeros((len(self._columns), self._width), dtype=np.int64)
        for place, column in enumerate(self._columns):
            own = np.bincount(codes[place], minlength=column.bins + 1)
            counts[place, : column.bins], counts[place, -1] = own[: column.bins], own[column.bins]
        return counts
