"""Rows from their source to one normal form, and from the tables to training and check frames. No validation.

The normal form: `_id` as `str`, `_time` (the event's) as UTC microseconds, then the features under their own
names: numeric ones as float64 with NaN for missing, categorical and text ones as pandas `str`; last the
target as it came, where it came.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import DataError, DefinitionError
from perennial.model.features import text_values
from perennial.model.plugins import load_attribute
from perennial.state.store import ROW_ID, ROW_INGESTED_AT, ROW_TIME, ROW_TRUTH, Store, between, read_table
from tasks.rows.files import read_file, require_columns


def read_source(definition: ModelDefinition, start: datetime | None, end: datetime) -> pd.DataFrame:
    """The source's rows with start ≤ time < end, as they come.

    Raises:
        DataError: The source is missing, unreadable, or has no time column.
    """
    source, folder = definition.data.source, definition.folder
    if source.loader:
        function = load_attribute(source.loader, folder)
        frame = function(start, end, **source.options)
        if not isinstance(frame, pd.DataFrame):
            raise DataError(f"{source.loader} returned {type(frame).__name__}", "Return a pandas DataFrame")
    elif source.sql:
        frame = _read_sql(source.sql, str(source.url_env), start, end)
    elif source.delta:
        frame = read_table(_resolve(source.delta, folder))
    else:
        paths = _expand(_resolve(str(source.parquet or source.csv), folder))
        frame = pd.concat([read_file(path, definition) for path in paths], ignore_index=True)
    return _within(frame, definition, start, end)


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


@dataclass(frozen=True)
class LabelledRows:
    """Rows with their truth as it was known at a moment, and where they were read.

    Attributes:
        frame: `_id`, `_time`, the features and `_truth` (float64), sorted by time, then id.
        versions: The version of each table that was read.
        digest: The digest of every cell.
    """

    frame: pd.DataFrame
    versions: dict[str, int]
    digest: str

    @property
    def data_version(self) -> str:
        """The tables' versions and the digest, as one line for tags."""
        return ",".join(f"{name}@{number}" for name, number in self.versions.items()) + f"#{self.digest}"


def labelled_rows(
    store: Store, definition: ModelDefinition, *, as_of: datetime, versions: dict[str, int] | None = None
) -> LabelledRows:
    """What a training at `as_of` may learn from: rows of its window whose truth was known by then.

    Args:
        versions: Tables' versions to read at, to see again what an earlier training saw.

    Raises:
        DataError: Nothing was ingested yet.
    """
    model = definition.name
    found: dict[str, int | None] = {name: store.version(model, name) for name in ("batches", "labels")}
    found |= versions or {}
    at = {name: number for name, number in found.items() if number is not None}
    if len(at) < len(found):
        raise DataError(
            f"{model} has no ingested rows with labels yet", f"Ingest some: `perennial ingest {model} FILE`"
        )
    start = as_of - definition.training.window if definition.training.window else None
    rows = window_rows(store, definition, start=start, end=as_of, known_at=as_of, version=at["batches"])
    truth = known_labels(store, model, as_of=as_of, version=at["labels"])
    named = truth[["id", "truth"]].rename(columns={"id": ROW_ID, "truth": ROW_TRUTH})
    joined = rows.merge(named, on=ROW_ID, how="inner").sort_values([ROW_TIME, ROW_ID], ignore_index=True)
    return LabelledRows(joined, at, batch_digest(joined))


def window_rows(
    store: Store,
    definition: ModelDefinition,
    *,
    start: datetime | None,
    end: datetime,
    known_at: datetime,
    columns: Sequence[str] | None = None,
    ids: pd.Series[Any] | None = None,
    version: int | None = None,
) -> pd.DataFrame:
    """The ingested rows with start ≤ time < end that were there at `known_at`.

    Args:
        columns: The features wanted; all by default. One that was never ingested reads as missing.
        ids: Only these rows; all by default.
        version: The version of the table to read at; the newest by default.

    Returns:
        `_id`, `_time` and the features, in no particular order.
    """
    wanted = list(columns if columns is not None else definition.features.columns)
    where = between(ROW_TIME, start, end) & (pc.field(ROW_INGESTED_AT) <= known_at)
    if ids is not None:
        where &= pc.field(ROW_ID).isin(_strings(ids))
    frame = store.frame(definition.name, "batches", columns=[ROW_ID, ROW_TIME, *wanted], where=where, version=version)
    for name in (name for name in wanted if name not in frame.columns):
        numeric = name in definition.features.numeric
        frame[name] = np.nan if numeric else pd.Series(pd.NA, frame.index, dtype="str")
    return frame


def known_labels(
    store: Store, model: str, *, as_of: datetime, ids: pd.Series[Any] | None = None, version: int | None = None
) -> pd.DataFrame:
    """id, truth and labelled_at: the newest truth of each id, or of each of these, that was known at `as_of`."""
    where = pc.field("labelled_at") <= as_of
    if ids is not None:
        where &= pc.field("id").isin(_strings(ids))
    frame = store.frame(model, "labels", columns=["id", "truth", "labelled_at"], where=where, version=version)
    return frame.sort_values("labelled_at", kind="stable").drop_duplicates("id", keep="last", ignore_index=True)


def is_known(ids: pd.Series[Any], known: pd.Series[Any]) -> np.ndarray:
    """Which ids are among the known ones: booleans of shape (n,). Arrow's hash set; pandas' own is slow on text."""
    found: np.ndarray = pc.is_in(_strings(ids), value_set=_strings(known)).to_numpy(zero_copy_only=False)
    return found


def _strings(ids: pd.Series[Any]) -> pa.Array:
    """Text as Arrow holds it; pandas' own text is that already."""
    made = pa.array(ids, from_pandas=True)
    made = made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made
    return made.cast(pa.string())


def _within(frame: pd.DataFrame, definition: ModelDefinition, start: datetime | None, end: datetime) -> pd.DataFrame:
    time = definition.data.time
    if time not in frame.columns:
        raise DataError(f"the source has no column {time}", "Correct data.time in the definition")
    moments = time_column(frame[time])
    inside = moments < pd.Timestamp(end)
    if start is not None:
        inside &= moments >= pd.Timestamp(start)
    return frame[inside.to_numpy()].reset_index(drop=True)


def _read_sql(query: str, url_env: str, start: datetime | None, end: datetime) -> pd.DataFrame:
    import sqlalchemy

    url = os.environ.get(url_env)
    if not url:
        raise DefinitionError(f"the environment variable {url_env} is not set", "Put the database URL there")
    lower = start or datetime.fromisoformat("0001-01-01T00:00:00+00:00")
    try:
        with sqlalchemy.create_engine(url).connect() as connection:
            return pd.read_sql(sqlalchemy.text(query), connection, params={"start": lower, "end": end})
    except ImportError as error:
        raise DataError(f"the driver of {url_env} is missing: {error}", "Install it beside Perennial") from error
    except (sqlalchemy.exc.SQLAlchemyError, pd.errors.DatabaseError) as error:
        # The database's message without the URL: it may hold a password.
        kind = type(error.__cause__ or error).__name__
        raise DataError(f"the query of {url_env} failed: {kind}", "Run it by hand to see why") from None


def _resolve(path: str, folder: Path) -> str:
    expanded = os.path.expandvars(path)
    return expanded if "://" in expanded or Path(expanded).is_absolute() else str(folder / expanded)


def _expand(pattern: str) -> list[str]:
    if "://" in pattern:
        return [pattern]
    found = sorted(glob(pattern, recursive=True))  # noqa: PTH207 - patterns may be absolute
    if not found:
        raise DataError(f"no file matches {pattern}", "Correct data.source in the definition, or put the file there")
    return found


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
