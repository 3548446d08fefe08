"""`perennial init`: a definition and a suite from a history, each choice with its reason. What is proposed is below."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

    from tasks.proposal.placing import Places
    from tasks.proposal.propose import Answers, Proposal, Table

LOOK_ROWS = 500_000


class _Delay(click.ParamType[timedelta]):
    """A duration as definitions write it."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from pydantic import TypeAdapter, ValidationError

        from perennial.definition import Duration

        try:
            found: timedelta = TypeAdapter(Duration).validate_python(value)
        except ValidationError:
            self.fail(f"{value!r} is no duration, such as 0s, 12h, 7d or 2w", param, ctx)
        return found


@click.command()
@click.argument("name")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--sql", "table", help="Instead of files: a database's table, NAME or SCHEMA.NAME.")
@click.option("--url-env", help="With --sql: the environment variable that holds the database's URL.")
@click.option("--target", help="The column with the truth.")
@click.option("--time", "time", help="The column with the event's time.")
@click.option("--id", "ids", multiple=True, help="The column that names a row; several times for columns that do so.")
@click.option("--label-delay", type=_Delay(), help="How long after the event the truth is known, such as 7d.")
@click.option("--task", type=click.Choice(["classification", "regression"]), help="Default: by the target's values.")
@click.option("--positive", help="The positive one of two classes.")
@click.option("--estimator", help="Default: linear for small tables, else hist_gradient_boosting.")
@click.option("--without", multiple=True, metavar="COLUMN", help="A column that is no feature; several times.")
@click.option("--description", default="", help="What the model answers, in a sentence.")
@click.option("--yes", is_flag=True, help="Ask nothing: take what is proposed.")
def init(
    name: str, files: tuple[Path, ...], table: str | None, url_env: str | None, target: str | None, time: str | None,
    ids: tuple[str, ...], label_delay: timedelta | None, task: str | None, positive: str | None, estimator: str | None,
    without: tuple[str, ...], description: str, yes: bool,
) -> None:  # fmt: skip
    """Propose a definition and a suite for the model NAME from FILES, a history; write both; try them on it.

    Nothing is overwritten, and nothing is ingested.
    """
    from perennial.settings import load_settings
    from tasks.proposal.placing import places_for, write
    from tasks.proposal.propose import Answers, look_at_table, propose

    settings = load_settings()
    places = places_for(name, settings)
    history = _read(files, table, url_env, places.definition.parent)
    asks = not yes and _is_terminal()
    if not yes and not asks:
        raise click.UsageError("there is no terminal to ask on: give --yes, and flags for what is not to be guessed")
    answers = Answers(
        name, history.source, history.origin, target, time, ids, task, positive, label_delay, estimator, without,
        description,
    )  # fmt: skip
    found = look_at_table(history.frame)
    if asks:
        answers = _ask(found, answers)
    proposal = propose(found, answers, as_of=datetime.now(UTC))
    proposal = _placed(proposal, history, places)
    _tell(proposal)
    if asks:
        click.confirm(f"\nWrite {places.definition} and {places.suite}?", default=True, abort=True)
    for path in write(proposal, places):
        click.echo(f"wrote {path}")
    _rehearse(name, proposal, history, places)


@dataclass(frozen=True)
class _History:
    """A table as it was read.

    Attributes:
        files: Where it lies; none for a database's.
        table: The database's table and the variable with its URL.
    """

    frame: pd.DataFrame
    source: dict[str, str]
    origin: str
    files: tuple[Path, ...] = ()
    table: tuple[str, str] | None = None


def _read(files: Sequence[Path], table: str | None, url_env: str | None, folder: Path) -> _History:
    import pandas as pd

    if bool(files) is bool(table):
        raise click.UsageError("name FILES, or a database's table with --sql")
    if table:
        if not url_env:
            raise click.UsageError("--sql needs --url-env: the environment variable that holds the database's URL")
        from tasks.rows.source import read_sql_table

        frame = read_sql_table(table, url_env, LOOK_ROWS)
        return _History(frame, {}, f"the table {table}", table=(table, url_env))
    from tasks.rows.files import read_untyped

    parts: list[pd.DataFrame] = []
    for path in files:
        if (left := LOOK_ROWS - sum(map(len, parts))) > 0:
            parts.append(read_untyped(path, left))
    frame = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    if len(frame) >= LOOK_ROWS:
        click.echo(f"looked at the first {len(frame):,} rows", err=True)
    paths = tuple(path.resolve() for path in files)
    pattern = _pattern(paths)
    ending = "parquet" if pattern.lower().endswith(".parquet") else "csv"
    written = os.path.relpath(pattern, folder) if Path(pattern).is_relative_to(folder.parent) else pattern
    return _History(frame, {ending: written}, ", ".join(path.name for path in paths), paths)


def _pattern(paths: tuple[Path, ...]) -> str:
    """The path, or the pattern that finds these files and no other."""
    from perennial.errors import DataError

    if len(paths) == 1:
        return str(paths[0])
    first = paths[0]
    names = [path.name for path in paths]
    letters = list(zip(*names, strict=False))
    start = names[0][: next((place for place, found in enumerate(letters) if len(set(found)) > 1), len(letters))]
    pattern = f"{start}*{''.join(first.suffixes[-1:])}"
    together = {path.parent for path in paths} == {first.parent}
    if not together or set(first.parent.glob(pattern)) != set(paths):
        raise DataError(
            "no pattern finds these files and no other", "Put them alone into a folder, or give one of them"
        )
    return str(first.parent / pattern)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(table: Table, answers: Answers) -> Answers:
    """What a person is asked: with what is proposed and why."""
    from tasks.proposal.propose import roles

    names = list(table.looks)
    chosen = roles(table, answers)
    if answers.target is None:
        click.echo(f"The target, what is to be predicted: {chosen['target'].why}.")
        answers = replace(answers, target=_column("target", chosen["target"].columns[0], names))
        chosen = roles(table, answers)
    if answers.time is None and chosen["time"].columns:
        click.echo(f"When each row happened: {chosen['time'].why}.")
        answers = replace(answers, time=_column("time", chosen["time"].columns[0], names))
        chosen = roles(table, answers)
    if not answers.id and chosen["id"].columns:
        click.echo(f"What names a row: {chosen['id'].why}. Several columns with a comma between.")
        text = click.prompt("id", default=", ".join(chosen["id"].columns))
        answers = replace(answers, id=tuple(part.strip() for part in text.split(",") if part.strip()))
    if answers.label_delay is None:
        click.echo(
            "How long after the event the truth is known: a history can't say it, and models are judged only by rows "
            "whose truth had that long to come. 0s: at once."
        )
        answers = replace(answers, label_delay=click.prompt("label delay", default="0s", type=_Delay()))
    return answers


def _column(role: str, default: str, names: list[str]) -> str:
    found: str = click.prompt(role, default=default, type=click.Choice(names), show_choices=len(names) <= 20)
    return found


def _placed(proposal: Proposal, history: _History, places: Places) -> Proposal:
    """The proposal with the source that it will have: of a database a query."""
    from perennial.errors import DataError
    from tasks.proposal.placing import with_source
    from tasks.rows.source import sql_of_table

    if not history.table:
        return with_source(proposal, places)
    table, url_env = history.table
    if proposal.frame is not None:
        raise DataError(
            f"{table} has no column that names a row, or none of times",
            "Make a view that has both, or export it to a file: of a file, a copy with both is made",
        )
    query = sql_of_table(table, proposal.raw["data"]["time"], url_env)
    return with_source(proposal, places, {"sql": query, "url_env": url_env})


def _tell(proposal: Proposal) -> None:
    definition = proposal.definition
    click.echo(f"{definition.name}: {proposal.raw['task']} of {definition.data.target}")
    for path, why in proposal.comments.items():
        value: Any = proposal.raw
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        shown = "" if isinstance(value, dict) else f" = {', '.join(value) if isinstance(value, list) else value}"
        click.echo(f"  {'.'.join(path)}{shown}: {why}")
    for text in proposal.doubts:
        click.echo(f"look at: {text}")
    for text in proposal.caveats:
        click.echo(f"mind: {text}")


def _rehearse(name: str, proposal: Proposal, history: _History, places: Places) -> None:
    """What `validate-config NAME --data FILE` tells, of the first and the last file."""
    from perennial.errors import DataError
    from perennial.workspace import open_workspace
    from tasks.rehearsal.rehearse import rehearse
    from tasks.validation.suites import load_suite

    definition, suite = open_workspace().definition(name), load_suite(places.suite)
    problems = 0
    with tempfile.TemporaryDirectory(prefix="perennial-init-") as folder:
        files = (
            [places.rows]
            if proposal.frame is not None
            else list(dict.fromkeys([*history.files[:1], *history.files[-1:]]))
        )
        if not files:
            files = [Path(folder) / "table.parquet"]
            history.frame.to_parquet(files[0])
        for path in files:
            click.echo(f"\ntried on {path.name}:")
            for line in rehearse(definition, suite, path, as_of=datetime.now(UTC)):
                problems += line.problem
                click.echo(f"{'PROBLEM' if line.problem else 'ok':<8}{line.topic:<8} {line.text}")
    if problems:
        raise DataError(
            f"both files are written, and {problems} problem{'s' * (problems > 1)} stand{'s' * (problems == 1)} above",
            f"Correct them, then `perennial validate-config {name} --data FILE`",
        )
    click.echo(f"""
next:
  perennial ingest {name}
  perennial retrain {name}
  perennial serve""")
