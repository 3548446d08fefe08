"""A set's rows in the benchmarks' form: `t`, `w`, `y` and features. Which columns a set has is not said here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from known.packages import Shelf


@dataclass(frozen=True)
class Known:
    """One real set and where it comes from.

    Attributes:
        name: The folder's name.
        task: regression, binary or multiclass.
        make: From the packages to a frame with `t`, `w`, `y` and features, in order of time.
        start: Windows in the first training set.
        what: What is predicted from what, in a line.
        origin: Whose data it is, and in which package.
        licence: What the origin, or the package, grants.
    """

    name: str
    task: str
    make: Callable[[Shelf], pd.DataFrame]
    start: int
    what: str
    origin: str
    licence: str

    @property
    def loss(self) -> str:
        return "squared_error" if self.task == "regression" else "log_loss"


def thin(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """At most so many rows, evenly spread over the order that they are in."""
    if len(frame) <= rows:
        return frame.reset_index(drop=True)
    return frame.iloc[np.linspace(0, len(frame) - 1, rows).astype(int)].reset_index(drop=True)


def by_rows(frame: pd.DataFrame, windows: int) -> pd.DataFrame:
    """Windows of one size, in the order of `t`; `t` becomes a position where it is no moment."""
    ordered = frame.sort_values("t", kind="stable").reset_index(drop=True)
    if not pd.api.types.is_datetime64_any_dtype(ordered["t"]):
        ordered["t"] = np.arange(len(ordered))
    return ordered.assign(w=np.arange(len(ordered)) * windows // len(ordered))


def by_days(frame: pd.DataFrame, days: int, fewest_rows: int = 50) -> pd.DataFrame:
    """Windows of so many days from the first moment's day on; small ones at the end are left out."""
    ordered = frame.sort_values("t", kind="stable").reset_index(drop=True)
    ordered["w"] = (ordered["t"] - ordered["t"].iloc[0].normalize()).dt.days // days
    counts = ordered["w"].value_counts()
    last = counts[counts >= fewest_rows].index.max()
    return ordered[ordered["w"] <= last].reset_index(drop=True)


def by_period(frame: pd.DataFrame, period: Any, parts: int = 1) -> pd.DataFrame:
    """Each period (a year, a season) cut into so many windows by its rows' order; `t` becomes a position."""
    ordered = frame.assign(_period=period).sort_values("_period", kind="stable").reset_index(drop=True)
    codes = pd.factorize(ordered["_period"], sort=True)[0]
    place = ordered.groupby(codes).cumcount()
    size = ordered.groupby(codes)["_period"].transform("size")
    windows = codes * parts + place * parts // size
    return ordered.drop(columns="_period").assign(w=windows, t=np.arange(len(ordered)))


def strings(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The columns as text, missing where they were."""
    return frame.assign(**{name: frame[name].astype("str").where(frame[name].notna(), None) for name in columns})
