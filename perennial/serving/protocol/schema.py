"""What a model's rows must look like, and their cells in one clean form. Knows no protocol and no model's inside.

The clean form is what `perennial.model.features.feature_frame` makes of the same values, cell by cell and without
pandas: numbers as float with NaN for missing, categories and texts as str with None, images as bytes with None, truth
values as 1.0, 0.0 and NaN, moments as whole microseconds since 1970 with None. A category that the model knows by
another word for the same (see `perennial.model.known`) is given in the model's word.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from perennial.model.canonical import Unspellable, spelled, written
from perennial.model.cells.moments import MISSING, moment, moment_rule, moment_text
from perennial.model.cells.truths import RULE, truth_value
from perennial.model.known import MOST_TOLD, Unknown, as_known, nearest
from perennial.model.numbers import number
from perennial.serving.protocol.columns import (
    LARGEST,
    Columns,
    Parts,
    Row,
    Rows,
    Unseen,
    clean_columns,
    column_of,
    columns_of,
    moments_of,
)
from perennial.serving.protocol.problems import Problem, shown
from perennial.serving.protocol.typed import Records, records_decoder

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["numeric", "categorical", "text", "image", "boolean", "datetime"]
Key = TypeVar("Key", str, tuple[str, str])
_NONE: frozenset[str] = frozenset()
_RULES: Mapping[Kind, str] = {
    "numeric": "a finite number, a text that reads as one, or null for missing",
    "categorical": "a text, a number or a truth value, or null for missing",
    "text": "a text, a number or a truth value, or null for missing",
    "image": "an image file's bytes in base64, or null for missing",
    "boolean": f"{RULE}, or null for missing",
    "datetime": "a moment, or null for missing",
}


@dataclass(frozen=True)
class Schema:
    """The input columns of one version.

    Attributes:
        columns: The features in the version's own order.
        kinds: Their kinds.
        known: For each column the categories that were seen in training; None where that is unknown.
        example: One row that works, by name.
        id_columns, time_column: Columns of the definition that a row may carry beside its features.
        units: What numbers in columns of moments count since 1970, where they may be numbers.
    """

    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    example: Mapping[str, Any]
    id_columns: tuple[str, ...]
    time_column: str
    known: tuple[frozenset[str] | None, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    position: Mapping[str, int] = field(init=False)
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "position", {name: index for index, name in enumerate(self.columns)})
        if not self.known:
            object.__setattr__(self, "known", (None,) * len(self.columns))
        by_kind = list(enumerate(self.kinds))
        numeric = tuple(index for index, kind in by_kind if kind == "numeric")
        categorical = tuple((index, self.known[index]) for index, kind in by_kind if kind == "categorical")
        texts = tuple(index for index, kind in by_kind if kind == "text")
        images = tuple(index for index, kind in by_kind if kind == "image")
        truths = tuple(index for index, kind in by_kind if kind == "boolean")
        moments = tuple((index, self.units.get(self.columns[index])) for index, kind in by_kind if kind == "datetime")
        object.__setattr__(self, "parts", Parts(numeric, categorical, texts, images, truths, moments))

    @cached_property
    def records(self) -> Callable[[bytes], Records | None]:
        """Decodes a body of many plain records."""
        return records_decoder(self.columns, self.kinds, (*self.id_columns, self.time_column))

    def clean(self, rows: Rows, unseen: Unseen | None = None, missing: dict[str, int] | None = None) -> None:
        """Put every cell into the clean form, in place.

        Args:
            rows: Cells in the order of `columns`.
            unseen: Counts, by column and category, the categories that training never saw.
            missing: Counts, by column, the cells without a value.

        Raises:
            Problem: 422 with the first cell that breaks its rule.
        """
        unseen, missing = {} if unseen is None else unseen, {} if missing is None else missing
        if not isinstance(rows, Columns):
            self._clean_rows(rows, unseen, missing)
        elif not clean_columns(rows, self.columns, self.parts, self.category, unseen, missing):
            cells = rows.rows()
            self._clean_rows(cells, unseen, missing)
            rows.cells = self.by_column(cells).cells

    def by_column(self, rows: Sequence[Row]) -> Columns:
        """Clean rows as clean columns."""
        made = columns_of(rows)
        for column in (*self.parts.numeric, *self.parts.truths):
            made.cells[column] = np.array(made.cells[column], dtype=np.float64)
        return made

    def _clean_rows(self, rows: Sequence[Row], unseen: Unseen, missing: dict[str, int]) -> None:
        numeric, categorical, texts, images, truths, moments = self.parts
        largest = LARGEST
        for place, row in enumerate(rows):
            for column in numeric:
                value = row[column]
                # NaN fails both comparisons and goes the long way.
                if not (type(value) is float and -largest <= value <= largest):
                    value = row[column] = self._number(value, place, column)
                    if value != value:
                        _count(missing, self.columns[column])
            for column, known in categorical:
                value = row[column]
                # What the model knows as it stands needs no spelling: the usual case, and the words of older versions.
                if known is not None and type(value) is str and value in known:
                    continue
                value = row[column] = self._category(value, place, column, known)
                if value is None:
                    _count(missing, self.columns[column])
                elif known is not None and value not in known:
                    _count(unseen, (self.columns[column], value))
            for column in texts:
                value = row[column]
                if type(value) is not str or not value:
                    value = row[column] = self._text(value, place, column)
                    if value is None:
                        _count(missing, self.columns[column])
            for column in images:
                value = row[column] = self._image(row[column], place, column)
                if value is None:
                    _count(missing, self.columns[column])
            for column in truths:
                value = row[column] = self._truth(row[column], place, column)
                if value != value:
                    _count(missing, self.columns[column])
            for column, unit in moments:
                value = row[column] = self._moment(row[column], place, column, unit)
                if value is None:
                    _count(missing, self.columns[column])

    def warnings(self, unseen: Unseen, hidden: Sequence[str] = ()) -> list[dict[str, Any]]:
        """What an answer tells of categories that training never saw: a few of each column, most frequent first.

        Of hidden columns nothing is told that training saw.
        """
        found = []
        for column, known in self.parts.categorical:
            name = self.columns[column]
            mine = sorted(((rows, value) for (of, value), rows in unseen.items() if of == name), reverse=True)
            found += [
                Unknown(name, value, rows, nearest(value, _NONE if name in hidden else known or _NONE)).to_dict()
                for rows, value in mine[:MOST_TOLD]
            ]
        return found

    def frame(self, rows: Rows) -> pd.DataFrame:
        """Clean rows as the pipeline reads them: exactly a `feature_frame`."""
        import pandas as pd

        text = pd.StringDtype(na_value=np.nan)
        made: dict[str, Any] = {}
        for index, (name, kind) in enumerate(zip(self.columns, self.kinds, strict=True)):
            cells = column_of(rows, index)
            if kind in ("numeric", "boolean"):
                made[name] = np.array(cells, dtype=np.float64)
            elif kind == "datetime":
                made[name] = moments_of(cells).view("datetime64[us]")
            elif kind == "image":
                made[name] = pd.Series(cells, dtype=object)
            else:
                made[name] = pd.Series(pd.array(cells, dtype=text))
        return pd.DataFrame(made, index=pd.RangeIndex(len(rows)), copy=False)

    def refuse(self, column: int, row: int, value: object, because: str = "") -> Problem:
        """The 422 that names the cell, its rule and a row that works."""
        name, kind = self.columns[column], self.kinds[column]
        rule = _RULES[kind]
        if kind == "datetime":
            rule = f"{moment_rule(self.units.get(name), name)}; or null for missing"
        reason = because or f"{shown(value)} is not {rule}"
        return Problem(
            422, f"column {name!r}, row {row} (counted from 0): {reason}",
            column=name, row=row, value=shown(value), rule=rule, example=dict(self.example),
        )  # fmt: skip

    def _number(self, value: object, row: int, column: int) -> float:
        found = number(value)
        if found is None or not (-LARGEST <= found <= LARGEST or found != found):
            raise self.refuse(column, row, value)
        return found

    def told(self, column: int, cell: Any) -> Any:
        """A clean cell as JSON has it for people: a truth value as one, a moment as a text in ISO 8601."""
        kind = self.kinds[column]
        if kind == "boolean":
            return None if cell != cell else cell == 1.0
        return moment_text(cell) if kind == "datetime" and cell is not None else cell

    @cached_property
    def retold(self) -> tuple[int, ...]:
        """The columns whose clean cells are not as JSON has them for people."""
        return (*self.parts.truths, *(column for column, _ in self.parts.moments))

    def category(self, value: str | None, known: frozenset[str] | None) -> str | Literal[False] | None:
        """A category in the word that the model knows it by; False where it has no spelling."""
        try:
            name = spelled(value)
        except Unspellable:
            return False
        return name if name is None or known is None else as_known(name, known)

    def _category(self, value: object, row: int, column: int, known: frozenset[str] | None) -> str | None:
        try:
            name = spelled(value)
        except Unspellable as error:
            raise self.refuse(column, row, value, error.problem if isinstance(value, str | float) else "") from None
        return name if name is None or known is None else as_known(name, known)

    def _text(self, value: object, row: int, column: int) -> str | None:
        try:
            return written(value)
        except Unspellable as error:
            raise self.refuse(column, row, value, error.problem if isinstance(value, str | float) else "") from None

    def _truth(self, value: object, row: int, column: int) -> float:
        found = truth_value(value)
        if found is None:
            raise self.refuse(column, row, value)
        return found

    def _moment(self, value: object, row: int, column: int, unit: str | None) -> int | None:
        found = moment(value, unit)
        if found is None:
            raise self.refuse(column, row, value)
        return None if found == MISSING else found

    def _image(self, value: object, index: int, column: int) -> bytes | None:
        if value is None or isinstance(value, bytes):
            return value or None
        if isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True) or None
            except (binascii.Error, ValueError):
                pass
        raise self.refuse(column, index, value)


def _count(counts: dict[Key, int], name: Key) -> None:
    counts[name] = counts.get(name, 0) + 1
