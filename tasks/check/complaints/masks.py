"""What a training leaves out of rows that complaints stand against. Which complaints stand is not decided here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.check.complaints.complaint import Complaint


def sound_rows(rows: pd.DataFrame, time: str, complaints: Sequence[Complaint]) -> NDArray[np.bool_]:
    """Which rows no complaint refuses as a whole, shape (n,); of repeated ones the first is sound.

    Args:
        rows: Features and time; columns whose names start with an underscore are none of the content.
        time: The time column, in UTC.
        complaints: All; those that refuse nothing change nothing.
    """
    sound = np.ones(len(rows), dtype=bool)
    for item in complaints:
        if item.column is not None or not item.refuses:
            continue
        inside = _inside(rows, time, item)
        if item.kind == "duplicated rows" and inside.any():
            content = [name for name in rows if not str(name).startswith("_") or name == time]
            inside = inside & rows.duplicated(content).to_numpy()
        sound &= ~inside
    return sound


def without_refused(rows: pd.DataFrame, time: str, complaints: Sequence[Complaint]) -> pd.DataFrame:
    """The rows with the values that complaints refuse as missing."""
    refused = [(item.column, item) for item in complaints if item.refuses and item.column is not None]
    masked = {column: rows[column] for column, _ in refused if column in rows}
    if not masked:
        return rows
    for column, item in refused:
        if column in masked:
            masked[column] = masked[column].mask(_inside(rows, time, item))
    return rows.assign(**masked)


def is_refused(times: pd.Series[Any], complaints: Sequence[Complaint]) -> NDArray[np.bool_]:
    """Which of the moments lie in rows that a complaint refuses anything of, shape (n,)."""
    refused = np.zeros(len(times), dtype=bool)
    for item in complaints:
        if item.refuses:
            refused |= ((times >= item.since) & (times < item.until)).to_numpy()
    return refused


def refusal_name(complaints: Sequence[Complaint]) -> str:
    """Equal for complaints that refuse the same; empty where nothing is refused."""
    refused = (item for item in complaints if item.refuses)
    return ";".join(f"{item.column or item.kind} {item.since.isoformat()} {item.until.isoformat()}" for item in refused)


def _inside(rows: pd.DataFrame, time: str, complaint: Complaint) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = ((rows[time] >= complaint.since) & (rows[time] < complaint.until)).to_numpy()
    return inside
