"""Truth values and moments as checks watch them: what moves on by nature is no drift, and what broke is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from decision_world import CATEGORICAL, NUMERIC, START, WEEK, make_frame, make_inputs, make_reference

from perennial.definition import Monitoring
from perennial.errors import DataError
from tasks.check.decision import Decision, check
from tasks.check.reference import Reference
from tasks.measures.dates import Dates, date_columns, describe_dates

AS_OF = START + 33 * WEEK
DATES = Dates(("seen", "born"), "time", "Europe/Rome")


def _frame() -> pd.DataFrame:
    frame = make_frame(33)
    generator = np.random.default_rng(3)
    # When somebody was last seen moves on with the rows; births lie where they lay, most of them before 1970.
    ago = pd.to_timedelta(generator.exponential(20, len(frame)), unit="D")
    frame["seen"] = (frame["time"].dt.floor("D") - ago.floor("D") + pd.Timedelta("9h")).dt.as_unit("us")
    born = pd.to_timedelta(np.round(generator.normal(-2000, 4000, len(frame))), unit="D")
    frame["born"] = (pd.Timestamp("1970-01-01", tz="UTC") + pd.Series(born)).dt.as_unit("us")
    frame.loc[generator.random(len(frame)) < 0.1, "seen"] = pd.NaT
    frame["member"] = pd.Series(np.where(generator.random(len(frame)) < 0.4, "True", "False"), dtype="str")
    return frame


FRAME = _frame()
REFERENCE = make_reference(
    FRAME[FRAME["time"] < pd.Timestamp(START + 30 * WEEK)], categorical=(*CATEGORICAL, "member"), dates=DATES
)


def _check(change: Callable[[pd.DataFrame], pd.DataFrame] = lambda window: window) -> Decision:
    inputs = make_inputs(REFERENCE, FRAME, AS_OF)
    inside = (FRAME["time"] >= pd.Timestamp(AS_OF - WEEK)) & (FRAME["time"] < pd.Timestamp(AS_OF))
    columns = ["time", *NUMERIC, *CATEGORICAL, "member", "seen", "born"]
    return check(
        replace(inputs, window=change(FRAME.loc[inside, columns].reset_index(drop=True))), Monitoring(), as_of=AS_OF
    )


def _fired(decision: Decision) -> list[str]:
    return [signal.name for signal in decision.signals if signal.fired]


def test_what_moves_on_with_the_rows_is_in_order() -> None:
    decision = _check()
    assert _fired(decision) == []
    watched = {column.name: column.kind for column in REFERENCE.columns}
    assert watched["seen · hour"] == watched["born · weekday"] == watched["member"] == "categorical"
    assert watched["seen · days before the row"] == "numeric"
    assert "seen" not in watched
    assert Reference.from_dict(REFERENCE.to_dict()).dates == DATES


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda window: window.assign(seen=window["seen"] - pd.Timedelta(days=9000)), "seen · days before the row"),
        (lambda window: window.assign(seen=window["seen"] + pd.Timedelta(hours=6)), "seen · hour"),
        (lambda window: window.assign(seen=pd.NaT), "seen"),
        (lambda window: window.assign(member="True"), "member"),
        (lambda window: window.drop(columns="born"), "born"),
        (lambda window: window.assign(born="soon"), "born"),
    ],
    ids=["another epoch", "another clock", "gone", "always true", "no column", "no moments"],
)
def test_what_broke_is_named(change: Callable[[pd.DataFrame], pd.DataFrame], named: str) -> None:
    decision = _check(change)
    told = [f"{signal.name}: {signal.detail}" for signal in decision.signals if signal.fired]
    assert any(named in text for text in told), told


def test_parts_are_told_by_the_clocks_of_the_zone() -> None:
    rows = pd.DataFrame(
        {
            "_time": pd.to_datetime(["2024-07-02T12:00Z", "2024-01-02T12:00Z", "2024-01-02T12:00Z"], utc=True),
            "seen": pd.to_datetime(["2024-07-01T22:30Z", "2024-01-03T00:00Z", None], utc=True),
        }
    )
    found = describe_dates(rows, Dates(("seen",), "at", "Europe/Rome"))
    hour, weekday, days = date_columns("seen")
    assert found[hour].tolist()[:2] == ["00", "01"]
    assert found[weekday].tolist()[:2] == ["Tuesday", "Wednesday"]
    np.testing.assert_allclose(found[days], [13.5 / 24, -0.5, np.nan])
    assert found[[hour, weekday]].iloc[2].isna().all()
    with pytest.raises(DataError, match="the rows lack their time, at"):
        describe_dates(rows.drop(columns="_time"), Dates(("seen",), "at"))
