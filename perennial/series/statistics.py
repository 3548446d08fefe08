"""Columns' statistics, window after window, as a frame. Nothing is merged here: that is tasks.steps.shown.series."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from perennial.state.store import Store

QUANTILES = ("q05", "q25", "median", "q75", "q95")
KEPT = (
    "decision_id", "start", "end", "version", "column", "kind", "rows", "missing", "unseen", "finite", "mean",
    "deviation", "low", "high", "quantiles", "distinct", "top",
)  # fmt: skip
SHOWN = (
    "start", "end", "version", "column", "kind", "rows", "missing", "missing_share", "mean", "deviation", "low",
    *QUANTILES, "high", "distinct", "unseen", "unseen_share", "top",
)  # fmt: skip


def statistics_frame(store: Store, model: str, column: str | None = None) -> pd.DataFrame:
    """The statistics of each check's window, oldest first; of one column, or of all.

    Returns:
        The columns of `SHOWN`: `start` and `end` of the window, the champion's version, the column and its kind
        (`(prediction)` is the champion's answer), counts and shares, moments and quantiles of finite numbers, `top` as
        a mapping of the most frequent values. What a check of before there were these did not keep is missing.
    """
    return shown(pd.concat([_earlier(store, model, column), kept_rows(store, model, column)], ignore_index=True))


def kept_rows(store: Store, model: str, column: str | None = None, *, more: tuple[str, ...] = ()) -> pd.DataFrame:
    """The rows of the table, the last decision's of each window.

    Args:
        more: Columns of the table beside `KEPT`.
    """
    where = None if column is None else pc.field("column") == column
    frame = store.frame(model, "column_statistics", columns=[*KEPT, *more], where=where)
    frame = frame.sort_values("end", kind="stable")
    return frame.drop_duplicates(["start", "end", "column"], keep="last", ignore_index=True)


def shown(kept: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table as people and programs read them."""
    quantiles = [
        list(row) if row is not None and len(row) == len(QUANTILES) else [None] * 5 for row in kept["quantiles"]
    ]
    frame = kept.assign(
        **pd.DataFrame(quantiles, columns=list(QUANTILES), index=kept.index, dtype="float64"),
        missing_share=kept["missing"] / kept["rows"],
        unseen_share=kept["unseen"] / (kept["rows"] - kept["missing"]),
        top=kept["top"].astype(object).map(_counts),
    )
    whole = ("version", "rows", "missing", "distinct", "unseen")
    frame = frame.astype(dict.fromkeys(whole, "Int64"))
    return frame[list(SHOWN)].sort_values(["end", "column"], kind="stable", ignore_index=True)


def _counts(text: object) -> dict[str, int]:
    """The most frequent values as they are kept, as a mapping; empty where none are."""
    found: dict[str, int] = json.loads(text) if isinstance(text, str) else {}
    return found


def _earlier(store: Store, model: str, column: str | None) -> pd.DataFrame:
    """What checks kept before: shares missing and outside, and quantiles."""
    frame = store.frame(model, "statistics", columns=["block", "recorded_at", "profile_key", "profile"])
    frame = frame.sort_values(["block", "recorded_at"], kind="stable").drop_duplicates("block", keep="last")
    rows: list[dict[str, Any]] = []
    for item in frame.itertuples():
        profile = json.loads(str(item.profile))
        version, _, decision = str(item.profile_key).removeprefix("v").partition(":")
        for name, (missing, outside, _, quantiles) in profile["columns"].items():
            if column not in (None, name):
                continue
            gone = round(missing * profile["rows"])
            rows.append(
                {"decision_id": decision, "start": item.block, "end": item.recorded_at, "version": int(version),
                 "column": name, "kind": "numeric" if quantiles else "categorical", "rows": profile["rows"],
                 "missing": gone, "unseen": round(outside * (profile["rows"] - gone)), "quantiles": quantiles}
            )  # fmt: skip
    made = pd.DataFrame(rows, columns=list(KEPT))
    times = dict.fromkeys(("start", "end"), "datetime64[us, UTC]")
    return made.astype(times | dict.fromkeys(("mean", "deviation", "low", "high"), "float64"))
