"""Moments as a check watches them: hour, weekday, and how long before its row each lies. No threshold, no verdict.

A column of moments moves on with the world, and that is no drift; what may drift is when in the day and in the week
they lie, and their distance from the row's own time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from perennial.errors import DataError
from perennial.model.cells.moments import MISSING, moments
from perennial.model.transformers import DATE_PARTS, date_parts
from perennial.state.tables import ROW_TIME

_WEEKDAYS = np.array(
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"], dtype=object
)  # fmt: skip
_HOURS = np.array([f"{hour:02}" for hour in range(24)], dtype=object)
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Dates:
    """Which columns hold moments, and how their parts are told.

    Attributes:
        columns: The columns.
        time: The column of the row's own time, where rows don't have it in the normal form.
        timezone: The zone in which hours and weekdays are told.
    """

    columns: tuple[str, ...] = ()
    time: str = ROW_TIME
    timezone: str = "UTC"

    def to_dict(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "time": self.time, "timezone": self.timezone}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Dates:
        return cls(tuple(raw["columns"]), raw["time"], raw["timezone"])


def date_columns(name: str) -> tuple[str, str, str]:
    """What a column of moments is watched by: two categories and a number."""
    return (f"{name} · hour", f"{name} · weekday", f"{name} · days before the row")


def describe_dates(frame: pd.DataFrame, dates: Dates) -> pd.DataFrame:
    """The frame with an hour, a weekday and the days before the row's time in place of each column of moments.

    Raises:
        DataError: The rows' own time is not there, or a column does not hold moments.
    """
    present = [name for name in dates.columns if name in frame]
    if not present:
        return frame
    own = next((name for name in (ROW_TIME, dates.time) if name in frame), None)
    if own is None:
        raise DataError(f"the rows lack their time, {dates.time}", "Give it: moments are watched by their age")
    times, _ = moments(frame[own])
    described = frame.drop(columns=present)
    for name in present:
        hour, weekday, days = date_columns(name)
        counted, wrong = moments(frame[name])
        if wrong.any():
            raise DataError(f"{name} holds {frame[name].dtype}, not times", "Mend the feed, or declare it categorical")
        missing = counted == MISSING
        parts = np.where(missing[:, None], 0.0, date_parts(counted, dates.timezone))
        of_hour = _HOURS[parts[:, DATE_PARTS.index("hour")].astype(np.int64)]
        of_week = _WEEKDAYS[parts[:, DATE_PARTS.index("weekday")].astype(np.int64)]
        for part, values in ((hour, of_hour), (weekday, of_week)):
            described[part] = pd.Series(values, frame.index, dtype="str").mask(missing)
        described[days] = np.where(missing, np.nan, (times - np.where(missing, 0, counted)) / _DAY)
    return described


def spread_over(importance: Mapping[str, float], columns: Collection[str]) -> dict[str, float]:
    """The importance of columns of moments, shared by what they are watched by."""
    spread = {name: float(value) for name, value in importance.items() if name not in columns}
    for name in columns:
        if name in importance:
            spread |= dict.fromkeys(date_columns(name), float(importance[name]) / 3)
    return spread
