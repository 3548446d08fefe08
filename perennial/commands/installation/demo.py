"""`perennial demo`: a year of flights through the real flows, shown as it goes, told at the end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perennial.commands.output import print_json, print_table
from perennial.errors import PerennialError

if TYPE_CHECKING:
    from flows.replay import ReplayStep
    from perennial.workspace import Workspace
    from tasks.steps.timeline import Timeline

MODEL = "flights"
START = datetime(2013, 4, 1, tzinfo=UTC)
ALL_WEEKS = 39
_SHOWN_WEEKS = 12


@click.command()
@click.option("--weeks", type=click.IntRange(1, ALL_WEEKS), default=ALL_WEEKS, show_default=True)
@click.option("--fresh", is_flag=True, help="Forget an earlier demo and start anew; by default it goes on.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def demo(weeks: int, fresh: bool, as_json: bool) -> None:
    """Replay the flights that left New York in 2013 through the real flows, week by week."""
    from perennial.settings import load_settings
    from perennial.state.files import exclusive

    home = load_settings().home_path / "demo"
    with exclusive(home.parent / "locks", "demo", wait_seconds=0, busy=f"a demo is running in {home}"):
        if fresh:
            _forget(home)
        os.environ["PERENNIAL_HOME"] = str(home)
        with _untold_interruption(home):
            timeline, paths = _replay(weeks)
    if as_json:
        print_json(_summary(timeline, paths))
        return
    _tell(timeline, paths, home)


def _replay(weeks: int) -> tuple[Timeline, dict[str, str]]:
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    from perennial.operate.servers import prefect_server
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    show = _Progress(weeks)
    show.note("starting Prefect's server (the first time it makes its database)")
    with prefect_server(workspace.settings), show:
        from flows.replay import replay, start_history

        for note in start_history(workspace, MODEL, as_of=START):
            show.note(note)
        moments = [START + timedelta(weeks=week) for week in range(1, weeks + 1)]
        for step in replay(workspace, MODEL, moments):
            show.step(workspace, step)
    return _write_story(workspace, moments[-1])


def _write_story(workspace: Workspace, until: datetime) -> tuple[Timeline, dict[str, str]]:
    from tasks.steps.timeline import build_timeline, draw_timeline, picture_bytes, render_page

    definition = workspace.definition(MODEL)
    timeline = build_timeline(workspace, definition, as_of=until)
    picture = picture_bytes(draw_timeline(timeline))
    folder = workspace.reports_folder(MODEL)
    paths = {"picture": folder / "timeline.png", "page": folder / "timeline.html"}
    paths["picture"].write_bytes(picture)
    paths["page"].write_text(render_page(timeline, picture), encoding="utf-8")
    return timeline, {name: str(path) for name, path in paths.items()}


class _Progress:
    """What a person sees meanwhile: a bar and the last weeks on a terminal, a line a week elsewhere."""

    def __init__(self, weeks: int) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._weeks = weeks
        self._started = time.monotonic()
        self._rows: list[tuple[str, ...]] = []
        self._note = ""
        self._live: Any = None

    def __enter__(self) -> _Progress:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(self._render(), console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        self._note = text
        if self._live is not None:
            self._live.update(self._render())
        else:
            click.echo(f"[{self._seconds():3.0f} s] {text}", err=True)

    def step(self, workspace: Workspace, step: ReplayStep) -> None:
        row = _week_row(workspace, step)
        self._rows.append(row)
        if self._live is not None:
            self._live.update(self._render())
        else:
            click.echo(f"[{self._seconds():3.0f} s] week {len(self._rows):2}: " + "  ".join(row), err=True)

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done = len(self._rows)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            f"week {done} of {self._weeks}", ProgressBar(self._weeks, done, width=40), f"{self._seconds():.0f} s"
        )
        table = Table(
            "until", "verdict", "champion", "retraining", "why", box=None, pad_edge=False, header_style="bold"
        )
        colours = {"hold": "dim", "retrain": "yellow", "recalibrate": "cyan", "repair": "red"}
        for row in self._rows[-_SHOWN_WEEKS:]:
            table.add_row(
                *(Text(cell, overflow="ellipsis", no_wrap=True) for cell in row), style=colours.get(row[1], "")
            )
        return Group(bar, table) if done else Group(bar, Text(self._note, style="dim"))


def _week_row(workspace: Workspace, step: ReplayStep) -> tuple[str, ...]:
    decision = step.decision or {}
    reign = workspace.registry.reign(MODEL, as_of=step.as_of)
    outcome = (step.retraining or {}).get("gate") or (step.retraining or {}).get("gate_verdict") or ""
    reasons = decision.get("reasons") or [""]
    return (
        f"{step.as_of:%Y-%m-%d}",
        decision.get("verdict", ""),
        f"v{reign.version if reign else '-'}",
        outcome,
        reasons[0],
    )


def _summary(timeline: Timeline, paths: dict[str, str]) -> dict[str, Any]:
    verdicts = {verdict: timeline.count(verdict) for verdict in ("hold", "recalibrate", "retrain", "repair")}
    return {
        "weeks": len(timeline.periods),
        "verdicts": verdicts,
        "retrainings": timeline.runs("retrain")[0],
        "retrained_promotions": timeline.runs("retrain")[1],
        "recalibrations": timeline.runs("recalibrate")[0],
        "recalibrated_promotions": timeline.runs("recalibrate")[1],
        "live": timeline.live,
        "never_retrained": timeline.first,
        **paths,
    }


def _tell(timeline: Timeline, paths: dict[str, str], home: Path) -> None:
    summary = _summary(timeline, paths)
    told = ", ".join(f"{count} {verdict}" for verdict, count in summary["verdicts"].items() if count)
    click.echo("")
    print_table(
        ("weeks", "verdicts", "retrained", "of them promoted", "recalibrated", "of them promoted"),
        [
            (
                summary["weeks"],
                told,
                summary["retrainings"],
                summary["retrained_promotions"],
                summary["recalibrations"],
                summary["recalibrated_promotions"],
            )
        ],
    )
    click.echo("")
    shown = [name for name in ("log_loss", "roc_auc", "brier", "rmse", "mae", "r2") if name in timeline.live]
    print_table(
        ("quality on the weeks whose truth is known", *shown),
        [
            ("the live champion", *(f"{timeline.live[name]:.4f}" for name in shown)),
            ("the first one, never retrained", *(f"{timeline.first[name]:.4f}" for name in shown)),
        ],
    )
    place = os.path.relpath(home)
    program = os.path.relpath(sys.argv[0]) if Path(sys.argv[0]).name == "perennial" else "perennial"
    click.echo(f"""
The year's story   {os.path.relpath(paths["page"])}
as a picture       {os.path.relpath(paths["picture"])}

Look around:       {program} --home {place} up     then open the Prefect and MLflow pages that it names
Every decision:    {program} --home {place} ledger {MODEL}
Who was champion:  {program} --home {place} history {MODEL}
Your own model:    .venv/bin/perennial init NAME FILE    see docs/first-week.md""")


def _forget(home: Path) -> None:
    import shutil

    if home.exists():
        shutil.rmtree(home)


@contextmanager
def _untold_interruption(home: Path) -> Iterator[None]:
    """Say how to go on, whatever ends the demo half-way."""

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started us with the first one ignored
        signal.signal(number, stop)
    try:
        yield
    except (KeyboardInterrupt, PerennialError):
        click.echo(f"the demo stopped half-way; what it did is in {home}: `perennial demo` goes on there", err=True)
        raise
    finally:
        sys.stderr.flush()
