"""`perennial backtest`: policies side by side on a model's own history, and the way of the best one into its YAML."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perennial.commands.output import print_json, print_table
from perennial.commands.running import Moment, json_option

if TYPE_CHECKING:
    from tasks.backtest.comparison import Backtest


class _Duration(click.ParamType[timedelta]):
    """A duration as definitions have it."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from pydantic import TypeAdapter, ValidationError

        from perennial.definition import Duration

        try:
            found: timedelta = TypeAdapter(Duration).validate_python(value)
        except ValidationError:
            self.fail(f"{value!r} is no duration: a number and a unit, such as 12h, 7d or 2w", param, ctx)
        if found <= timedelta(0):
            self.fail(f"{value!r} is not longer than nothing", param, ctx)
        return found


@click.command()
@click.argument("model")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML with keys of `monitoring`; what it leaves out is as in the model's definition. As often as wanted.",
)
@click.option(
    "--from",
    "start",
    type=Moment(),
    help="When the first model is trained. Default: a quarter in, in step with real checks.",
)
@click.option("--until", type=Moment(), help="The end of the last window. Default: that of the labelled rows.")
@click.option("--every", type=_Duration(), help="The time between two checks. Default: monitoring.window.")
@click.option("--tune", is_flag=True, help="Tune at each fit, as live; by default fits use the champion's parameters.")
@click.option("--write", is_flag=True, help="Write the recommended policy into the model's YAML.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Threads, one fit each.")
@json_option
def backtest(
    model: str,
    policies: tuple[Path, ...],
    start: datetime | None,
    until: datetime | None,
    every: timedelta | None,
    tune: bool,
    write: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Replay MODEL's history under its own policy, variants of it and POLICY files; recommend one."""
    from perennial.workspace import open_workspace
    from tasks.backtest.run import backtest_model, write_advice, write_report

    workspace = open_workspace()
    definition = workspace.definition(model)
    with _Bar() as bar:
        found = backtest_model(
            workspace, definition, policies, every=every, start=start, until=until, tune=tune, jobs=jobs,
            progress=bar.update,
        )  # fmt: skip
    paths = write_report(workspace, found)
    if as_json:
        from tasks.backtest.report import to_dict

        written = write_advice(definition, found) if write else []
        print_json(to_dict(found) | paths | {"written": written})
        return
    _tell(found, paths)
    if write:
        written = write_advice(definition, found)
        click.echo("")
        click.echo(f"{definition.path} says now: {', '.join(written)}" if written else "it is the model's own policy:"
                   " nothing was to be written")  # fmt: skip


def _tell(found: Backtest, paths: dict[str, str]) -> None:
    from tasks.backtest.report import COLUMNS, advice_lines, summary, table_rows

    click.echo(summary(found))
    click.echo("")
    print_table(COLUMNS, table_rows(found))
    click.echo("")
    for line in advice_lines(found):
        click.echo(line)
    click.echo(f"Picture: {os.path.relpath(paths['picture'])}")


class _Bar:
    """What a person sees meanwhile, on stderr: a bar on a terminal, a line a moment elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._progress: Any = None
        self._task: Any = None
        self._started = time.monotonic()

    def __enter__(self) -> _Bar:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
            self._task = self._progress.add_task("reading the tables", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, total: int, note: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, description=note)
        else:
            click.echo(f"[{time.monotonic() - self._started:3.0f} s] {done} of {total}: {note}", err=True)
