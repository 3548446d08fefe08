"""Which rows of a delivery can be brought into the normal form; the others are refused one by one. No suite, no tables.

What concerns whole columns (a missing one, numbers for times) refuses the delivery; a cell costs its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.canonical import Unspellable, spelled, written
from perennial.model.truth import code_truth
from tasks.intake.refusals import Refusals
from tasks.rows.classes import Coding
from tasks.rows.files import require_columns
from tasks.rows.normal_form import moments_where_readable, normalise, unusable_cells


@dataclass(frozen=True)
class Readable:
    """The rows that can be read, in the normal form.

    Attributes:
        rows: Normal form; its index is each row's position in the delivery.
        refused: Why the others can't be read.
    """

    rows: pd.DataFrame
    refused: Refusals


def read_rows(frame: pd.DataFrame, definition: ModelDefinition) -> Readable:
    """Bring a frame into the normal form, row by row where it must be; truths stay as they came, see `wrong_truths`.

    Raises:
        DataError: It concerns a whole column: one is missing or doubled, or holds nothing that could be a time.
    """
    data, features = definition.data, definition.features
    require_columns(frame.columns, [*data.id_columns, data.time, *features.columns, *definition.carried])
    refused = Refusals()
    for name in features.image:
        _find_images(refused, frame[name])
    try:  # nearly always every row can be read
        rows = _readable(frame, refused, definition)
    except DataError:
        _look_closely(frame, refused, definition)
        rows = _readable(frame, refused, definition)
    for row, cell in unusable_cells(rows, definition).items():
        refused.add(int(rows.index[row]), cell.rule, cell.reason)
    if len(refused) > len(frame) - len(rows):
        rows = _readable(frame, refused, definition)
    return Readable(rows, refused)


def _look_closely(frame: pd.DataFrame, refused: Refusals, definition: ModelDefinition) -> None:
    """Find the cells for which a frame has no normal form."""
    data, features = definition.data, definition.features
    for name in data.id_columns:
        _find_unspellable(refused, frame[name], free_text=False)
        _find_missing(refused, frame[name], f"{name}: no id")
    _find_times(refused, frame[data.time])
    groups = [name for name in definition.carried if name == definition.training.groups]
    for name in (*features.categorical, *features.text, *groups):
        _find_unspellable(refused, frame[name], free_text=name in features.text)


def _readable(frame: pd.DataFrame, refused: Refusals, definition: ModelDefinition) -> pd.DataFrame:
    """The normal form of the rows that are not refused, under their positions."""
    good = np.ones(len(frame), dtype=np.bool_)
    good[list(refused)] = False
    rows = normalise(frame if good.all() else frame.iloc[np.flatnonzero(good)].reset_index(drop=True), definition)
    return rows.set_index(pd.Index(np.flatnonzero(good)))


def _find_missing(refused: Refusals, column: pd.Series[Any], rule: str) -> None:
    missing = column.isna().to_numpy()
    if isinstance(column.dtype, pd.StringDtype):
        missing = missing | column.eq("").to_numpy(dtype=np.bool_, na_value=False)
    elif pd.api.types.is_object_dtype(column.dtype):
        missing = missing | np.array([isinstance(value, str) and not value for value in column], dtype=np.bool_)
    for row in np.flatnonzero(missing):
        refused.add(int(row), rule, f"{column.name}: the row has no id")


def _find_times(refused: Refusals, column: pd.Series[Any]) -> None:
    moments = moments_where_readable(column)
    for row in np.flatnonzero(moments.isna()):
        value = column.iloc[row]
        if pd.api.types.is_scalar(value) and pd.isna(value):
            refused.add(int(row), f"{column.name}: no time", f"{column.name}: the row has no time")
        else:
            refused.add(int(row), f"{column.name}: no time", f"{column.name}: {_short(value)} is no ISO 8601 time")


def _find_unspellable(refused: Refusals, column: pd.Series[Any], *, free_text: bool) -> None:
    """Cells that are no category, id or text. Only columns of Python's objects, texts and floats can have such."""
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        column = column.astype(kind.categories.dtype)
        kind = column.dtype
    if pd.api.types.is_float_dtype(kind):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        edge = 2.0**24 if str(kind).lower() in ("float32", "float16") else 2.0**53
        suspects = np.flatnonzero(np.isfinite(values) & (np.abs(values) >= edge))
    elif pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind):
        suspects = np.flatnonzero(_may_be_unspellable(column, free_text=free_text))
    else:
        return
    spell = written if free_text else spelled
    for row in suspects:
        value = column.iloc[row]
        try:
            spell(kind.type(value) if isinstance(kind, np.dtype) and kind.kind == "f" else value)
        except Unspellable as error:
            refused.add(int(row), f"{column.name}: no category or text", f"{column.name}: {error.problem}")


def _may_be_unspellable(column: pd.Series[Any], *, free_text: bool) -> np.ndarray:
    if isinstance(column.dtype, pd.StringDtype):
        if free_text:
            return np.zeros(len(column), dtype=np.bool_)
        # As floats are written that are too large to be told apart.
        found = column.str.contains(r"^-?[0-9.]+(?:\.0|e[+-][0-9]+)$", na=False, regex=True)
        return np.asarray(found, dtype=np.bool_)
    return np.array([type(value) is not int for value in column], dtype=np.bool_)


def _find_images(refused: Refusals, column: pd.Series[Any]) -> None:
    for row, value in enumerate(column):
        if not isinstance(value, str | bytes) and not (pd.api.types.is_scalar(value) and pd.isna(value)):
            refused.add(row, f"{column.name}: no image", f"{column.name}: {_short(value)} is neither a path nor bytes")


def wrong_truths(column: pd.Series[Any], definition: ModelDefinition, coding: Coding) -> Refusals:
    """Truths that are not of the task's kind, or of no known class; by the column's index."""
    refused = Refusals()
    if definition.task == "classification" and coding.classes is None:
        return refused
    _, wrong = code_truth(column.reset_index(drop=True), definition, coding.classes)
    for row, reason in wrong.items():
        refused.add(int(column.index[row]), truth_rule(definition), reason)
    return refused


def truth_rule(definition: ModelDefinition) -> str:
    """The rule that refuses a truth of no known class, or that is no number."""
    return f"{definition.data.target}: no truth of this model"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
