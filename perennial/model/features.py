"""The one form in which models see their features, in training, batch scoring and the API. No fitting, no encoding.

Numeric columns are float64 with NaN for missing; categorical and text columns are pandas' `str` with NaN, spelled as
`canonical` says; image columns are objects (path or bytes) with None.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perennial.errors import DataError
from perennial.model.canonical import spelled_column
from perennial.model.numbers import numbers

if TYPE_CHECKING:
    from perennial.definition import Features


def feature_frame(frame: pd.DataFrame, features: Features) -> pd.DataFrame:
    """Exactly the feature columns, in the definition's order, with normalised types and a RangeIndex.

    Raises:
        DataError: A column is missing or given twice, or a value is of the wrong kind; row and value are named.
    """
    _check_columns(frame, features.columns)
    columns: dict[str, Any] = {name: numeric_values(frame[name]) for name in features.numeric}
    columns |= {name: spelled_column(frame[name]) for name in features.categorical}
    columns |= {name: spelled_column(frame[name], free_text=True) for name in features.text}
    columns |= {name: _image_values(frame[name]) for name in features.image}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)), copy=False)


def numeric_values(series: pd.Series[Any]) -> np.ndarray:
    """float64 of shape (n,), NaN where missing; numbers written as text are read.

    Raises:
        DataError: A value is no number, or infinite; row and value are named.
    """
    values, wrong = numbers(series)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"column {series.name!r}, row {row} (counted from 0): {_short(series.iloc[row])} is not a number; "
            f"{int(wrong.sum())} of {len(series)} values are not",
            "Give a number, or leave it missing; a time or a duration as a number in a unit of your choice",
        )
    # A sum is finite for finite values: one pass without an array of masks for the usual case.
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = np.isinf(np.nansum(values)) or np.isnan(values.sum())
    if suspect and np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        raise DataError(
            f"column {series.name!r}, row {row} (counted from 0): {values[row]} is not finite",
            "Give a finite number, or leave it missing",
        )
    return values


def _check_columns(frame: pd.DataFrame, wanted: Iterable[str]) -> None:
    present = set(frame.columns)
    if missing := [name for name in wanted if name not in present]:
        near = [match for name in missing for match in difflib.get_close_matches(name, map(str, frame.columns), n=1)]
        hint = f"; the nearest there: {', '.join(dict.fromkeys(near))}" if near else ""
        raise DataError(
            f"missing feature columns: {', '.join(missing)}{hint}", "Supply them, or correct the definition's features"
        )
    if not frame.columns.is_unique:
        twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]} & set(wanted))
        if twice:
            raise DataError(f"columns given twice: {', '.join(twice)}", "Keep one of each")


def _image_values(series: pd.Series[Any]) -> pd.Series[Any]:
    values = series.to_numpy(dtype=object, copy=True)
    values[series.isna().to_numpy()] = None
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, str | bytes):
            raise DataError(
                f"column {series.name!r}, row {row} (counted from 0): {_short(value)} is no image",
                "Give a path or the file's bytes",
            )
    return pd.Series(values, dtype=object)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
