"""Files of rows, read whole or in bounded memory, with the types that the definition gives them. No normal form.

What a file's format knows beyond the definition is kept (a parquet file's integers stay integers beside a missing
value), and what it doesn't know is not guessed: in CSV, ids, categories and texts stay as they are written, so that
007 is not 7 and NA is a category; only an empty cell of them is missing. In columns of numbers, truth values and
moments NA and its like are missing. Columns that the definition doesn't name are texts there.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.canonical import Unspellable, spelled_array
from perennial.model.numbers import MISSING_NUMBERS, numbers
from tasks.rows.lines import Broken, csv_tables, json_records

_ENDINGS = (".parquet", ".csv", ".csv.gz", ".jsonl")


def read_file(path: str | Path, definition: ModelDefinition) -> pd.DataFrame:
    """One parquet, CSV or JSON-lines file, told by its ending.

    Raises:
        DataError: It is missing, unreadable, cut off or of another kind.
    """
    with _told_of(path):
        if _ending(path) == ".parquet":
            return typed_frame(pq.read_table(str(path)), definition)
        frames = list(_frames(path, definition, rows=None))
        return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def read_untyped(path: str | Path, rows: int) -> pd.DataFrame:
    """A file's first rows for who has no definition yet: CSV cells are texts, missing where they are empty.

    Raises:
        DataError: As `read_file`.
    """
    with _told_of(path), _opened(path) as source:
        if _ending(path) == ".parquet":
            with pq.ParquetFile(source) as file:
                batches = islice(file.iter_batches(rows), 1)
                table = pa.Table.from_batches(batches, file.schema_arrow)
            # pandas would make floats of integers beside a missing value.
            whole = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}
            frame: pd.DataFrame = table.to_pandas(ignore_metadata=True, types_mapper=whole.get)
            return frame
        if _ending(path) == ".jsonl":
            records = next(json_records(source, rows))
            names = dict.fromkeys(name for record in records for name in record)
            return pd.DataFrame({name: pd.Series([record.get(name) for record in records]) for name in names})
        table = next(csv_tables(source, rows, ()))
        empty = pa.array(("",))
        columns = [
            pa.chunked_array([_without(part, empty) for part in item.chunks], pa.string()) for item in table.columns
        ]
        texts: pd.DataFrame = pa.table(columns, names=table.column_names).to_pandas()
        return texts


def read_in_chunks(path: str | Path, definition: ModelDefinition, rows: int) -> Iterator[pd.DataFrame]:
    """The same file with the same types, so many rows at a time and never held whole.

    Only what scoring needs is given: id, time and features.

    Raises:
        DataError: As `read_file`, or a needed column is missing.
    """
    with closing(_wanted_frames(path, definition, rows)) as frames:
        while True:
            with _told_of(path):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame


def read_parts(path: str | Path, definition: ModelDefinition, rows: int) -> Iterator[pd.DataFrame]:
    """The same file with all its columns, so many rows at a time and never held whole; one part at the least.

    Raises:
        DataError: As `read_file`.
    """
    with closing(_parts(path, definition, rows)) as frames:
        while True:
            with _told_of(path):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame


def require_readable(path: str | Path, definition: ModelDefinition) -> None:
    """Refuse, before anything is begun, a file that is missing, of another kind, or has no first rows.

    Raises:
        DataError: As `read_file`, as far as its beginning tells.
    """
    next(iter(read_parts(path, definition, 1 if _ending(path) == ".parquet" else 1000)), None)


def _parts(path: str | Path, definition: ModelDefinition, rows: int) -> Generator[pd.DataFrame]:
    begun = False
    if _ending(path) == ".parquet":
        with _opened(path) as source, pq.ParquetFile(source) as file:
            frames = (typed_frame(pa.Table.from_batches([batch]), definition) for batch in _batches(file, rows))
            with closing(_one_ahead(frames)) as ready:
                for frame in ready:
                    begun = True
                    yield frame
            if not begun:
                yield typed_frame(file.schema_arrow.empty_table(), definition)
        return
    data, known, scanned = definition.data, set[str](), False
    wanted = {*data.id_columns, data.time, data.target, *definition.features.columns}
    for frame in _frames(path, definition, rows):
        begun = True
        if _ending(path) == ".jsonl":
            # A record may leave out what is missing, if any record of the file has it.
            known.update(frame.columns)
            if not scanned and not known.issuperset(wanted):
                known, scanned = known | _keys(path), True
            yield frame.reindex(columns=[*frame.columns, *sorted((known & wanted) - set(frame.columns))])
        else:
            yield frame
    if not begun:
        yield pd.DataFrame()


def _batches(file: pq.ParquetFile, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A parquet file so many rows at a time. Over all of it at once, Arrow would keep what it has read."""
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    first = 0
    while first < len(sizes):
        end = first + 1
        while end < len(sizes) and sum(sizes[first : end + 1]) <= rows:
            end += 1
        yield from file.iter_batches(rows, row_groups=range(first, end), columns=columns)
        first = end


def _one_ahead(frames: Iterator[pd.DataFrame]) -> Generator[pd.DataFrame]:
    """The same, each made while the one before it is worked on: two are held at the most."""
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        coming = reader.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = reader.submit(next, frames, None)
            yield frame


def require_columns(present: Iterable[Any], wanted: Iterable[str]) -> None:
    """Refuse data without all wanted columns, or with one of them twice.

    Raises:
        DataError: Some are missing or doubled; they are named, and what is there.
    """
    names = [str(name) for name in present]
    wanted = list(dict.fromkeys(wanted))
    if missing := [name for name in wanted if name not in names]:
        raise DataError(
            f"the columns {', '.join(missing)} are missing; there are {', '.join(names[:40])}",
            "Rename them in the data, or correct the definition",
        )
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise DataError(f"columns given twice: {', '.join(twice)}", "Keep one of each")


def typed_frame(table: pa.Table, definition: ModelDefinition) -> pd.DataFrame:
    """Arrow's columns as the definition means them; pandas would make floats of integers beside a missing value.

    What can't be spelled stays as it is, for the normal form to refuse with its row.
    """
    named = _named_columns(definition)
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name, values in zip(table.column_names, table.columns, strict=True):
        if name in named and name != definition.data.time:
            values = _spelled(values, free_text=name in definition.features.text)
        elif name in definition.features.numeric and pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        elif name in definition.features.datetime and (
            pa.types.is_integer(values.type) or pa.types.is_decimal(values.type)
        ):
            values = values.cast(pa.string())  # pandas would make floats of integers beside a missing value
        columns[name] = values
    frame: pd.DataFrame = pa.table(columns).to_pandas(ignore_metadata=True)
    return frame


def _spelled(values: pa.ChunkedArray, *, free_text: bool) -> pa.ChunkedArray | pa.Array:
    try:
        return spelled_array(values, free_text=free_text)
    except Unspellable:
        return values


def _wanted_frames(path: str | Path, definition: ModelDefinition, rows: int) -> Generator[pd.DataFrame]:
    data = definition.data
    wanted = list(dict.fromkeys((*data.id_columns, data.time, *definition.features.columns)))
    if _ending(path) == ".parquet":
        with _opened(path) as source, pq.ParquetFile(source) as file:
            require_columns(list(file.schema_arrow.names), wanted)
            for batch in _batches(file, rows, wanted):
                yield typed_frame(pa.Table.from_batches([batch]), definition)
        return
    known: set[str] = set()
    for frame in _frames(path, definition, rows):
        if _ending(path) != ".jsonl":
            require_columns(frame.columns, wanted)
            yield frame[wanted]
            continue
        # A record may leave out what is missing, if any record of the file has it.
        known.update(frame.columns)
        if not known.issuperset(wanted):
            known = _keys(path)
            require_columns(sorted(known), wanted)
        yield frame.reindex(columns=wanted)


def _frames(path: str | Path, definition: ModelDefinition, rows: int | None) -> Iterator[pd.DataFrame]:
    with _opened(path) as stream:
        if _ending(path) == ".jsonl":
            for records in json_records(stream, rows):
                names = dict.fromkeys(name for record in records for name in record)
                cells = {name: [record.get(name) for record in records] for name in names}
                yield pd.DataFrame({name: _from_values(name, values, definition) for name, values in cells.items()})
        else:
            read = (*definition.features.boolean, *definition.features.datetime)
            used = {*_named_columns(definition), *_number_columns(definition), *read, definition.data.time}
            for table in csv_tables(stream, rows, used):
                yield _from_texts(table, definition)


def _from_values(name: str, values: list[Any], definition: ModelDefinition) -> pd.Series[Any]:
    """JSON's values as they are; floats where numbers are wanted and every cell is one."""
    column = pd.Series(values, dtype=object)
    if name in _number_columns(definition):
        found, wrong = numbers(column)
        return column if wrong.any() else pd.Series(found)
    return column


def _from_texts(table: pa.Table, definition: ModelDefinition) -> pd.DataFrame:
    """A table of nothing but texts, where only an empty cell is surely missing."""
    columns: dict[str, Any] = {}
    for name, values in zip(table.column_names, table.columns, strict=True):
        numeric = name in _number_columns(definition)
        read = numeric or name in definition.features.boolean or name in definition.features.datetime
        missing = pa.array(("", *MISSING_NUMBERS) if read else ("",))
        texts = pa.chunked_array([_without(part, missing) for part in values.chunks], pa.string())
        columns[name] = _from_numerals(texts) if numeric else texts
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    return frame


def _without(texts: pa.Array, missing: pa.Array) -> pa.Array:
    return pc.replace_with_mask(texts, pc.is_in(texts, value_set=missing), pa.scalar(None, pa.string()))


def _from_numerals(texts: pa.ChunkedArray) -> Any:
    """Floats where every cell is one or missing, else the texts."""
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        values, wrong = numbers(texts.to_pandas())
        return texts if wrong.any() else pa.array(values, from_pandas=True)


def _keys(path: str | Path) -> set[str]:
    """The keys of all records of a JSON-lines file."""
    with _opened(path) as stream:
        return {name for records in json_records(stream, None) for record in records for name in record}


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The file as its reader takes it: lines as a stream of plain bytes, parquet as what can be sought in."""
    if "://" in str(path):
        system, inner = pyarrow.fs.FileSystem.from_uri(str(path))
        # A stream is decompressed by its ending.
        with (system.open_input_file if _ending(path) == ".parquet" else system.open_input_stream)(inner) as stream:
            yield stream if _ending(path) == ".parquet" else io.BufferedReader(stream)
    elif _ending(path) == ".parquet":
        yield str(path)
    else:
        with gzip.open(path) if _ending(path) == ".csv.gz" else Path(path).open("rb") as stream:
            yield stream


@contextmanager
def _told_of(path: str | Path) -> Iterator[None]:
    """What readers raise, as an error that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "Check the path") from None
    except Broken as error:
        raise DataError(f"{path} {error.problem}", error.remedy) from None
    except (OSError, ValueError, EOFError, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {' '.join(str(error).split())}", "Check the file") from error


def _ending(path: str | Path) -> str:
    name = str(path).lower()
    if found := next((ending for ending in _ENDINGS if name.endswith(ending)), None):
        return found
    raise DataError(f"{path} is no file that can be read", f"Give one of {', '.join(_ENDINGS)}")


def _named_columns(definition: ModelDefinition) -> frozenset[str]:
    """The columns whose cells are names and no numbers."""
    groups = [name for name in definition.carried if name == definition.training.groups]
    return frozenset(
        (*definition.data.id_columns, *definition.features.categorical, *definition.features.text, *groups)
    )


def _number_columns(definition: ModelDefinition) -> frozenset[str]:
    """Those whose cells are numbers; a class is a word, so that one named None or NA is one."""
    target = (definition.data.target,) if definition.task == "regression" else ()
    weights = [name for name in definition.carried if name == definition.training.weights]
    return frozenset((*definition.features.numeric, *target, *weights))
