"""What a training leaves out of rows that complaints stand against. Which complaints stand is not decided here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.check.complaints.complaint import Complaint


def without_refused(rows: pd.DataFrame, time: str, complaints: Sequence[Complaint]) -> pd.DataFrame:
    """The rows of which a training may learn.

    Of a column complained of, the values in question are missing; rows complained of are left out, and of repeated
    ones all but the first.

    Args:
        rows: Features, time and whatever else; any index.
        time: The time column, in UTC.
        complaints: All; those that refuse nothing change nothing.
    """
    standing = [item for item in complaints if item.refuses]
    if not standing:
        return rows
    rows, kept = rows.copy(), np.ones(len(rows), dtype=bool)
    for item in standing:
        inside = ((rows[time] >= item.since) & (rows[time] < item.until)).to_numpy()
        if item.column is not None and item.column in rows:
            rows[item.column] = rows[item.column].mask(inside)
        elif item.kind == "duplicated rows":
            content = [name for name in rows if not str(name).startswith("_")] + [time]
            kept &= ~(inside & rows.duplicated(list(dict.fromkeys(content))).to_numpy())
        elif item.column is None:
            kept &= ~inside
    return rows[kept]
