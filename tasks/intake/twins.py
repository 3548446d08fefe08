"""Rows of one id: the same row again, or another one that contradicts it. Which is right is for people to say.

A row is the same when its time and every feature are. What was stored first stays; of rows that contradict each
other within one delivery nobody knows which is right, so none of them is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.model.canonical import spelled_column
from perennial.model.cells.moments import moment_column
from perennial.model.cells.truths import spelled_truths
from perennial.model.numbers import numbers
from perennial.state.store import Store, among
from perennial.state.tables import ROW_BATCH, ROW_ID, ROW_TIME
from tasks.intake.refusals import Refusals

Mask = npt.NDArray[np.bool_]

CONTRADICTS_STORED = "another row of this id is stored"
CONTRADICTS_DELIVERY = "this id names different rows of one delivery"


@dataclass(frozen=True)
class Twins:
    """What became of rows whose ids are not new.

    Attributes:
        repeats: Which rows say what another one says already, stored or earlier in the delivery: shape (n,).
        conflicts: Which contradict another, and how; by the rows' index.
    """

    repeats: Mask
    conflicts: Refusals


def find_stored(store: Store, definition: ModelDefinition, rows: pd.DataFrame, batch_id: str, known: pa.Array) -> Twins:
    """Rows of ids that other deliveries brought, whenever they happened.

    Args:
        rows: Rows in the normal form.
        known: The ids among them that are stored, as `stored_ids` gives them.
    """
    repeats, conflicts = np.zeros(len(rows), dtype=np.bool_), Refusals()
    mine = rows[pc.is_in(text_array(rows[ROW_ID]), value_set=known).to_numpy(zero_copy_only=False)]
    if not len(mine):
        return Twins(repeats, conflicts)
    where = among(ROW_ID, mine[ROW_ID]) & (pc.field(ROW_BATCH) != batch_id)
    stored = store.frame(definition.name, "batches", where=where)
    compared = _comparable(mine.rename_axis("_row").reset_index(), stored, definition)
    pairs = compared.merge(stored, on=ROW_ID, suffixes=("", " stored"))
    differs = _differences(pairs, pairs, definition, " stored", _absent(stored, definition))
    alike = pairs.loc[~differs.any(axis=1).to_numpy(), "_row"].unique()
    repeats[rows.index.get_indexer(pd.Index(alike))] = True
    others = pairs[~pairs["_row"].isin(alike)].drop_duplicates("_row")
    for place, row in zip(others.index, others["_row"], strict=True):
        name = str(differs.columns[int(differs.loc[place].to_numpy().argmax())])
        before, after = pairs.at[place, f"{name} stored"], pairs.at[place, name]
        told = f"the id {pairs.at[place, ROW_ID]} is stored with {_label(name, definition)} {_short(before)}"
        conflicts.add(int(row), CONTRADICTS_STORED, f"{told}, here it is {_short(after)}")
    return Twins(repeats, conflicts)


def stored_ids(store: Store, model: str, ids: pd.Series[Any], batch_id: str) -> pa.Array:
    """Which of the ids other deliveries have brought: only the ids' column is read."""
    where = among(ROW_ID, ids) & (pc.field(ROW_BATCH) != batch_id)
    return store.read(model, "batches", columns=[ROW_ID], where=where)[ROW_ID].combine_chunks().unique()


def find_within(rows: pd.DataFrame, definition: ModelDefinition) -> Twins:
    """Rows of one id within a delivery: the first of equal ones stays; contradicting ones are all refused.

    Args:
        rows: Rows in the normal form; of ids that occur once there need be none.
    """
    repeats, conflicts = np.zeros(len(rows), dtype=np.bool_), Refusals()
    several = rows[rows[ROW_ID].duplicated(keep=False).to_numpy()]
    if not len(several):
        return Twins(repeats, conflicts)
    several = several.rename_axis("_row").reset_index()
    first = several.drop_duplicates(ROW_ID)
    pairs = several.merge(first, on=ROW_ID, suffixes=("", " first"))
    differs = _differences(pairs, pairs, definition, " first", {})
    apart = differs.any(axis=1).to_numpy()
    torn = set(pairs.loc[apart, ROW_ID])
    repeated = pairs[~pairs[ROW_ID].isin(torn) & (pairs["_row"] != pairs["_row first"])]["_row"]
    repeats[rows.index.get_indexer(pd.Index(repeated))] = True
    told: dict[str, str] = {}
    for place in np.flatnonzero(apart):
        name = str(differs.columns[int(differs.iloc[place].to_numpy().argmax())])
        values = f"{_short(pairs.at[place, f'{name} first'])} and {_short(pairs.at[place, name])}"
        told.setdefault(str(pairs.at[place, ROW_ID]), f"{_label(name, definition)} is {values}")
    for row, name in zip(several["_row"], several[ROW_ID], strict=True):
        if name in torn:
            conflicts.add(int(row), CONTRADICTS_DELIVERY, f"the id {name} names different rows here: {told[name]}")
    return Twins(repeats, conflicts)


def _differences(
    ours: pd.DataFrame, theirs: pd.DataFrame, definition: ModelDefinition, suffix: str, absent: dict[str, Mask]
) -> pd.DataFrame:
    """Which cells differ, by column: the time and the features that both sides have."""
    found: dict[str, Any] = {}
    for name in (ROW_TIME, *definition.features.columns):
        other = f"{name}{suffix}"
        if name not in ours.columns or other not in theirs.columns:
            continue
        found[name] = ~_equal(ours[name], theirs[other])
        if name in absent:
            found[name] &= ~theirs[ROW_BATCH].isin(absent[name]).to_numpy()
    return pd.DataFrame(found, index=ours.index)


def _equal(ours: pd.Series[Any], theirs: pd.Series[Any]) -> Mask:
    missing = ours.isna().to_numpy() & theirs.isna().to_numpy()
    if pd.api.types.is_float_dtype(ours.dtype) and pd.api.types.is_float_dtype(theirs.dtype):
        one, other = ours.to_numpy(dtype=np.float64), theirs.to_numpy(dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            # A file may have passed through single precision on its way.
            single = (one.astype(np.float32) == other) | (other.astype(np.float32) == one)
        return np.asarray((one == other) | single | missing, dtype=np.bool_)
    if pd.api.types.is_datetime64_any_dtype(ours.dtype):
        return np.asarray((ours == theirs).to_numpy(dtype=np.bool_, na_value=False) | missing)
    same = [one == other for one, other in zip(ours.astype(object), theirs.astype(object), strict=True)]
    return np.array([item is True or item is np.True_ for item in same], dtype=np.bool_) | missing


def _comparable(rows: pd.DataFrame, stored: pd.DataFrame, definition: ModelDefinition) -> pd.DataFrame:
    """Both in one form: rows stored before spellings were one say 3.0, and a feature may have changed its kind."""
    for name in definition.features.columns:
        if name not in stored.columns or name in definition.features.image:
            continue
        if name in definition.features.numeric:
            stored[name] = numbers(stored[name])[0]
        elif name in definition.features.boolean:
            stored[name] = spelled_truths(stored[name])
        elif name in definition.features.datetime:
            stored[name] = moment_column(stored[name], definition.features.epoch_units.get(name))
        else:
            stored[name] = spelled_column(stored[name], free_text=name in definition.features.text)
    return rows


def _absent(stored: pd.DataFrame, definition: ModelDefinition) -> dict[str, Any]:
    """By feature, the deliveries that had no value of it at all: it came later, and contradicts nothing."""
    found = {}
    for name in definition.features.columns:
        if name in stored.columns and stored[name].isna().any():
            empty = stored[name].isna().groupby(stored[ROW_BATCH]).transform("all")
            if empty.any():
                found[name] = stored.loc[empty.to_numpy(), ROW_BATCH].unique()
    return found


def _label(name: str, definition: ModelDefinition) -> str:
    return definition.data.time if name == ROW_TIME else name


def text_array(ids: pd.Series[Any]) -> pa.Array:
    """Ids as Arrow holds text."""
    made = pa.array(ids, type=pa.string(), from_pandas=True)
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _short(value: Any) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "missing"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
