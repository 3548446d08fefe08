"""The one form in which rows are kept: ids, times, features. No reading, no validation.

The normal form: `_id` as `str`, `_time` (the event's) as UTC microseconds, then the features under their own
names: numeric ones as float64 with NaN for missing, categorical and text ones as pandas `str`, boolean ones as
"True" and "False", datetime ones as UTC microseconds; last the target as it came, where it came. Ids, categories and
texts are spelled as `perennial.model.canonical` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.canonical import joined_columns, parted, spelled_column
from perennial.model.cells.moments import moment_column, moment_rule, moments
from perennial.model.cells.truths import RULE, spelled_truths, truth_values
from perennial.model.numbers import numbers
from perennial.state.tables import ROW_ID, ROW_TIME
from tasks.rows.files import require_columns

_TIMES_REMEDY = "Give ISO 8601 times"


def normalise(frame: pd.DataFrame, definition: ModelDefinition, *, with_features: bool = True) -> pd.DataFrame:
    """The frame in the normal form; columns that the definition doesn't name are dropped.

    A cell that is no number, no truth value or no moment, where it should be one, stays: its column keeps its text, so
    that validation can point at it.

    Raises:
        DataError: A needed column is missing, or a time can't be read; rows and values are named.
    """
    data = definition.data
    features = definition.features
    require_columns(frame.columns, [*data.id_columns, data.time, *(features.columns if with_features else ())])
    made: dict[str, Any] = {ROW_ID: row_ids(frame, definition), ROW_TIME: time_column(frame[data.time])}
    if with_features:
        for name in features.numeric:
            made[name] = _numbers(frame[name])
        for name in (*features.categorical, *features.text):
            made[name] = spelled_column(frame[name], free_text=name in features.text)
        for name in features.image:
            made[name] = frame[name].to_numpy()
        for name in features.boolean:
            made[name] = spelled_truths(frame[name])
        for name in features.datetime:
            made[name] = moment_column(frame[name], features.epoch_units.get(name))
        for name in definition.carried:
            if name in frame.columns:  # who only asks for a score has none
                weights = name == definition.training.weights
                made[name] = _numbers(frame[name]) if weights else spelled_column(frame[name])
    if data.target in frame.columns:
        made[data.target] = frame[data.target].to_numpy()
    return pd.DataFrame(made, index=pd.RangeIndex(len(frame)))


def used_columns(frame: pd.DataFrame, definition: ModelDefinition) -> pd.DataFrame:
    """The columns of a frame that the definition reads: what names a batch."""
    data = definition.data
    used = {*data.id_columns, data.time, data.target, *definition.features.columns, *definition.carried}
    return frame[[name for name in frame.columns if name in used]]


def batch_digest(frame: pd.DataFrame) -> str:
    """24 hex digits over every cell, column and the rows' order."""
    total = hashlib.sha256("\0".join(map(str, frame.columns)).encode())
    total.update(_row_hashes(frame))
    return total.hexdigest()[:24]


def _row_hashes(frame: pd.DataFrame) -> bytes:
    """64 bits a row."""
    try:
        hashes = pd.util.hash_pandas_object(frame, index=False)
    except TypeError:  # lists and mappings in cells
        texts = {name: frame[name].map(repr) for name in frame.columns if pd.api.types.is_object_dtype(frame[name])}
        hashes = pd.util.hash_pandas_object(frame.assign(**texts), index=False)
    return hashes.to_numpy().tobytes()


class BatchDigest:
    """The name of a batch that comes in parts: 24 hex digits over every cell, column and the rows' order.

    It does not depend on where the parts end, as long as a column has one type in all of them.
    """

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}
        self._rows = 0

    def add(self, frame: pd.DataFrame) -> None:
        """Take the next part.

        Raises:
            DataError: A text is none that can be written; its column is named.
        """
        self._rows += len(frame)
        for name in frame.columns:
            try:
                for kind, content in _contents(frame[name]):
                    self._columns.setdefault(f"{name}\0{kind}", hashlib.sha256()).update(content)
            except UnicodeEncodeError as error:
                raise DataError(f"column {name} holds half a character: {error}", "Give whole characters") from error

    def hexdigest(self, coding: str = "") -> str:
        """The name; the same cells that mean something else, by another coding of the truth, are another batch."""
        parts = [f"{name}\0{total.hexdigest()}" for name, total in self._columns.items()]
        return hashlib.sha256("\0".join([coding, str(self._rows), *parts]).encode()).hexdigest()[:24]


def _contents(column: pd.Series[Any]) -> Iterator[tuple[str, Any]]:
    """A column's bytes by kind: of numbers and times as they are held, of texts their lengths and letters."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufb":
        yield str(column.dtype), np.ascontiguousarray(column.to_numpy())
    elif isinstance(column.array, pd.arrays.DatetimeArray):
        yield str(column.dtype), np.ascontiguousarray(column.astype("int64").to_numpy())
    elif isinstance(column.dtype, pd.StringDtype):
        texts = pa.array(column, type=pa.large_string(), from_pandas=True)
        for part in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
            yield "lengths", np.asarray(pc.fill_null(pc.binary_length(part), -1))
            letters, offsets = part.buffers()[2], np.frombuffer(part.buffers()[1], dtype=np.int64)
            if letters is not None:
                yield "letters", memoryview(letters)[offsets[part.offset] : offsets[part.offset + len(part)]]
    else:
        yield "hashes", _row_hashes(column.to_frame())


def time_column(column: pd.Series[Any]) -> pd.Series[Any]:
    """Times as UTC microseconds; naive ones are taken as UTC, texts are ISO 8601.

    Raises:
        DataError: One is missing or can't be read. Numbers, durations, `now` and other spellings are not guessed:
            01/02 is two days, and now is another moment for whoever reads it later.
    """
    moments = moments_where_readable(column)
    if moments.isna().any():
        row = int(np.flatnonzero(moments.isna())[0])
        value = column.iloc[row]
        if pd.isna(value):
            raise DataError(f"column {column.name}: row {row} has no time", "Every row needs its event's time")
        raise DataError(f"column {column.name}: row {row} has {value!r}, which is no time", _TIMES_REMEDY)
    return moments


def moments_where_readable(column: pd.Series[Any]) -> pd.Series[Any]:
    """As `time_column`, NaT where a cell is missing or no time.

    Raises:
        DataError: The column is of a kind that holds no times.
    """
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise DataError(f"column {column.name}: {column.dtype} holds no times", _TIMES_REMEDY)
    if isinstance(column.array, pd.arrays.DatetimeArray):
        return utc_moments(column)
    format = None if pd.api.types.is_datetime64_any_dtype(column) else "ISO8601"
    try:
        moments = pd.to_datetime(_dated(column), utc=True, format=format, errors="coerce").reset_index(drop=True)
    except (ValueError, TypeError) as error:
        raise DataError(f"column {column.name}: a time can't be read: {error}", _TIMES_REMEDY) from error
    return moments.dt.as_unit("us")


def utc_moments(times: pd.Series[Any]) -> pd.Series[Any]:
    """Times that are held as such, as UTC microseconds: `to_datetime` would first look at thousands one by one."""
    zoned = times.dt.tz_localize("UTC") if times.dt.tz is None else times.dt.tz_convert("UTC")
    moments: pd.Series[Any] = zoned.reset_index(drop=True).dt.as_unit("us")
    return moments


def _dated(column: pd.Series[Any]) -> pd.Series[Any]:
    """The column without what pandas takes for a time and is none: `now`, `today`, numbers, durations."""
    if isinstance(column.dtype, pd.StringDtype):
        texts = pa.array(column, type=pa.string(), from_pandas=True)
        dated = pc.fill_null(pc.match_substring_regex(texts, r"^\s*[0-9]{4}"), False)
        undated: np.ndarray = pc.invert(dated).to_numpy(zero_copy_only=False)
        return column.mask(undated)
    if pd.api.types.is_object_dtype(column.dtype):
        return column.where(np.array([_is_dated(value) for value in column], dtype=np.bool_))
    return column


def _is_dated(value: object) -> bool:
    if isinstance(value, str):
        return value.lstrip()[:4].isdecimal()
    return hasattr(value, "year")  # dates and times of any kind


def _numbers(column: pd.Series[Any]) -> Any:
    values, wrong = numbers(column)
    return column.astype("str").reset_index(drop=True) if wrong.any() else values


@dataclass(frozen=True)
class Unusable:
    """Why a row can be no model's: the rule that its first bad cell breaks, and all of them in words."""

    rule: str
    reason: str


def unusable_cells(rows: pd.DataFrame, definition: ModelDefinition) -> dict[int, Unusable]:
    """By row of the normal form: numbers that are none or infinite, truth values and moments that are none."""
    found: dict[int, list[tuple[str, str]]] = {}
    for name, wrong, rule in _wrong_cells(rows, definition):
        for row in np.flatnonzero(wrong):
            reason = f"{name}: {str(rows[name].iloc[row])[:60]!r} is no {rule}"
            found.setdefault(int(row), []).append((f"{name}: no {rule.partition(' (')[0]}", reason))
    return {row: Unusable(cells[0][0], "; ".join(reason for _, reason in cells)) for row, cells in found.items()}


def _wrong_cells(rows: pd.DataFrame, definition: ModelDefinition) -> Iterator[tuple[str, np.ndarray, str]]:
    """Of each column its name, which cells are not what they should be, and what that is."""
    features = definition.features
    weights = [name for name in definition.carried if name == definition.training.weights and name in rows.columns]
    for name in (*features.numeric, *weights):
        values, wrong = numbers(rows[name])
        yield name, wrong | np.isinf(values), "finite number"
    for name in features.boolean:
        yield name, truth_values(rows[name])[1], f"truth value ({RULE})"
    for name in features.datetime:
        unit = features.epoch_units.get(name)
        yield name, moments(rows[name], unit)[1], f"moment ({moment_rule(unit, name)})"


def row_ids(frame: pd.DataFrame, definition: ModelDefinition, *, complete: bool = True) -> pd.Series[Any]:
    """The rows' ids, from one column or several: whole numbers as such, however a column holds them.

    Raises:
        DataError: A row has none, unless the ids need not be complete: then it is NaN.
    """
    columns = definition.data.id_columns
    ids = joined_columns([frame[name] for name in columns])
    if complete and ids.isna().any():
        row = int(np.flatnonzero(ids.isna())[0])
        name = next(name for name in columns if spelled_column(frame[name].iloc[row : row + 1]).isna().any())
        raise DataError(f"column {name}: row {row} has no id", "Every row needs its id")
    return ids


def id_parts(ids: pd.Series[Any], definition: ModelDefinition) -> dict[str, pd.Series[Any]]:
    """The id columns of rows in the normal form, in their spelling."""
    columns = definition.data.id_columns
    if len(columns) == 1:
        return {columns[0]: ids}
    rows = [parted(name, len(columns)) or [name] * len(columns) for name in ids]
    return {
        name: pd.Series([row[place] for row in rows], index=ids.index, dtype="str")
        for place, name in enumerate(columns)
    }
