"""The one reading of truth values, whatever road they come on. It spells no categories and reads no target.

True are true, t, yes and 1, false are false, f, no and 0: texts in any case, the truth values themselves, and the
numbers 1 and 0 (a text may write them 1.0 and 0.0). Missing are null, NaN, NaT and blank texts. Nothing else is folded
into one of the two: 2, "unknown" and "on" are refused by name.

In tables a truth value is spelled as categories are, "True" or "False"; a model reads 1, 0 and NaN.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perennial.model.canonical import STR

RULE = "true or false: true, yes, t or 1, and false, no, f or 0"
_WORDS = dict.fromkeys(("true", "t", "yes", "1", "1.0"), 1.0) | dict.fromkeys(("false", "f", "no", "0", "0.0"), 0.0)
_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating, Decimal)


def truth_value(value: object) -> float | None:
    """One cell as 1.0 or 0.0, NaN where it is missing; None where it is neither."""
    if isinstance(value, str):
        text = value.strip()
        return _WORDS.get(text.lower()) if text else math.nan
    if value is None or value is pd.NA or value is pd.NaT:
        return math.nan
    if not isinstance(value, _NUMBERS):
        return None
    if value == 1:
        return 1.0
    if value == 0:
        return 0.0
    return math.nan if value != value else None


def truth_values(column: pd.Series[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """A column as 1.0, 0.0 and NaN, and which cells are neither truth values nor missing: both of shape (n,)."""
    if pd.api.types.is_bool_dtype(column.dtype) and not isinstance(column.dtype, pd.CategoricalDtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), dtype=np.bool_)
    if isinstance(column.dtype, pd.StringDtype):  # few different texts in many rows
        places, words = pd.factorize(column)
        cells = [*map(truth_value, words), math.nan]  # a missing cell's place is -1
        found = np.array([math.nan if cell is None else cell for cell in cells], dtype=np.float64)
        return found[places], np.array([cell is None for cell in cells], dtype=np.bool_)[places]
    # Value for value: pandas' own hashing takes True and 1 for one, which they are here, and 1 and "1" for two.
    cells = list(map(truth_value, column.astype(object)))
    wrong = np.array([cell is None for cell in cells], dtype=np.bool_)
    return np.array([math.nan if cell is None else cell for cell in cells], dtype=np.float64), wrong


def spelled_truths(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as "True" and "False", NaN where missing: `str` of shape (n,), a new index.

    What is no truth value stays as it is written, for whoever judges rows to point at.
    """
    values, wrong = truth_values(column)
    made = np.where(values == 1.0, "True", "False").astype(object)
    made[np.isnan(values)] = None
    for row in np.flatnonzero(wrong):
        made[row] = str(column.iloc[row])
    return pd.Series(pd.array(made, dtype=STR), name=column.name)
