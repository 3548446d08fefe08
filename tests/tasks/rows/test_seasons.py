"""A real year of flights and weather: the seasons, storms and holidays in it are not called broken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from deployments.flights_source import read_table
from perennial.definition import Monitoring
from tasks.check.decision import CheckInputs, check
from tasks.check.health import Freshness
from tasks.check.reference import build_reference

NUMERIC = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib", "distance")
CATEGORICAL = ("carrier", "origin", "dest")
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    flights, weather = read_table("flights.csv.zip"), read_table("weather.csv")

    joined = flights.merge(
        weather[["origin", "time_hour", *NUMERIC[:-1]]].drop_duplicates(["origin", "time_hour"]),
        on=["origin", "time_hour"],
        how="left",
    )
    moments = pd.to_datetime(joined["time_hour"], utc=True).astype("datetime64[us, UTC]")
    typed = {name: joined[name].astype("float64") for name in NUMERIC}
    typed |= {name: joined[name].astype("str") for name in CATEGORICAL}
    return pd.DataFrame({"time": moments, **typed}).sort_values("time", ignore_index=True)


def test_a_real_year_is_not_called_broken(flights: pd.DataFrame) -> None:
    start = datetime(2013, 4, 1, tzinfo=UTC)
    reference = build_reference(
        flights[flights["time"] < pd.Timestamp(start)],
        time="time",
        task="classification",
        loss="log_loss",
        window_seconds=WEEK.total_seconds(),
        numeric=NUMERIC,
        categorical=CATEGORICAL,
    )
    broken, ledger = [], list[dict[str, object]]()
    for week in range(1, 40):
        as_of = start + week * WEEK
        window = flights[(flights["time"] >= pd.Timestamp(as_of - WEEK)) & (flights["time"] < pd.Timestamp(as_of))]
        nothing = pd.DataFrame({"id": [], "time": window["time"][:0], "score": [], "version": []})
        inputs = CheckInputs(
            model="flights",
            champion_version="1",
            reference=reference,
            time="time",
            window=window.reset_index(drop=True),
            predictions=nothing,
            mature=nothing,
            labels=pd.DataFrame({"id": [], "truth": [], "labelled_at": window["time"][:0]}),
            label_delay=WEEK,
            labelled_rows=reference.trained_rows,
            freshness=Freshness(window["time"].max().to_pydatetime()),
            ledger=tuple(ledger),
        )
        decision = check(inputs, Monitoring(), as_of=as_of)
        ledger.append(decision.to_dict())
        if decision.verdict == "repair":
            broken.append((week, decision.reasons))
    assert broken == []
