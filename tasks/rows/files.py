"""Files of rows, read whole or in bounded memory, with the types that the definition gives them. No normal form."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from perennial.definition import ModelDefinition
from perennial.errors import DataError


def read_file(path: str | Path, definition: ModelDefinition) -> pd.DataFrame:
    """One parquet, CSV or JSON-lines file, told by its ending.

    In CSV, which has no types, ids, categories and texts stay as they are written: 007 is not 7.

    Raises:
        DataError: It is missing, unreadable or of another kind.
    """
    read = _reader(str(path), definition)
    with _told_of(path):
        frame: pd.DataFrame = read(path)
    return frame


def read_in_chunks(path: str | Path, definition: ModelDefinition, rows: int) -> Iterator[pd.DataFrame]:
    """The same file with the same types, so many rows at a time and never held whole.

    Only what scoring needs is given: id, time and features.

    Raises:
        DataError: As `read_file`, or a needed column is missing.
    """
    with closing(_frames(path, definition, rows)) as frames:
        while True:
            with _told_of(path):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame


def require_columns(present: Iterable[Any], wanted: Iterable[str]) -> None:
    """Refuse data without all wanted columns.

    Raises:
        DataError: Some are missing; they are named, and what is there.
    """
    names = [str(name) for name in present]
    if missing := [name for name in wanted if name not in names]:
        raise DataError(
            f"the columns {', '.join(missing)} are missing; there are {', '.join(names[:40])}",
            "Rename them in the data, or correct the definition",
        )


def _frames(path: str | Path, definition: ModelDefinition, rows: int) -> Generator[pd.DataFrame]:
    wanted = list(dict.fromkeys((definition.data.id, definition.data.time, *definition.features.columns)))
    read = _reader(str(path), definition)
    if read is pd.read_parquet:
        with pq.ParquetFile(path) as file:
            require_columns(list(file.schema_arrow.names), wanted)
            yield from (batch.to_pandas() for batch in file.iter_batches(rows, columns=wanted))
        return
    with read(path, chunksize=rows) as frames:
        if read.func is pd.read_json:
            yield from _records(path, frames, wanted)
            return
        for frame in frames:
            # Had pandas been told which columns are wanted, it would not see lines that are too long.
            require_columns(frame.columns, wanted)
            yield frame[wanted]


def _records(path: str | Path, frames: Iterable[pd.DataFrame], wanted: list[str]) -> Iterator[pd.DataFrame]:
    """Frames with all wanted columns: a record may leave out what is missing, if any record of the file has it."""
    known: set[str] = set()
    for frame in frames:
        if not len(frame):  # empty lines
            continue
        known.update(frame.columns)
        if not known.issuperset(wanted):
            known = _keys(path)
            require_columns(sorted(known), wanted)
        yield frame.reindex(columns=wanted)


def _keys(path: str | Path) -> set[str]:
    """The keys of all records of a JSON-lines file."""
    found: set[str] = set()
    with Path(path).open("rb") as lines:
        for line in filter(bytes.strip, lines):
            found.update(record if isinstance(record := json.loads(line), dict) else ())
    return found


@contextmanager
def _told_of(path: str | Path) -> Iterator[None]:
    """What readers raise, as an error that names the file; that cells would be lost is more than a warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "Check the path") from None
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path} has lines with more cells than its header", "Name every column in the first line"
        ) from None
    except (OSError, ValueError, EOFError, zlib.error, pd.errors.ParserError) as error:
        raise DataError(f"{path} can't be read: {' '.join(str(error).split())}", "Check the file") from error


def _reader(path: str, definition: ModelDefinition) -> Any:
    suffix = "".join(Path(path).suffixes[-2:]).lower() if path.endswith(".gz") else Path(path).suffix.lower()
    # Without index_col=False the first cell of longer lines would become an index, and the others move by one.
    read_csv = partial(pd.read_csv, dtype=dict.fromkeys(_written_columns(definition), "str"), index_col=False)
    readers: dict[str, Any] = {
        ".parquet": pd.read_parquet,
        ".csv": read_csv,
        ".csv.gz": read_csv,
        # Otherwise pandas would make numbers of texts, and times of numbers whose name ends in _time.
        ".jsonl": partial(pd.read_json, lines=True, dtype=False, convert_dates=False),
    }
    if suffix not in readers:
        raise DataError(f"{path} is no file that can be read", f"Give one of {', '.join(readers)}")
    return readers[suffix]


def _written_columns(definition: ModelDefinition) -> tuple[str, ...]:
    """The columns whose cells are names and no numbers; a target is one where its positive class has a name."""
    data, features = definition.data, definition.features
    target = () if definition.positive is None else (data.target,)
    return (data.id, *features.categorical, *features.text, *target)
