"""The one reading of moments that are features, whatever road they come on. The event's own time is read elsewhere.

A moment is a date or time of its type, or a text in ISO 8601 with dashes: 2026-01-31, 2026-01-31T06:00, with seconds, a
fraction and an offset or Z where there are any. What names no zone is UTC. Missing are null, NaN, NaT and blank texts.
A number is a moment only where the definition says what it counts since 1970 (`features.epoch_units`): 1700000000 may
be seconds or microseconds, and is not guessed. 01/02/2026 is two days, and is refused as well.

Moments are held in whole microseconds since 1970 in UTC, negative before; what is finer is cut off.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

MISSING: Final = int(np.iinfo(np.int64).min)
"""NaT, as numpy holds it."""
_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # the years 1 to 9999
_TEXT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)? ?(Z|([+-])([0-9]{2}):?([0-9]{2})?)?)?"
)
_NUMERAL = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]+)?")
_PER_UNIT: Mapping[str, Decimal] = {
    "s": Decimal(1_000_000), "ms": Decimal(1000), "us": Decimal(1), "ns": Decimal("0.001"),
}  # fmt: skip
_HELD = {"s": 1_000_000, "ms": 1000, "us": 1}


def moment(value: object, unit: str | None = None) -> int | None:
    """One cell in microseconds since 1970 (UTC), `MISSING` where it is missing; None where it is no moment.

    Args:
        unit: What a number counts: s, ms, us or ns; None where a number is no moment.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return MISSING
        if found := _TEXT.fullmatch(text):
            return _of_text(found)
        return _of_number(Decimal(text), unit) if _NUMERAL.fullmatch(text) else None
    if value is None or value is pd.NaT or value is pd.NA:
        return MISSING
    if isinstance(value, float | np.floating) and math.isnan(value):
        return MISSING
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | float | np.integer | np.floating | Decimal):
        return _of_number(Decimal(value.item() if isinstance(value, np.generic) else value), unit)
    if isinstance(value, np.datetime64):
        return MISSING if np.isnat(value) else _bounded(int(value.astype("datetime64[us]").astype(np.int64)))
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.replace(tzinfo=None) - (value.utcoffset() or datetime.timedelta(0))
        return (value - _EPOCH) // _MICROSECOND
    if isinstance(value, datetime.date):
        return (datetime.datetime(value.year, value.month, value.day) - _EPOCH) // _MICROSECOND
    return None


def moments(column: pd.Series[Any], unit: str | None = None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """A column as `moment` reads its cells, and which of them are none: both of shape (n,); what is none is MISSING."""
    if isinstance(column.array, pd.arrays.DatetimeArray):
        held = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
        found, missing = held.to_numpy(), held.isna().to_numpy()
        counted = found.astype(np.int64)
        per = _HELD.get(held.dt.unit)
        made = counted // 1000 if per is None else np.where(missing, 0, counted) * per
        wrong = ~missing & ((made < _FIRST) | (made > _LAST))
        return np.where(missing | wrong, MISSING, made), wrong
    cells: Any
    if isinstance(column.dtype, pd.StringDtype) or pd.api.types.is_float_dtype(column.dtype):
        places, cells = pd.factorize(column)
    else:  # of Python's objects nothing is hashed: True and 1 are one there
        places, cells = np.arange(len(column)), column.astype(object).to_numpy(dtype=object)
    read = [*(moment(cell, unit) for cell in cells), MISSING]  # a missing cell's place is -1
    made = np.array([MISSING if cell is None else cell for cell in read], dtype=np.int64)
    return made[places], np.array([cell is None for cell in read], dtype=np.bool_)[places]


def moment_column(column: pd.Series[Any], unit: str | None = None) -> pd.Series[Any]:
    """A column as moments in UTC, NaT where missing: datetime64[us, UTC] of shape (n,), a new index.

    Where a cell is no moment the whole column stays as it is written, for whoever judges rows to point at the cell.
    """
    made, wrong = moments(column, unit)
    if wrong.any():
        return column.astype("str").reset_index(drop=True)
    return pd.Series(made.view("datetime64[us]"), name=column.name).dt.tz_localize("UTC")


def moment_text(microseconds: int) -> str:
    """A moment as texts have it: 2026-01-31T06:00:00Z, with a fraction only where there is one."""
    found = _EPOCH + datetime.timedelta(microseconds=microseconds)
    return found.isoformat(timespec="microseconds" if found.microsecond else "seconds") + "Z"


def moment_rule(unit: str | None, name: str) -> str:
    """What a cell must be, in words; of numbers it asks for their unit."""
    if unit is not None:
        return f"a time in ISO 8601, or a number of {unit} since 1970"
    return (
        "a time in ISO 8601, such as 2026-01-31T06:00:00Z; where numbers count the time since 1970, say what they do: "
        f"features: {{epoch_units: {{{name}: s}}}}, or ms, us, ns"
    )


def _of_text(found: re.Match[str]) -> int | None:
    year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = found.groups()
    try:
        made = datetime.datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    except ValueError:
        return None
    whole = (made - _EPOCH) // _MICROSECOND + int(((fraction or "") + "000000")[:6])
    if sign:
        if int(hours) > 23 or int(minutes or 0) > 59:
            return None
        offset = (int(hours) * 3600 + int(minutes or 0) * 60) * 1_000_000
        whole -= offset if sign == "+" else -offset
    return _bounded(whole)


def _of_number(value: Decimal, unit: str | None) -> int | None:
    if unit is None or not value.is_finite() or abs(value) >= Decimal(10) ** 20:
        return None
    return _bounded(math.floor(value * _PER_UNIT[unit]))


def _bounded(microseconds: int) -> int | None:
    return microseconds if _FIRST <= microseconds <= _LAST else None
