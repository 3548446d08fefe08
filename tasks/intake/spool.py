"""A delivery's rows between reading and storing: a single part in memory, more of them in files. No judging.

Each column of a part is a file, so that a column, or a part, can be taken out again and no more than that is held.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


class Spool:
    """Rows in the normal form, part by part; the index of each part is its rows' positions in the delivery."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns: list[str] = []
        self._only: pd.DataFrame | None = None
        self._folder: Path | None = None
        self._stored: list[_Part] = []
        self._numbers = count()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: pd.DataFrame) -> None:
        """Take another part."""
        self.columns = self.columns or list(rows.columns)
        if self._only is None and not self._stored:
            self._only = rows
        else:
            if self._only is not None:
                self._write(self._only)
                self._only = None
            self._write(rows)
        self.rows += len(rows)

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The parts in order, with all columns or these."""
        if self._only is not None:
            yield self._only if columns is None else self._only[list(columns)]
        for part in self._stored:
            yield part.read(columns)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of the parts in order, as Arrow holds them: missing cells are null."""
        if self._only is not None:
            yield pa.Table.from_pandas(self._only[list(columns)], preserve_index=False)
        for part in self._stored:
            yield pa.table({name: part.array(name) for name in columns})

    def take(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of all rows."""
        if self._only is not None:
            return self._only[list(columns)]
        index = pd.Index(self.positions())
        return pd.DataFrame({name: self._whole(name).set_axis(index) for name in columns}, index=index, copy=False)

    def positions(self) -> np.ndarray:
        """Every row's position in the delivery, in order."""
        if self._only is not None:
            return self._only.index.to_numpy()
        return np.concatenate([part.positions for part in self._stored])

    def pick(self, chosen: np.ndarray) -> pd.DataFrame:
        """The rows of a mask over all rows in order, with all columns."""
        if self._only is not None:
            return self._only[chosen]
        found, start = [], 0
        for part in self._stored:
            mask = chosen[start : start + len(part.positions)]
            start += len(part.positions)
            if mask.any():
                found.append(part.read()[mask])
        return pd.concat(found) if found else self._stored[0].read().iloc[:0]

    def drop(self, positions: Sequence[int]) -> None:
        """Take rows out again."""
        if not positions:
            return
        stored, only, self.rows = self._stored, self._only, 0
        self._stored, self._only = [], None
        for rows in [only] if only is not None else (part.read() for part in stored):
            self.add(rows[~rows.index.isin(positions)])
        for part in stored:
            shutil.rmtree(part.folder)

    def _whole(self, name: str) -> pd.Series[Any]:
        """A column of all parts, as pandas would join them; what has one plain type is joined before it is pandas'."""
        arrays = [part.array(name) for part in self._stored]
        (kind, *others) = {array.type for array in arrays}
        if others or not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_large_string(kind)):
            joined: pd.Series[Any] = pd.concat([array.to_pandas() for array in arrays])
        else:
            joined = pa.chunked_array([chunk for array in arrays for chunk in array.chunks], kind).to_pandas()
        return joined

    def _write(self, rows: pd.DataFrame) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="perennial-intake-"))
        folder = self._folder / f"{next(self._numbers):06}"
        folder.mkdir()
        for number, name in enumerate(rows.columns):
            table = pa.table({"value": _array(rows[name])})
            with (
                pa.OSFile(str(folder / f"{number}.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write_table(table)
        self._stored.append(_Part(folder, tuple(rows.columns), rows.index.to_numpy()))


@dataclass(frozen=True)
class _Part:
    """A part in its folder; its positions stay in memory."""

    folder: Path
    columns: tuple[str, ...]
    positions: np.ndarray

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        found: dict[str, pd.Series[Any]] = {}
        for name in self.columns if columns is None else columns:
            found[name] = self.array(name).to_pandas().set_axis(self.positions)
        return pd.DataFrame(found, index=self.positions)

    def array(self, name: str) -> pa.ChunkedArray:
        """A column as Arrow holds it."""
        with pa.OSFile(str(self.folder / f"{self.columns.index(name)}.arrow")) as source:
            return pa.ipc.open_file(source).read_all()["value"]


def _array(column: pd.Series[Any]) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # a target of numbers and texts, such as JSON may have
        return pa.array(column.map(str, na_action="ignore"), from_pandas=True)
