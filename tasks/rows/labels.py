"""Late truth: from a column or a file to rows of the table `labels`. It joins nothing to predictions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.state.store import Store
from tasks.rows.frames import known_labels
from tasks.rows.normal_form import batch_digest, row_ids, time_column

_SAME_MOMENT = pd.Timedelta(1, unit="ms")


@dataclass(frozen=True)
class LabelReceipt:
    """What became of a set of labels: new ones, corrections of known ones, and those that changed nothing."""

    new: int
    corrected: int
    unchanged: int
    missing: int


def encode_truth(values: pd.Series[Any], definition: ModelDefinition) -> np.ndarray:
    """The truth as float64, shape (n,): 0 or 1 for classification (1 is the positive class), NaN where missing.

    Raises:
        DataError: A value is not of the task's kind; it and its row are named.
    """
    if definition.task == "classification" and definition.positive is not None:
        text = values.astype("str")
        return np.where(values.isna(), np.nan, text == definition.positive).astype(np.float64)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    allowed = np.isin(numbers, (0.0, 1.0)) if definition.task == "classification" else np.isfinite(numbers)
    wrong = np.flatnonzero(values.notna().to_numpy() & ~allowed)
    if wrong.size:
        row = int(wrong[0])
        rule = "0 or 1" if definition.task == "classification" else "a finite number"
        remedy = (
            'Name the positive class at the top level of the definition, quoted: `positive: "VALUE"`'
            if definition.task == "classification"
            else "Correct or remove the row"
        )
        raise DataError(f"{definition.data.target}: row {row} has {values.iloc[row]!r}, which is not {rule}", remedy)
    return numbers


def add_labels(
    store: Store, definition: ModelDefinition, ids: pd.Series[Any], truth: np.ndarray, *,
    labelled_at: datetime | pd.Series[Any], author: str, key: str | None = None,
) -> LabelReceipt:  # fmt: skip
    """Append what is new: ids without truth so far, and corrections. Missing truths are counted and left out.

    Args:
        ids: Row ids, shape (n,).
        truth: Encoded truth, shape (n,).
        labelled_at: When each became known: one moment, or one for each row.
        author: Who says so: a source, a person.
        key: Makes the append happen once; the digest of the rows by default.
    """
    frame = pd.DataFrame({"id": ids.to_numpy(), "truth": truth})
    frame["labelled_at"] = labelled_at.to_numpy() if isinstance(labelled_at, pd.Series) else pd.Timestamp(labelled_at)
    frame["labelled_at"] = pd.to_datetime(frame["labelled_at"], utc=True).dt.as_unit("us")
    missing = int(frame["truth"].isna().sum())
    frame = frame[frame["truth"].notna()].drop_duplicates("id", keep="last")
    until = frame["labelled_at"].max() + _SAME_MOMENT
    known = (known_labels(store, definition.name, as_of=until, ids=frame["id"]) if len(frame) else frame).set_index(
        "id"
    )
    known = known.reindex(frame["id"]).set_axis(frame.index)
    before = known["truth"]
    fresh = frame[before.isna() | (before != frame["truth"])].assign(author=author)
    # The newest row of an id is its truth: a correction at the very moment of what it corrects comes just after it.
    corrected_at = known.loc[fresh.index, "labelled_at"]
    tied = corrected_at.between(fresh["labelled_at"], fresh["labelled_at"] + _SAME_MOMENT, inclusive="left")
    fresh["labelled_at"] = fresh["labelled_at"].mask(tied, corrected_at + pd.Timedelta(1, unit="us"))
    if len(fresh):
        store.append(definition.name, "labels", fresh, key=key or f"labels:{batch_digest(fresh)}")
    new = int(before.isna().sum())
    return LabelReceipt(new, len(fresh) - new, len(frame) - len(fresh), missing)


def label_frame(
    store: Store, definition: ModelDefinition, frame: pd.DataFrame, *, as_of: datetime, author: str
) -> LabelReceipt:
    """Labels from a file with the definition's id and target columns, and perhaps `labelled_at`.

    Raises:
        DataError: A column is missing, or a value is not of the task's kind.
    """
    data = definition.data
    needed = (*data.id_columns, data.target)
    if missing := [name for name in needed if name not in frame.columns]:
        raise DataError(f"the labels lack {', '.join(missing)}", f"Give the columns {' and '.join(needed)}")
    moments: datetime | pd.Series[Any] = as_of
    if "labelled_at" in frame.columns:
        moments = time_column(frame["labelled_at"])
    return add_labels(
        store, definition, row_ids(frame, definition), encode_truth(frame[data.target], definition),
        labelled_at=moments, author=author,
    )  # fmt: skip
