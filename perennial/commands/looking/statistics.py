"""`perennial statistics`: what each check's window looked like, column by column."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click

from perennial.commands.output import print_json, print_table
from perennial.commands.running import json_option


@click.command()
@click.argument("model")
@click.option("--column", help="This column over time; by default all columns in the newest window.")
@click.option(
    "--every", metavar="DURATION", help="Merge windows into periods, such as 28d, counted back from the newest."
)
@click.option("--all", "everything", is_flag=True, help="All columns over time.")
@json_option
def statistics(model: str, column: str | None, every: str | None, everything: bool, as_json: bool) -> None:
    """Show counts, missing values, moments, quantiles and frequent values of MODEL's columns, as checks kept them."""
    from perennial.errors import NotFoundError
    from perennial.workspace import open_workspace
    from tasks.steps.shown.series import statistics_series

    workspace = open_workspace()
    workspace.definition(model)
    frame = statistics_series(workspace.store, model, column=column, every=_duration(every))
    if not len(frame):
        raise _absent(model, column, statistics_series(workspace.store, model)["column"].unique().tolist())
    if column is None and not everything:
        newest = frame["end"].max()
        frame = frame[frame["end"] == newest]
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    if as_json:
        print_json(records)
        return
    if not records:
        raise NotFoundError(f"no check of {model} has kept statistics yet", f"Check it: `perennial check {model}`")
    first = "column" if column is None else "until"
    measured = ("rows", "missing", "mean", "deviation", "5 %", "median", "95 %", "distinct", "unseen", "most frequent")
    names = (first, *(("until",) if everything else ()), *measured)
    print_table(names, [_row(row, column is None, everything) for row in records])


def _row(row: Mapping[Any, Any], by_column: bool, everything: bool) -> list[object]:
    until = f"{row['end']:%Y-%m-%d %H:%M}"
    place = [row["column"], *([until] if everything else [])] if by_column else [until]
    numbers = [_number(row[name]) for name in ("mean", "deviation", "q05", "median", "q95")]
    top = ", ".join(f"{value} {count:,}" for value, count in list(row["top"].items())[:3])
    return [*place, f"{row['rows']:,}", _share(row["missing_share"]), *numbers, row["distinct"],
            _share(row["unseen_share"]), top]  # fmt: skip


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    from pydantic import TypeAdapter, ValidationError

    from perennial.definition.values import Duration

    try:
        found: timedelta = TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise click.BadParameter(f"{text!r} is no duration, such as 28d", param_hint="--every") from error
    if found <= timedelta(0):
        raise click.BadParameter("a period is longer than nothing", param_hint="--every")
    return found


def _absent(model: str, column: str | None, known: list[str]) -> Exception:
    import difflib

    from perennial.errors import NotFoundError

    if not known or column is None:
        return NotFoundError(f"no check of {model} has kept statistics yet", f"Check it: `perennial check {model}`")
    near = difflib.get_close_matches(column, known, n=1)
    told = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(sorted(known)[:30])}"
    return NotFoundError(f"no check of {model} has looked at a column {column!r}", told)
