"""Rows that lack an id or a time, with one made: what a table of no event needs to be kept at all. Says so, always."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

MADE_ID, MADE_TIME = "row_id", "row_time"
_SPAN = timedelta(weeks=52)


@dataclass(frozen=True)
class Prepared:
    """The table with what was added to it, and what that means for the model, in sentences."""

    frame: pd.DataFrame
    told: tuple[str, ...]


def with_id(frame: pd.DataFrame, model: str) -> Prepared:
    """Number the rows in the order in which they lie."""
    digits = len(str(len(frame)))
    ids = [f"{model}-{number:0{digits}}" for number in range(len(frame))]
    told = (
        f"no column names a row: `{MADE_ID}` counts them in the order of the file. Rows that come later need a "
        f"`{MADE_ID}` of their own, which no other row ever had"
    )
    return Prepared(frame.assign(**{MADE_ID: ids}), (told,))


def with_time(frame: pd.DataFrame, *, until: datetime, years: pd.Series | None, seed: int = 0) -> Prepared:
    """Spread the rows over the year before `until`, or over the years that they name, in a random order.

    The order of a file is none of time: rows sorted by their class would be judged on a class that was never seen.
    """
    order = np.random.default_rng(seed).permutation(len(frame))
    share = (order + 0.5) / max(1, len(frame))
    if years is None:
        end = pd.Timestamp(until).floor("h")
        times: Any = end - pd.to_timedelta((1 - share) * _SPAN.total_seconds(), unit="s")
        told = (
            f"no column holds a time: `{MADE_TIME}` spreads the rows over the last year in random order. The gate "
            "judges by random rows then; drift and windows mean nothing before rows come with their own times"
        )
    else:
        start = pd.to_datetime(years.astype("int64").astype("str"), format="%Y", utc=True)
        length = np.where(start.dt.is_leap_year, 366, 365) * 86400.0
        times = start + pd.to_timedelta(share * length, unit="s")
        told = (
            f"the finest time is {years.name}: `{MADE_TIME}` spreads each year's rows over it in random order. The "
            "gate judges by the last of them; windows shorter than a year mean nothing before rows have their own times"
        )
    made = pd.Series(np.asarray(times, dtype="datetime64[us]"), index=frame.index).dt.tz_localize("UTC")
    return Prepared(frame.assign(**{MADE_TIME: made}), (told,))
