"""Rows out of streams of lines, CSV and JSON, every broken or cut-off line refused. It knows no definition."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.csv

_BLOCK_BYTES = 4 << 20
_JSON_ROWS = 1 << 16


class Broken(ValueError):
    """What is wrong with a file, as the rest of a sentence that starts with its name; and the remedy."""

    def __init__(self, problem: str, remedy: str = "Check the file") -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def csv_tables(stream: BinaryIO, rows: int | None, used: Collection[str]) -> Iterator[pa.Table]:
    """Tables of nothing but texts, as they are written between the commas; so many rows each, or one of all.

    Args:
        used: The columns that must not be there twice.

    Raises:
        Broken: There is no header, a used column is there twice, or a line has more or fewer cells than the header.
        pa.ArrowInvalid: It is no CSV in UTF-8.
    """
    watched = _Watched(stream)
    names = _header(watched)
    if twice := sorted({name for name in names if names.count(name) > 1} & set(used)):
        raise Broken(f"has columns twice: {', '.join(twice)}", "Keep one of each")
    unique = _distinct(names)
    broken: list[Any] = []

    def refuse(row: Any) -> str:
        broken.append(row)
        return "error"

    schema = pa.schema([(name, pa.string()) for name in unique])
    last = ""
    try:
        reader = pa.csv.open_csv(
            pa.PythonFile(watched, mode="r"),
            read_options=pa.csv.ReadOptions(column_names=unique, block_size=_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            convert_options=pa.csv.ConvertOptions(
                column_types=schema, strings_can_be_null=False, quoted_strings_can_be_null=False
            ),
        )
        for table in _regrouped(reader, schema, rows):
            if len(table):
                last = table.column(len(unique) - 1)[-1].as_py()
            yield table
    except pa.ArrowInvalid as error:
        if broken:
            raise _broken_line(broken[0]) from None
        if "Empty CSV" not in str(error):
            raise
        yield schema.empty_table()
    if watched.ends_within_quotes(last):
        raise Broken("ends within a quoted cell: it is cut off, or a quote is missing")


def json_records(stream: BinaryIO, rows: int | None) -> Iterator[list[dict[str, Any]]]:
    """The records of JSON lines, so many in each list; empty lines are none.

    Raises:
        Broken: A line is no JSON object, or cut off; it is named.
    """
    count = 0
    numbered = ((number, line) for number, line in enumerate(stream, start=1) if line.strip())
    while lines := list(islice(numbered, rows or _JSON_ROWS)):
        count += len(lines)
        yield [_record(number, line) for number, line in lines]
    if not count:
        raise Broken("holds no record")


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _record(number: int, line: bytes) -> dict[str, Any]:
    try:
        return _decode(line)
    except (msgspec.DecodeError, ValueError) as error:
        reason = str(error)
    try:
        record = json.loads(line)  # Python's own encoder writes NaN
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise Broken(f"can't be read: line {number} is no JSON object, or cut off: {reason}")
    return record


class _Watched:
    """A stream that is read forwards only, and remembers how it ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._quotes, self._last = stream, 0, b""
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return self._seen(self._stream.read(size))

    def line(self) -> bytes:
        return self._seen(self._stream.readline())

    def ends_within_quotes(self, last_cell: str) -> bool:
        """A quote that never closes swallows the rest of the file, its last line's end included."""
        return self._quotes % 2 == 1 and (self._last not in (b"\n", b"\r") or last_cell.endswith(("\n", "\r")))

    def _seen(self, data: bytes) -> bytes:
        self._quotes += data.count(b'"')
        self._last = data[-1:] or self._last
        return data

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def _header(stream: _Watched) -> list[str]:
    """The names in the first line, or lines, for a name may hold a line's end."""
    text = b""
    while line := stream.line():
        text += line
        if text.strip(b"\xef\xbb\xbf\r\n") and text.count(b'"') % 2 == 0:
            break
    names = next(csv.reader([text.decode("utf-8-sig").strip("\r\n")]), [])
    if not names:
        raise Broken("can't be read: there is no header in it")
    return names


def _distinct(names: list[str]) -> list[str]:
    made: list[str] = []
    for name in names:
        number, free = 0, name
        while free in made:
            number, free = number + 1, f"{name}.{number + 1}"
        made.append(free)
    return made


def _regrouped(reader: pa.RecordBatchReader, schema: pa.Schema, rows: int | None) -> Iterator[pa.Table]:
    """Tables of so many rows; at least one."""
    waiting: list[pa.RecordBatch] = []
    count = given = 0
    for batch in reader:
        waiting.append(batch)
        count += len(batch)
        if rows is None or count < rows:
            continue
        table = pa.Table.from_batches(waiting, schema)
        for start in range(0, count - count % rows, rows):
            given += 1
            yield table.slice(start, rows)
        rest = table.slice(count - count % rows)
        waiting, count = rest.to_batches(), len(rest)
    if count or not given:
        yield pa.Table.from_batches(waiting, schema)


def _broken_line(row: Any) -> Broken:
    if row.actual_columns > row.expected_columns:
        return Broken(
            f"has lines with more cells than its header: {row.text[:80]!r}", "Name every column in the first line"
        )
    return Broken(
        f"is cut off or broken: a line has {row.actual_columns} cells, the header {row.expected_columns}: "
        f"{row.text[:80]!r}",
        "Write it anew",
    )
