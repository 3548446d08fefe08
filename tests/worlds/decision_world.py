"""A small seasonal world with a champion, for the tests of the decision core. No test belongs here."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from perennial.model.scores import score_array
from tasks.check.decision import CheckInputs
from tasks.check.health import Freshness
from tasks.check.reference import Reference, build_reference
from tasks.measures.quality import mean_loss, row_losses

START = datetime(2024, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
NUMERIC = ("temperature", "speed", "rain")
CATEGORICAL = ("carrier", "origin")


def make_frame(weeks: int, *, per_day: int = 96, seed: int = 0, first_week: int = 0) -> pd.DataFrame:
    """Rows every few minutes by day, with a yearly and a daily season and autocorrelated noise (φ = 0.9 by day)."""
    rng = np.random.default_rng(seed)
    days = weeks * 7
    daily = np.zeros((days, 2))
    for day in range(1, days):
        daily[day] = 0.9 * daily[day - 1] + rng.normal(0, 0.4, 2)
    day = np.repeat(np.arange(days), per_day)
    hour = 6 + 16 * rng.beta(3, 2, len(day))
    hour = np.sort(hour.reshape(days, per_day), axis=1).ravel()
    start = START + first_week * WEEK
    time = pd.Series(pd.Timestamp(start) + pd.to_timedelta(day * 24 + hour, unit="h")).astype("datetime64[us, UTC]")
    season = np.sin(2 * np.pi * (time.dt.dayofyear.to_numpy() - 100) / 365)
    temperature = 12 + 10 * season + 3 * daily[day, 0] + rng.normal(0, 2, len(day))
    speed = np.abs(8 + 2 * daily[day, 1] + rng.normal(0, 3, len(day)))
    rain = np.where(rng.random(len(day)) < 0.2, rng.exponential(2, len(day)), 0.0)
    carrier = rng.choice(["AA", "BB", "CC", "DD"], len(day), p=[0.5, 0.3, 0.15, 0.05])
    origin = rng.choice(["north", "south"], len(day))
    chance = 1 / (1 + np.exp(-(0.15 * (speed - 8) + 0.8 * (carrier == "BB") - 0.5)))
    return pd.DataFrame(
        {
            "id": [f"row-{first_week}-{i}" for i in range(len(day))],
            "time": time,
            "temperature": temperature,
            "speed": speed,
            "rain": rain,
            "carrier": pd.Series(carrier, dtype="str"),
            "origin": pd.Series(origin, dtype="str"),
            "chance": chance,
            "truth": (rng.random(len(day)) < chance).astype(np.float64),
        }
    )


def make_reference(frame: pd.DataFrame, **changes: Any) -> Reference:
    """The reference of a champion that knows the true chances."""
    scores = score_array(frame["chance"])
    loss = mean_loss(row_losses(frame["truth"].to_numpy(), scores, "log_loss"))
    given: dict[str, Any] = {
        "time": "time",
        "task": "classification",
        "loss": "log_loss",
        "window_seconds": WEEK.total_seconds(),
        "numeric": NUMERIC,
        "categorical": CATEGORICAL,
        "scores": scores,
        "truth": frame["truth"].to_numpy(),
        "importance": {"speed": 0.6, "carrier": 0.4},
        "holdout_loss": loss.mean,
        "holdout_error": loss.standard_error,
        "holdout_rows": loss.rows,
    }
    return build_reference(frame, **(given | changes))


def make_inputs(reference: Reference, frame: pd.DataFrame, as_of: datetime, **changes: Any) -> CheckInputs:
    """What a caller gives a check at a moment: labels come one week late."""
    moment = pd.Timestamp(as_of)
    window = frame[(frame["time"] >= moment - WEEK) & (frame["time"] < moment)]
    ripe = frame[(frame["time"] >= moment - 5 * WEEK) & (frame["time"] < moment - WEEK)]
    known = frame[frame["time"] < moment - WEEK]
    logged = frame.assign(score=frame["chance"], version="1")[["id", "time", "score", "version"]]
    inputs = CheckInputs(
        model="world",
        champion_version="1",
        reference=reference,
        time="time",
        window=window[["time", *NUMERIC, *CATEGORICAL]].reset_index(drop=True),
        predictions=logged.loc[window.index].reset_index(drop=True),
        mature=logged.loc[ripe.index].reset_index(drop=True),
        labels=known.assign(labelled_at=known["time"] + WEEK)[["id", "truth", "labelled_at"]].reset_index(drop=True),
        label_delay=WEEK,
        labelled_rows=reference.trained_rows + len(ripe),
        freshness=Freshness(latest_event=window["time"].max().to_pydatetime() if len(window) else None),
    )
    return replace(inputs, **changes)


def as_regression(reference: Reference) -> Reference:
    """The same reference of a champion that answers a value."""
    return replace(reference, task="regression", loss="mse")
