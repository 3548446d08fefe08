"""What commands print: JSON for machines, tables and records for people. Nothing about what is in them."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import click


def plain(value: Any) -> Any:
    """The value as JSON has it: RFC 3339 times, durations in seconds, null for NaN, NaT and the infinities.

    Takes dataclasses, pydantic models, NumPy scalars and arrays, and pandas timestamps, without importing any of
    them.

    Raises:
        TypeError: It has no plain form.
    """
    if value is None or (isinstance(value, bool | int) and not isinstance(value, Enum)) or type(value) is str:
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, date | timedelta):
        return _moment(value)
    if isinstance(value, str | PurePath | UUID):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    return _foreign(value)


def _moment(value: date | timedelta) -> Any:
    if value != value:  # pandas' NaT, which is a datetime and unlike itself
        return None
    if isinstance(value, timedelta):
        return value.total_seconds()
    text = value.isoformat()
    return text.removesuffix("+00:00") + "Z" if isinstance(value, datetime) and text.endswith("+00:00") else text


def _foreign(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        item = value.tolist()
        if not isinstance(item, type(value)):
            return plain(item)
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def print_json(value: Any) -> None:
    """Print the value as one JSON document that every parser reads."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a table; missing values as a dash."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("-" if cell is None or cell == "" else str(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 1000  # a pipe has no width: nothing is cut off
    console.print(table)


NARROW, WIDE = 80, 100


def print_records(columns: Sequence[str], records: Sequence[tuple[Sequence[object], Sequence[str]]]) -> None:
    """Print a line of cells for each record, and below it its sentences, wrapped: 80 columns, 100 where there are.

    Args:
        records: The cells, missing ones as a dash, and the sentences.
    """
    width = NARROW
    if sys.stdout.isatty():
        width = max(40, min(WIDE, shutil.get_terminal_size().columns))
    lines = [["-" if cell is None or cell == "" else str(cell) for cell in cells] for cells, _ in records]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *lines, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 4:
        widths[widths.index(max(widths))] -= 1
    for line in _cells(columns, widths):
        click.secho(line, bold=True)  # which click leaves out where it is no terminal
    for cells, (_, sentences) in zip(lines, records, strict=True):
        for line in _cells(cells, widths):
            click.echo(line)
        for sentence in sentences:
            click.echo(textwrap.fill(sentence, width, initial_indent="    ", subsequent_indent="    "))


def _cells(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """One line, or more where a cell is longer than its column."""
    parts = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    height = max(len(part) for part in parts)
    return [
        "  ".join(
            (part[row] if row < len(part) else "").ljust(width) for part, width in zip(parts, widths, strict=True)
        ).rstrip()
        for row in range(height)
    ]
