"""The one reading of numeric cells, whatever road they come on. It spells no categories.

Missing are null, NaN and blank texts. Numbers are numbers, decimals, truth values (1 and 0), and texts that read as one
of them. Times and durations are none: whether a duration counts seconds or days is for its owner to say.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from perennial.errors import DataError

# What CSV files write for a missing number, as pandas knows it; in JSON or parquet these are texts and no numbers.
MISSING_NUMBERS = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
_TRUTHS = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}
_NO_NUMBERS = (
    (pd.api.types.is_timedelta64_dtype, "durations"),
    (pd.api.types.is_datetime64_any_dtype, "times"),
    (pd.api.types.is_complex_dtype, "complex numbers"),
)


def number(value: object) -> float | None:
    """One cell as a number, NaN where it is missing; None where it is neither. It may be infinite."""
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating | Decimal):
        try:
            return float(value)
        except (OverflowError, ValueError):  # ValueError: a signalling NaN
            return None
    return np.nan if value is None or value is pd.NA or value is pd.NaT else None


def numbers(column: pd.Series[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """A column as float64, NaN where missing, and which cells are neither numbers nor missing: both of shape (n,).

    Raises:
        DataError: The column's type has no numbers.
    """
    kind = column.dtype
    for refused, what in _NO_NUMBERS:
        if refused(kind):
            raise DataError(
                f"column {column.name!r} is {kind}, not numeric: it holds {what}",
                "Give numbers in a unit of your choice, the same wherever the model is asked: .dt.total_seconds()",
            )
    if isinstance(kind, pd.CategoricalDtype):
        column = column.astype(kind.categories.dtype)
        kind = column.dtype
    if pd.api.types.is_numeric_dtype(kind):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), dtype=np.bool_)
    if pd.api.types.is_string_dtype(kind) and not pd.api.types.is_object_dtype(kind):
        try:
            # Arrow reads a float to its last bit, as Python does.
            found = pa.array(column, from_pandas=True).cast(pa.float64()).to_numpy(zero_copy_only=False)
            return np.array(found), np.zeros(len(column), dtype=np.bool_)
        except pa.ArrowInvalid:
            pass
    values = column.astype(object).tolist()
    if set(map(type, values)) <= {float, int, type(None)}:
        try:
            return np.array(values, dtype=np.float64), np.zeros(len(column), dtype=np.bool_)
        except OverflowError:  # an integer that no float holds
            pass
    cells = list(map(number, values))
    wrong = np.array([cell is None for cell in cells], dtype=np.bool_)
    return np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64), wrong


def _of_text(text: str) -> float | None:
    if not text.strip():
        return np.nan
    if text in _TRUTHS:
        return _TRUTHS[text]
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
