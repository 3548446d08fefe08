"""A delivery's rows between reading and storing: the first part in memory, more of them in a file. No judging.

Columns and parts can be taken out again, so that a delivery is never held whole.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

_POSITION = "_position"


class Spool:
    """Rows in the normal form, part by part; the index of each part is its rows' positions in the delivery."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns: list[str] = []
        self._only: pd.DataFrame | None = None
        self._folder: Path | None = None
        self._files: list[Path] = []
        self._numbers = count()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: pd.DataFrame) -> None:
        """Take another part."""
        self.columns = self.columns or list(rows.columns)
        if self._only is None and not self._files:
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
        for file in self._files:
            yield _read(file, columns)

    def take(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of all rows."""
        parts = list(self.parts(columns))
        return parts[0] if len(parts) == 1 else pd.concat(parts)

    def pick(self, chosen: np.ndarray) -> pd.DataFrame:
        """The rows of a mask over all rows in order, with all columns."""
        found, start = [], 0
        for file in self.parts([self.columns[0]]) if chosen.any() else ():
            found.append((start, len(file)))
            start += len(file)
        parts = [
            part[chosen[first : first + count]]
            for (first, count), part in zip(found, self.parts(), strict=True)
            if chosen[first : first + count].any()
        ]
        return pd.concat(parts) if parts else next(self.parts()).iloc[:0]

    def drop(self, positions: Sequence[int]) -> None:
        """Take rows out again."""
        if not positions:
            return
        parts, self.rows = list(self._files), 0
        only, self._only, self._files = self._only, None, []
        for part in [only] if only is not None else map(_read, parts):
            self.add(part[~part.index.isin(positions)])
        for file in parts:
            file.unlink()

    def _write(self, rows: pd.DataFrame) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="perennial-intake-"))
        path = self._folder / f"{next(self._numbers):06}.arrow"
        table = _table(rows.reset_index(names=_POSITION))
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self._files.append(path)


def _table(rows: pd.DataFrame) -> pa.Table:
    try:
        return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # a target of numbers and texts, such as JSON may have
        mixed = [name for name in map(str, rows) if pd.api.types.is_object_dtype(rows[name])]
        texts = {name: rows[name].map(str, na_action="ignore") for name in mixed}
        return pa.Table.from_pandas(rows.assign(**texts), preserve_index=False)


def _read(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        names = reader.schema.names if columns is None else [*dict.fromkeys([_POSITION, *columns])]
        frame: pd.DataFrame = reader.read_all().select(names).to_pandas(ignore_metadata=True)
    return frame.set_index(_POSITION).rename_axis(None)
