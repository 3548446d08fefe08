"""What a column holds, by its values: the kind of feature it could be, and why. Not what it is chosen for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from perennial.errors import DataError
from perennial.model.canonical import Unspellable, spelled_column
from perennial.model.cells.truths import truth_values
from perennial.model.numbers import MISSING_NUMBERS, numbers
from tasks.rows.normal_form import moments_where_readable

Kind = Literal["numeric", "categorical", "text", "image", "boolean", "datetime", "none"]
# So many cells that are no number may stand in a column of numbers: their rows are refused one by one.
STRAY_SHARE = 0.02
_WORDS_OF_TEXT = 4.0
_FEW = 20
_NAMING_SHARE = 0.5
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_LOCAL_DATE = r"^\s*\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b"


@dataclass(frozen=True)
class Look:
    """One column as it was found.

    Attributes:
        kind: What a feature of it would be; `none` is left out.
        why: The reason for the kind, or for leaving it out, as the end of a sentence.
        values: As the model would read them: float64, `str`, UTC times or objects; missing where there is nothing.
        whole: Whether every number is a whole one.
        doubtful: Whether a person should look at the choice.
    """

    name: str
    kind: Kind
    why: str
    values: pd.Series[Any]
    whole: bool = False
    doubtful: bool = False

    @property
    def missing(self) -> int:
        return int(self.values.isna().sum())

    @property
    def distinct(self) -> int:
        return int(self.values.astype("str").nunique() if self.kind == "image" else self.values.nunique())

    @property
    def unique(self) -> bool:
        """Whether it names every row."""
        return not self.missing and self.distinct == len(self.values)


def look_at(column: pd.Series[Any]) -> Look:
    """Tell a column's kind."""
    name = str(column.name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.dtype.categories.dtype)
    column = column.reset_index(drop=True)
    if not _given(column).any():
        return Look(name, "none", "every value is missing", column, doubtful=True)
    if pd.api.types.is_bool_dtype(column.dtype):
        return _of_texts(name, column)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return Look(name, "datetime", "holds times", moments_where_readable(column))
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return Look(name, "none", "holds durations: give a number in a unit of your choice", column, doubtful=True)
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        return _of_numbers(name, numbers(column)[0])
    first = column[_given(column)].iloc[0]
    if isinstance(first, bytes):
        return Look(name, "image", "holds bytes: are they image files?", column, doubtful=True)
    if (found := _as_times(name, column)) or (found := _as_numbers(name, column)):
        return found
    return _of_texts(name, column)


def _given(column: pd.Series[Any]) -> np.ndarray:
    empty = column.eq("").fillna(True).to_numpy(dtype=bool) if pd.api.types.is_string_dtype(column.dtype) else False
    return np.asarray(column.notna().to_numpy() & ~np.asarray(empty))


def _of_numbers(name: str, values: np.ndarray, note: str = "") -> Look:
    series = pd.Series(values, name=name)
    known = values[np.isfinite(values)]
    whole = bool(len(known)) and bool((known == np.floor(known)).all())
    if len(known) == len(values) and len(np.unique(known)) == 1:
        return Look(name, "none", f"is {known[0]:g} in every row", series, whole)
    if np.isinf(values).any():
        why = f"{int(np.isinf(values).sum()):,} values are infinite: their rows are refused"
        return Look(name, "numeric", why, series.where(np.isfinite(series)), whole, doubtful=True)
    distinct = len(np.unique(known))
    why = note or ("whole numbers" if whole else "numbers")
    if whole and not note and 2 < distinct <= 12:
        why = f"{distinct} whole numbers; if they are names of something, make it categorical"
    return Look(name, "numeric", why, series, whole, doubtful=bool(note))


def _as_times(name: str, column: pd.Series[Any]) -> Look | None:
    try:
        moments = moments_where_readable(column)
    except DataError:
        return None
    given = _given(column)
    read = moments.notna().to_numpy()
    texts = column[given].astype("str")
    # 2013 alone reads as a time, and is a number.
    if read.sum() >= 0.99 * given.sum() and not texts.str.fullmatch(r"\s*\d+\s*").all():
        strange = int(given.sum() - read.sum())
        why = f"times, but for {strange:,} cells, whose rows are refused" if strange else "holds times"
        return Look(name, "datetime", why, moments, doubtful=strange > 0)
    if texts.str.contains(_LOCAL_DATE, regex=True).mean() > 0.9:
        why = f"holds dates such as {texts.iloc[0]!r}, which may be read in two ways: write ISO 8601 (2026-01-31)"
        return Look(name, "none", why, column, doubtful=True)
    return None


def _as_numbers(name: str, column: pd.Series[Any]) -> Look | None:
    known = column.mask(column.isin(("", *MISSING_NUMBERS)))
    try:
        values, wrong = numbers(known)
    except DataError:
        return None
    given = known.notna().to_numpy()
    texts = known[given].astype("str")
    if not given.any() or wrong.sum() > STRAY_SHARE * given.sum():
        return None
    if texts.str.fullmatch(r"\s*0\d+\s*").any() or texts.isin(["True", "False", "true", "false"]).all():
        return None  # 007 is a name; True is a truth value
    if not wrong.any():
        return _of_numbers(name, values)
    words = ", ".join(map(repr, pd.unique(known[wrong])[:3]))
    return _of_numbers(name, values, f"numbers, but for {words} in {int(wrong.sum()):,} rows, which are refused")


def _of_texts(name: str, column: pd.Series[Any]) -> Look:
    try:
        values = spelled_column(column)
    except (Unspellable, DataError):
        return Look(name, "none", "holds lists, or what else is neither number nor text", column, doubtful=True)
    known = values.dropna()
    distinct = known.nunique()
    if distinct == 1 and len(known) == len(values):
        return Look(name, "none", f"is {known.iloc[0]!r} in every row", values)
    truths, wrong = truth_values(known)
    if not wrong.any() and {0.0, 1.0} <= set(truths):
        spellings = sorted(known.unique())
        written = "" if spellings == ["False", "True"] else f", written as {', '.join(spellings[:4])}"
        return Look(name, "boolean", f"true or false{written}", values)
    if known.str.lower().str.endswith(_IMAGES).mean() > 0.9:
        return Look(name, "image", "paths of images", values)
    words = float(known.head(5000).str.split().map(len).mean())
    if words > _WORDS_OF_TEXT and distinct > max(_FEW, 0.2 * len(known)):
        return Look(name, "text", f"{words:.0f} words on average", values)
    if distinct > _FEW and distinct > _NAMING_SHARE * len(known):
        why = f"{distinct:,} different texts in {len(known):,} rows: it names rows, and a model learns nothing of it"
        return Look(name, "none", why, values, doubtful=True)
    return Look(name, "categorical", f"{distinct:,} categories", values)
