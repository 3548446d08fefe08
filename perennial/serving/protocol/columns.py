"""Many rows as columns: what costs a look at each cell in Python is done for a column at once. Knows no protocol.

Requests of a few rows stay lists of rows, which is quicker for them; `Rows` are either. A column that holds anything
but plain numbers, or plain texts, is gone through cell by cell, by the code for rows: what is refused, and how, is the
same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from perennial.model.cells.moments import MISSING, moment
from perennial.model.cells.truths import truth_value

Row = list[Any]
Floats = npt.NDArray[np.float64]
Unseen = dict[tuple[str, str], int]
Category = Callable[[str | None, frozenset[str] | None], str | Literal[False] | None]
COLUMN_ROWS = 8
_NUMBERS = frozenset({float, int, type(None)})
_TEXTS = frozenset({str, type(None)})
# Random forests compare in float32; nothing that anybody measures is larger.
LARGEST = float(np.finfo(np.float32).max)


class Parts(NamedTuple):
    """Where the columns of each kind are; categories with those that training saw, moments with their numbers' unit."""

    numeric: tuple[int, ...]
    categorical: tuple[tuple[int, frozenset[str] | None], ...]
    texts: tuple[int, ...]
    images: tuple[int, ...]
    truths: tuple[int, ...]
    moments: tuple[tuple[int, str | None], ...]


class Columns:
    """Cells by column, in a schema's order, all of one length.

    Attributes:
        cells: Of each column: as they came, a list or an array of any numbers; once clean, float64 with NaN for
            numbers and truth values, and lists with None for all else.
        typed: Whether cells that came are float or None where numbers are meant, and str or None elsewhere.
    """

    def __init__(self, cells: list[Any], *, typed: bool = False) -> None:
        self.cells, self.typed = cells, typed

    def __len__(self) -> int:
        return len(self.cells[0])

    def take(self, chosen: Sequence[int]) -> Columns:
        """Some of the rows, in that order."""
        return Columns(
            [part[list(chosen)] if isinstance(part, np.ndarray) else [part[i] for i in chosen] for part in self.cells]
        )

    def plain(self, kept: Sequence[int] | None = None) -> list[list[Any]]:
        """The columns, or some of them, as lists."""
        parts = self.cells if kept is None else [self.cells[index] for index in kept]
        return [part.tolist() if isinstance(part, np.ndarray) else list(part) for part in parts]

    def rows(self) -> list[Row]:
        return [list(row) for row in zip(*self.plain(), strict=True)]


Rows = list[Row] | Columns


def columns_of(rows: Sequence[Row]) -> Columns:
    """Rows turned into columns."""
    return Columns([list(part) for part in zip(*rows, strict=True)])


def pick(rows: Rows, chosen: Sequence[int]) -> Rows:
    """Some of the rows, in that order."""
    return rows.take(chosen) if isinstance(rows, Columns) else [rows[index] for index in chosen]


def together(parts: Sequence[Rows]) -> Rows:
    """The clean rows of several requests, one after the other."""
    if not any(isinstance(part, Columns) for part in parts):
        return [row for part in parts for row in part]  # type: ignore[union-attr]
    columns = [part if isinstance(part, Columns) else columns_of(part) for part in parts]
    joined: list[Any] = []
    for pieces in zip(*(part.cells for part in columns), strict=True):
        arrays = any(isinstance(piece, np.ndarray) for piece in pieces)
        joined.append(np.concatenate([np.asarray(piece) for piece in pieces]) if arrays else list(chain(*pieces)))
    return Columns(joined)


def column_of(rows: Rows, position: int) -> Any:
    """One column's cells."""
    return rows.cells[position] if isinstance(rows, Columns) else [row[position] for row in rows]


def matrix_of(rows: Rows, positions: Sequence[int]) -> Floats:
    """Numeric columns as float64 of shape (n, columns)."""
    if isinstance(rows, Columns):
        return np.array([rows.cells[position] for position in positions], dtype=np.float64).T
    return np.array([[row[position] for position in positions] for row in rows], dtype=np.float64)


def clean_columns(
    columns: Columns, names: Sequence[str], parts: Parts, category: Category, unseen: Unseen, missing: dict[str, int]
) -> bool:
    """Put columns into the clean form, in place, where they hold plain values; False where they must be gone through.

    Args:
        names: Of the columns.
        category: One in the word that the model knows it by; False where it has no spelling.
        unseen, missing: As in `Schema.clean`; counted only where True is returned.
    """
    numeric, categorical, texts, images, truths, moments = parts
    if images:
        return False
    numbers = _numbers([columns.cells[index] for index in numeric], columns.typed) if numeric else None
    found: dict[int, list[Any]] = {}
    strangers: Unseen = {}
    gaps: dict[str, int] = {}
    if numeric and numbers is None:
        return False
    for index in texts:
        cells = columns.cells[index]
        if not columns.typed and not _TEXTS.issuperset(map(type, cells)):
            return False
        found[index] = [cell or None for cell in cells]
        _count_missing(gaps, names[index], found[index])
    for index, known in categorical:
        cells = columns.cells[index]
        if known is not None and _all_known(cells, known):
            found[index] = list(cells)
            continue
        if not columns.typed and not _TEXTS.issuperset(map(type, cells)):
            return False
        words = {value: value for value in set(cells)}
        for value in words:
            if known is None or value not in known:
                if (word := category(value, known)) is False:
                    return False
                words[value] = word
        same = all(value == word for value, word in words.items())
        found[index] = list(cells) if same else [words[cell] for cell in cells]
        if None in words.values():
            _count_missing(gaps, names[index], found[index])
        for word in {word for word in words.values() if known is not None and word is not None and word not in known}:
            strangers[names[index], word] = found[index].count(word)
    values: dict[int, Floats] = {}
    for index in truths:
        if (read := _truths(columns.cells[index])) is None:
            return False
        values[index] = read
        if count := int(np.isnan(read).sum()):
            gaps[names[index]] = count
    for index, unit in moments:
        if (times := _moments(columns.cells[index], unit)) is None:
            return False
        found[index] = times
        _count_missing(gaps, names[index], times)
    if numbers is not None:
        lacking = np.isnan(numbers)
        for place, index in enumerate(numeric):
            columns.cells[index] = numbers[place]
        if lacking.any():
            for place, count in enumerate(lacking.sum(axis=1).tolist()):
                if count:
                    gaps[names[numeric[place]]] = count
    for index, cells in found.items():
        columns.cells[index] = cells
    for index, read in values.items():
        columns.cells[index] = read
    unseen.update(strangers)
    missing.update(gaps)
    return True


def _all_known(cells: Sequence[Any], known: frozenset[str]) -> bool:
    try:
        return known.issuperset(cells)
    except TypeError:  # a list or an object
        return False


def _numbers(columns: list[Any], typed: bool) -> Floats | None:
    """Numeric columns as float64 of shape (columns, n); None where a cell is no plain number in the bounds."""
    plain = [] if typed else [part for part in columns if not isinstance(part, np.ndarray)]
    if not _NUMBERS.issuperset(map(type, chain.from_iterable(plain))):
        return None
    try:
        made = np.array(columns, dtype=np.float64)
    except OverflowError:  # a whole number that no double holds
        return None
    with np.errstate(invalid="ignore"):
        good = np.abs(made) <= LARGEST
    if not good.all() and not (good | np.isnan(made)).all():
        return None
    return made


def moments_of(cells: Sequence[int | None]) -> npt.NDArray[np.int64]:
    """Clean moments as microseconds since 1970, NaT's number where they are missing: shape (n,)."""
    return np.array([MISSING if cell is None else cell for cell in cells], dtype=np.int64)


def _truths(cells: Any) -> Floats | None:
    """1, 0 and NaN; None where a cell is no truth value."""
    read = list(map(truth_value, cells.tolist() if isinstance(cells, np.ndarray) else cells))
    return None if None in read else np.array(read, dtype=np.float64)


def _moments(cells: Any, unit: str | None) -> list[int | None] | None:
    """Clean moments; None where a cell is none."""
    read = [moment(cell, unit) for cell in (cells.tolist() if isinstance(cells, np.ndarray) else cells)]
    return None if None in read else [None if cell == MISSING else cell for cell in read]


def _count_missing(gaps: dict[str, int], name: str, cells: list[Any]) -> None:
    if count := cells.count(None):
        gaps[name] = count
