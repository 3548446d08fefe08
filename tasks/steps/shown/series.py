"""Columns' statistics over longer periods than a window: windows that do not overlap, merged. Nothing is measured."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

from perennial.series.statistics import kept_rows, shown, statistics_frame
from perennial.state.store import Store
from tasks.measures.statistics import add_up, from_row, to_row


def statistics_series(
    store: Store, model: str, *, column: str | None = None, every: timedelta | None = None
) -> pd.DataFrame:
    """The frame of `perennial.series.statistics`, a row a window and column, or a row for each period and column.

    Args:
        column: Of this column only.
        every: A period's length, counted back from the newest window's end. Of windows that overlap, as those of daily
            checks of a week do, those are merged that lie side by side, so that no row counts twice; `windows` says of
            how many a row is made, `start` and `end` how far they reach.
    """
    if every is None:
        return statistics_frame(store, model, column)
    kept = kept_rows(store, model, column, more=("points", "hashes"))
    if not len(kept):
        return shown(kept).assign(windows=pd.Series(dtype="Int64"))
    rows, counts = [], []
    newest = kept["end"].max()
    for name, own in kept.groupby("column", sort=True):
        apart = own[side_by_side(own["start"].to_numpy(), own["end"].to_numpy())]
        period = ((newest - apart["end"]) // every).to_numpy()
        for number in np.unique(period):
            part = apart[period == number]
            total = add_up([from_row(_plain(row)) for row in part.to_dict("records")])
            rows.append(
                {"decision_id": "", "start": part["start"].min(), "end": part["end"].max(),
                 "version": part["version"].iloc[-1], "column": name} | to_row(total)
            )  # fmt: skip
            counts.append(len(part))
    made = pd.DataFrame(rows).assign(windows=counts)
    order = made.sort_values(["end", "column"], kind="stable").index
    return shown(made).assign(windows=made.loc[order, "windows"].to_numpy())


def side_by_side(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which of the windows to take, newest first, so that none overlaps; booleans of shape (n,)."""
    taken = np.zeros(len(ends), dtype=np.bool_)
    free_until = None
    for place in np.argsort(ends, kind="stable")[::-1]:
        if free_until is None or ends[place] <= free_until:
            taken[place], free_until = True, starts[place]
    return taken


def _plain(row: dict[str, object]) -> dict[str, object]:
    """What pandas calls missing, as None."""
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
