"""The one form in which rows are kept: ids, times, features. No reading, no validation.

The normal form: `_id` as `str`, `_time` (the event's) as UTC microseconds, then the features under their own
names: numeric ones as float64 with NaN for missing, categorical and text ones as pandas `str`; last the
target as it came, where it came.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.features import text_values
from perennial.state.store import ROW_ID, ROW_TIME
from tasks.rows.files import require_columns


def normalise(frame: pd.DataFrame, definition: ModelDefinition, *, with_features: bool = True) -> pd.DataFrame:
    """The frame in the normal form; columns that the definition doesn't name are dropped.

    A numeric cell that is no number stays: its column keeps its text, so that validation can point at it.

    Raises:
        DataError: A needed column is missing, or a time can't be read; rows and values are named.
    """
    data = definition.data
    require_columns(frame.columns, [data.id, data.time, *(definition.features.columns if with_features else ())])
    made: dict[str, Any] = {ROW_ID: id_column(frame[data.id]), ROW_TIME: time_column(frame[data.time])}
    if with_features:
        for name in definition.features.numeric:
            made[name] = _numbers(frame[name])
        for name in (*definition.features.categorical, *definition.features.text):
            made[name] = text_values(frame[name])
        for name in definition.features.image:
            made[name] = frame[name].to_numpy()
    if data.target in frame.columns:
        made[data.target] = frame[data.target].to_numpy()
    return pd.DataFrame(made, index=pd.RangeIndex(len(frame)))


def batch_digest(frame: pd.DataFrame) -> str:
    """The batch's name: 24 hex digits over every cell, column and the rows' order."""
    total = hashlib.sha256("\0".join(map(str, frame.columns)).encode())
    total.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return total.hexdigest()[:24]


def time_column(column: pd.Series[Any]) -> pd.Series[Any]:
    """Times as UTC microseconds; naive ones are taken as UTC, texts are ISO 8601.

    Raises:
        DataError: One is missing or can't be read. Numbers and other spellings are not guessed: 01/02 is two days.
    """
    remedy = "Give ISO 8601 times"
    if pd.api.types.is_numeric_dtype(column):
        raise DataError(f"column {column.name}: {column.dtype} holds no times", remedy)
    format = None if pd.api.types.is_datetime64_any_dtype(column) else "ISO8601"
    try:
        moments = pd.to_datetime(column, utc=True, format=format, errors="coerce").reset_index(drop=True)
    except (ValueError, TypeError) as error:
        raise DataError(f"column {column.name}: a time can't be read: {error}", remedy) from error
    if moments.isna().any():
        row = int(np.flatnonzero(moments.isna())[0])
        value = column.iloc[row]
        if pd.isna(value):
            raise DataError(f"column {column.name}: row {row} has no time", "Every row needs its event's time")
        raise DataError(f"column {column.name}: row {row} has {value!r}, which is no time", remedy)
    return moments.dt.as_unit("us")


def _numbers(column: pd.Series[Any]) -> Any:
    converted = pd.to_numeric(column, errors="coerce")
    if (converted.isna() & column.notna()).any():
        return column.astype("str").reset_index(drop=True)
    return converted.to_numpy(dtype=np.float64, na_value=np.nan)


def id_column(column: pd.Series[Any]) -> pd.Series[Any]:
    """Ids as text; whole numbers as such, however the column holds them.

    Raises:
        DataError: A row has none.
    """
    ids = text_values(column)
    if ids.isna().any():
        row = int(np.flatnonzero(ids.isna())[0])
        raise DataError(f"column {column.name}: row {row} has no id", "Every row needs its id")
    return ids
