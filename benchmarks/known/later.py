"""Real sets that were made when all defaults stood. Nothing was chosen on them; set by set, they were looked at since.

Rows of which only the year is known are put in a random order within it: R's packages sort them by person or place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from known.frames import Known, by_days, by_period, by_rows, strings, thin
from known.numbers import R
from known.packages import Shelf


def _by_year(frame: pd.DataFrame, years: pd.Series[Any], parts: int) -> pd.DataFrame:
    order = np.random.default_rng(0).permutation(len(frame))
    return by_period(frame.iloc[order].reset_index(drop=True), years.iloc[order].reset_index(drop=True), parts)


def _ratings(shelf: Shelf) -> pd.DataFrame:
    """Each rating with the means of the user's and the film's ratings before."""
    frame = shelf.table("dslabs/movielens").assign(t=lambda rows: pd.to_datetime(rows["timestamp"], unit="s"))
    frame = frame.sort_values("t", kind="stable").reset_index(drop=True)
    made = pd.DataFrame({"t": frame["t"], "year": frame["year"].astype(float)})
    for name, column in (("user", "userId"), ("film", "movieId")):
        rating = frame.groupby(column)["rating"]
        made[f"{name}_mean"] = (rating.cumsum() - frame["rating"]) / rating.cumcount().replace(0, np.nan)
    made["film_seen"] = frame.groupby("movieId").cumcount().astype(float)
    made["genre"] = frame["genres"].astype(str).str.split("|").str[0]
    return by_rows(thin(made.assign(y=frame["rating"]), 16_000), 50)


def _women(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("sampleSelection/nlswork").dropna(subset=["ln_wage"]).reset_index(drop=True)
    columns = [
        "age",
        "race",
        "msp",
        "grade",
        "collgrad",
        "not_smsa",
        "c_city",
        "south",
        "ind_code",
        "occ_code",
        "union",
    ]
    made = frame[[*columns, "ttl_exp", "tenure", "hours", "wks_work"]].astype(float)
    made = strings(made, "ind_code", "occ_code", "race")
    return _by_year(made.assign(y=frame["ln_wage"].astype(float)), frame["year"], 3)


def _murders(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("wooldridge/countymurders").sort_values("year", kind="stable")
    frame = thin(frame, 18_000)
    columns = ["density", "popul", "perc1019", "perc2029", "percblack", "percmale"]
    made = frame[[*columns, "rpcincmaint", "rpcpersinc", "rpcunemins"]].astype(float)
    made = made.assign(state=frame["statefips"].astype(str), y=np.log1p(frame["murders"].astype(float)))
    return _by_year(made, frame["year"], 3)


def _happiness(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("wooldridge/happiness").dropna(subset=["vhappy"]).reset_index(drop=True)
    columns = ["workstat", "prestige", "educ", "babies", "preteen", "teens", "income", "region", "attend", "owngun"]
    made = frame[[*columns, "tvhours", "black", "female"]].copy()
    made = strings(made, *(name for name in made if not pd.api.types.is_numeric_dtype(made[name])))
    numbers = [name for name in made if pd.api.types.is_numeric_dtype(made[name])]
    made = made.astype(dict.fromkeys(numbers, float))
    return _by_year(made.assign(y=frame["vhappy"].astype(int)), frame["year"], 4)


def _vocabulary(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("carData/GSSvocab").dropna(subset=["vocab"]).reset_index(drop=True)
    made = strings(frame[["gender", "nativeBorn"]], "gender", "nativeBorn")
    made = made.assign(age=frame["age"].astype(float), educ=frame["educ"].astype(float))
    return _by_year(made.assign(y=frame["vocab"].astype(float)), frame["year"], 2)


def _schools(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("wooldridge/school93_98").dropna(subset=["math4"]).reset_index(drop=True)
    made = frame[["lunch", "enrol", "exppp"]].astype(float).assign(district=(frame["distid"] // 1000).astype("str"))
    return _by_year(made.assign(y=frame["math4"].astype(float)), frame["year"], 8)


def _temperatures(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("stevedata/clemson_temps").assign(t=lambda rows: pd.to_datetime(rows["date"])).dropna()
    frame = frame.sort_values("t").reset_index(drop=True)
    warmest, coldest = frame["tmax"].astype(float), frame["tmin"].astype(float)
    made = frame[["t"]].assign(yesterday=warmest.shift(1), night=coldest.shift(1), before=warmest.shift(2))
    made = made.assign(month=frame["t"].dt.strftime("%b"), y=warmest).dropna()
    return by_rows(thin(made, 16_000), 60)


def _elections(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("causaldata/close_elections_lmb").dropna(subset=["demvoteshare"]).reset_index(drop=True)
    made = frame[["lagdemvoteshare", "lagdemocrat", "score"]].astype(float)
    made = made.assign(state=frame["state"].astype(int).astype("str"), y=frame["demvoteshare"].astype(float))
    return _by_year(made, frame["year"], 2)


def _polls(shelf: Shelf) -> pd.DataFrame:
    """Eighty-four rows a window."""
    frame = shelf.table("dslabs/polls_us_election_2016").assign(t=lambda rows: pd.to_datetime(rows["enddate"]))
    frame = frame.sort_values("t", kind="stable").reset_index(drop=True)
    names = ("state", "pollster", "grade", "population")
    made = strings(frame[["t", *names]], *names).assign(size=frame["samplesize"].astype(float))
    return by_rows(made.assign(y=frame["rawpoll_clinton"].astype(float)), 50)


def _citations(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("sandwich/InstInnovation")
    columns = ["sales", "competition", "capital", "precites", "randd", "employment", "tobinq", "value", "institutions"]
    made = frame[columns].astype(float).assign(industry=frame["industry"].astype("str"))
    return _by_year(made.assign(y=np.log1p(frame["cites"].astype(float))), frame["year"], 4)


def _released(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("carData/Arrests")
    names = ("colour", "sex", "employed", "citizen")
    made = strings(frame[list(names)], *names)
    made = made.assign(age=frame["age"].astype(float), checks=frame["checks"].astype(float))
    return _by_year(made.assign(y=(frame["released"].astype(str) == "Yes").astype(int)), frame["year"], 6)


def _doctor(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("COUNT/rwm5yr")
    columns = ["edlevel", "age", "outwork", "female", "married", "kids", "hhninc", "educ", "self"]
    return _by_year(frame[columns].astype(float).assign(y=(frame["docvis"] > 0).astype(int)), frame["year"], 8)


def _pizza(shelf: Shelf) -> pd.DataFrame:
    frame = shelf.table("gt/pizzaplace")
    frame = frame.assign(t=pd.to_datetime(frame["date"].astype(str) + " " + frame["time"].astype(str)))
    frame = frame.sort_values("t", kind="stable").reset_index(drop=True)
    made = frame[["t"]].assign(hour=frame["t"].dt.hour.astype(float), weekday=frame["t"].dt.dayofweek.astype(float))
    made = made.assign(size=frame["size"].astype("str"), price=frame["price"].astype(float))
    return by_days(thin(made.assign(y=frame["type"].astype("str")), 16_000), 7)


LATER_SETS = (
    Known("ratings", "regression", _ratings, 8, "a film's rating from the means before, genre and year, 1996–2016",
          f"GroupLens, R's dslabs ({R})", "GroupLens's terms; Artistic-2.0"),
    Known("women", "regression", _women, 8, "log wages of young women from schooling, trade, tenure, 1968–1988",
          f"US Bureau of Labor Statistics, R's sampleSelection ({R})", "public domain; GPL-2+"),
    Known("murders", "regression", _murders, 8, "log murders in US counties from population and income, 1980–1996",
          f"R's wooldridge ({R})", "GPL-3"),
    Known("happiness", "binary", _happiness, 8, "is somebody very happy, by work, income, church, 1994–2006",
          f"General Social Survey, R's wooldridge ({R})", "free use with citation; GPL-3"),
    Known("vocabulary", "regression", _vocabulary, 8, "words known out of ten by age and schooling, 1978–2016",
          f"General Social Survey, R's carData ({R})", "free use with citation; GPL-2+"),
    Known("schools", "regression", _schools, 8, "share of pupils who pass in mathematics, Michigan 1993–1998",
          f"R's wooldridge ({R})", "GPL-3"),
    Known("temperatures", "regression", _temperatures, 8, "a day's warmth from the days before, Clemson 1930–2020",
          f"NOAA, R's stevedata ({R})", "public domain; GPL-2+"),
    Known("elections", "regression", _elections, 8, "a party's share in US districts from its last one, 1946–1995",
          f"Lee, Moretti and Butler 2004, R's causaldata ({R})", "MIT"),
    Known("polls", "regression", _polls, 10, "a candidate's share in polls of 2016 by state, pollster and size",
          f"FiveThirtyEight, R's dslabs ({R})", "CC BY 4.0; Artistic-2.0"),
    Known("citations", "regression", _citations, 8, "log citations of firms' patents from size and owners, 1991–1999",
          f"Aghion, Van Reenen and Zingales 2013, R's sandwich ({R})", "GPL-2 or GPL-3"),
    Known("released", "binary", _released, 8, "is an arrested person released with a summons, Toronto 1997–2002",
          f"Toronto Star, R's carData ({R})", "GPL-2+"),
    Known("doctor", "binary", _doctor, 8, "does a German see a doctor in a quarter, 1984–1988",
          f"Riphahn, Wambach and Million 2003, R's COUNT ({R})", "GPL-2"),
    Known("pizza", "multiclass", _pizza, 8, "which of four kinds of pizza, by hour, size and price, 2015",
          f"R's gt ({R})", "MIT"),
)  # fmt: skip
