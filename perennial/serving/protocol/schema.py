"""What a model's rows must look like, and their cells in one clean form. Knows no protocol and no model's inside.

The clean form is what `perennial.model.features.feature_frame` makes of the same values, cell by cell and without
pandas: numbers as float with NaN for missing, categories and texts as str with None, images as bytes with None.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from perennial.serving.protocol.problems import Problem, shown

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["numeric", "categorical", "text", "image"]
Row = list[Any]
_NAN = math.nan
_RULES: Mapping[Kind, str] = {
    "numeric": "a finite number, a text that reads as one, or null for missing",
    "categorical": "a text, a number or a truth value, or null for missing",
    "text": "a text, a number or a truth value, or null for missing",
    "image": "an image file's bytes in base64, or null for missing",
}
# Random forests compare in float32; nothing that anybody measures is larger.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Schema:
    """The input columns of one version.

    Attributes:
        columns: The features in the version's own order.
        kinds: Their kinds.
        known: For each column the categories that were seen in training; None where that is unknown.
        example: One row that works, by name.
        id_column, time_column: Columns of the definition that a row may carry beside its features.
    """

    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    example: Mapping[str, Any]
    id_column: str
    time_column: str
    known: tuple[frozenset[str] | None, ...] = ()
    position: Mapping[str, int] = field(init=False)
    parts: tuple[tuple[int, ...], tuple[tuple[int, frozenset[str] | None], ...], tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "position", {name: index for index, name in enumerate(self.columns)})
        if not self.known:
            object.__setattr__(self, "known", (None,) * len(self.columns))
        by_kind = list(enumerate(self.kinds))
        numeric = tuple(index for index, kind in by_kind if kind == "numeric")
        textual = tuple((index, self.known[index]) for index, kind in by_kind if kind in ("categorical", "text"))
        images = tuple(index for index, kind in by_kind if kind == "image")
        object.__setattr__(self, "parts", (numeric, textual, images))

    def clean(
        self, rows: Sequence[Row], unseen: dict[str, int] | None = None, missing: dict[str, int] | None = None
    ) -> None:
        """Put every cell into the clean form, in place.

        Args:
            rows: Cells in the order of `columns`.
            unseen: Counts, by column, the categories that training never saw.
            missing: Counts, by column, the cells without a value.

        Raises:
            Problem: 422 with the first cell that breaks its rule.
        """
        numeric, textual, images = self.parts
        largest = _LARGEST
        unseen, missing = {} if unseen is None else unseen, {} if missing is None else missing
        for number, row in enumerate(rows):
            for column in numeric:
                value = row[column]
                # NaN fails both comparisons and goes the long way.
                if not (type(value) is float and -largest <= value <= largest):
                    value = row[column] = self._number(value, number, column)
                    if value != value:
                        _count(missing, self.columns[column])
            for column, known in textual:
                value = row[column]
                if type(value) is not str:
                    value = row[column] = self._text(value, number, column)
                if value is None:
                    _count(missing, self.columns[column])
                elif known is not None and value not in known:
                    _count(unseen, self.columns[column])
            for column in images:
                value = row[column] = self._image(row[column], number, column)
                if value is None:
                    _count(missing, self.columns[column])

    def frame(self, rows: Sequence[Row]) -> pd.DataFrame:
        """Clean rows as the pipeline reads them: exactly a `feature_frame`."""
        import pandas as pd

        text = pd.StringDtype(na_value=np.nan)
        made: dict[str, Any] = {}
        for index, (name, kind) in enumerate(zip(self.columns, self.kinds, strict=True)):
            cells = [row[index] for row in rows]
            if kind == "numeric":
                made[name] = np.array(cells, dtype=np.float64)
            elif kind == "image":
                made[name] = pd.Series(cells, dtype=object)
            else:
                made[name] = pd.Series(pd.array(cells, dtype=text))
        return pd.DataFrame(made, index=pd.RangeIndex(len(rows)), copy=False)

    def refuse(self, column: int, row: int, value: object) -> Problem:
        """The 422 that names the cell, its rule and a row that works."""
        name, rule = self.columns[column], _RULES[self.kinds[column]]
        return Problem(
            422, f"column {name!r}, row {row} (counted from 0): {shown(value)} is not {rule}",
            column=name, row=row, value=shown(value), rule=rule, example=dict(self.example),
        )  # fmt: skip

    def _number(self, value: object, row: int, column: int) -> float:
        if value is None or value != value:
            return _NAN
        if isinstance(value, str) and not value.strip():
            return _NAN
        try:
            number = float(value) if isinstance(value, int | float | str) and "_" not in str(value)[:400] else None
        except (ValueError, OverflowError):
            number = None
        if number is None or not (-_LARGEST <= number <= _LARGEST or number != number):
            raise self.refuse(column, row, value)
        return number

    def _text(self, value: object, index: int, column: int) -> str | None:
        if value is None:
            return None
        if isinstance(value, float):
            if value != value:
                return None
            return str(int(value)) if value.is_integer() else str(value)
        if isinstance(value, int | str):
            try:
                return str(value)
            except ValueError:  # more digits than Python turns into text
                pass
        raise self.refuse(column, index, value)

    def _image(self, value: object, index: int, column: int) -> bytes | None:
        if value is None or isinstance(value, bytes):
            return value or None
        if isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True) or None
            except (binascii.Error, ValueError):
                pass
        raise self.refuse(column, index, value)


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
