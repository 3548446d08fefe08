"""The one form in which models see their features, in training, batch scoring and the API. No fitting, no encoding.

Numeric columns are float64 with NaN for missing; categorical and text columns are pandas' `str` with NaN, spelled as
`canonical` says; image columns are objects (path or bytes) with None. Boolean columns are float64: 1, 0 and NaN.
Datetime columns are datetime64[us] in UTC without a zone, NaT for missing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perennial.errors import DataError
from perennial.model.canonical import spelled_column
from perennial.model.cells.moments import moment_rule, moments
from perennial.model.cells.truths import RULE, truth_values
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
    columns |= {name: boolean_values(frame[name]) for name in features.boolean}
    columns |= {name: datetime_values(frame[name], features.epoch_units.get(name)) for name in features.datetime}
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


def boolean_values(series: pd.Series[Any]) -> np.ndarray:
    """float64 of shape (n,): 1, 0, and NaN where missing.

    Raises:
        DataError: A value is neither true nor false; row and value are named.
    """
    values, wrong = truth_values(series)
    if wrong.any():
        raise _refused(series, wrong, "is neither true nor false", f"Give {RULE}; or leave it missing")
    return values


def datetime_values(series: pd.Series[Any], unit: str | None = None) -> np.ndarray:
    """datetime64[us] of shape (n,) in UTC, NaT where missing.

    Args:
        unit: What numbers count since 1970; None where they are no moments.

    Raises:
        DataError: A value is no moment; row and value are named.
    """
    found, wrong = moments(series, unit)
    if wrong.any():
        raise _refused(series, wrong, "is no moment", f"Give {moment_rule(unit, str(series.name))}")
    return found.view("datetime64[us]")


def _refused(series: pd.Series[Any], wrong: np.ndarray, what: str, remedy: str) -> DataError:
    row = int(wrong.argmax())
    return DataError(
        f"column {series.name!r}, row {row} (counted from 0): {_short(series.iloc[row])} {what}; "
        f"{int(wrong.sum())} of {len(series)} values are not",
        remedy,
    )


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
