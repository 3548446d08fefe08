"""Rows and labels from the tables, as training, checks and scoring take them. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.canonical import spelled_column
from perennial.model.cells.moments import moment_column
from perennial.model.cells.truths import spelled_truths
from perennial.state.store import Store, among, between
from perennial.state.tables import ROW_ID, ROW_INGESTED_AT, ROW_TIME, ROW_TRUTH
from tasks.rows.normal_form import batch_digest

_FEW_IDS = 20_000  # more are quicker found in the whole column


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
        DataError: Nothing was ingested yet, or nothing was known at that moment.
    """
    model = definition.name
    at = require_ingested(store, model) | (versions or {})
    start = as_of - definition.training.window if definition.training.window else None
    columns = [*definition.features.columns, *definition.carried]
    rows = window_rows(
        store, definition, start=start, end=as_of, known_at=as_of, version=at["batches"], columns=columns
    )  # fmt: skip
    truth = known_labels(store, model, as_of=as_of, version=at["labels"])
    named = truth[["id", "truth"]].rename(columns={"id": ROW_ID, "truth": ROW_TRUTH})
    joined = rows.merge(named, on=ROW_ID, how="inner").sort_values([ROW_TIME, ROW_ID], ignore_index=True)
    if not len(joined):
        require_known_rows(store, model, as_of=as_of)
    return LabelledRows(joined, at, batch_digest(joined))


def require_ingested(store: Store, model: str) -> dict[str, int]:
    """The versions of the tables that a training reads.

    Raises:
        DataError: Nothing was ingested yet.
    """
    found = {name: store.version(model, name) for name in ("batches", "labels")}
    at = {name: number for name, number in found.items() if number is not None}
    if len(at) < len(found):
        raise DataError(
            f"{model} has no ingested rows with labels yet", f"Ingest some: `perennial ingest {model} FILE`"
        )
    return at


def require_known_rows(store: Store, model: str, *, as_of: datetime) -> None:
    """Refuse to act at a moment of which there are rows, none of which was known then: that is no empty feed.

    Raises:
        DataError: All rows from before the moment were ingested after it.
    """
    before = between(ROW_TIME, None, as_of)
    if store.count(model, "batches", where=before & (pc.field(ROW_INGESTED_AT) <= as_of)):
        return
    later = store.read(model, "batches", columns=[ROW_INGESTED_AT], where=before)[ROW_INGESTED_AT]
    if len(later):
        raise DataError(
            f"at {as_of:%Y-%m-%d %H:%M} none of the {len(later):,} rows of {model} from before then was known: they "
            f"were ingested from {pc.min(later).as_py():%Y-%m-%d %H:%M} on",
            "Act at a later moment (--as-of). To replay the past, ingest it as the past into a new PERENNIAL_HOME: "
            f"`perennial ingest {model} FILE --history`",
        )


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
        where &= among(ROW_ID, ids)
    frame = store.frame(definition.name, "batches", columns=[ROW_ID, ROW_TIME, *wanted], where=where, version=version)
    for name in (name for name in wanted if name not in frame.columns):
        numeric = name in definition.features.numeric or name == definition.training.weights
        kind = "datetime64[us, UTC]" if name in definition.features.datetime else "str"
        frame[name] = np.nan if numeric else pd.Series(pd.NaT if kind != "str" else pd.NA, frame.index, dtype=kind)
    # Rows that were ingested before spellings were one say 3.0 where newer ones say 3.
    for name in (name for name in wanted if name in definition.features.categorical):
        frame[name] = spelled_column(frame[name]).set_axis(frame.index)
    # And rows from when the feature was of another kind.
    for name in (name for name in wanted if name in definition.features.boolean):
        frame[name] = spelled_truths(frame[name]).set_axis(frame.index)
    for name in (name for name in wanted if name in definition.features.datetime):
        unit = definition.features.epoch_units.get(name)
        frame[name] = moment_column(frame[name], unit).set_axis(frame.index)
    return frame


def known_labels(
    store: Store, model: str, *, as_of: datetime, ids: pd.Series[Any] | None = None, version: int | None = None
) -> pd.DataFrame:
    """id, truth and labelled_at: the newest truth of each id, or of each of these, that was known at `as_of`.

    An id whose truth was taken back by then has none.
    """
    where = pc.field("labelled_at") <= as_of
    if ids is not None:
        where &= among("id", ids)
    frame = store.frame(model, "labels", columns=["id", "truth", "labelled_at"], where=where, version=version)
    newest = frame.sort_values("labelled_at", kind="stable").drop_duplicates("id", keep="last")
    return newest[newest["truth"].notna()].reset_index(drop=True)


def label_steps(store: Store, model: str, *, ids: pd.Series[Any]) -> pd.DataFrame:
    """id, truth, labelled_at and author: all that was ever said of these ids, oldest first; no truth takes back."""
    where = among("id", ids) if len(ids) < _FEW_IDS else None
    frame = store.frame(model, "labels", columns=["id", "truth", "labelled_at", "author"], where=where)
    if where is None and len(frame):
        frame = frame[is_known(frame["id"], ids)]
    return frame.sort_values("labelled_at", kind="stable", ignore_index=True)


def is_known(ids: pd.Series[Any], known: pd.Series[Any]) -> np.ndarray:
    """Which ids are among the known ones: booleans of shape (n,). Arrow's hash set; pandas' own is slow on text."""
    found: np.ndarray = pc.is_in(_strings(ids), value_set=_strings(known)).to_numpy(zero_copy_only=False)
    return found


def has_doubles(ids: pd.Series[Any]) -> bool:
    """Whether an id is there twice: much quicker than to ask which."""
    return bool(pc.count_distinct(_strings(ids), mode="all").as_py() < len(ids))


def _strings(ids: pd.Series[Any]) -> pa.Array:
    """Text as Arrow holds it, also more of it than short offsets can address; pandas' own text is that already."""
    made = pa.array(ids, from_pandas=True).cast(pa.large_string())
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made
