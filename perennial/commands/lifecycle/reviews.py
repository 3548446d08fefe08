"""`perennial reviews`: what people are asked to look at, their answers, and Label Studio's files, both ways."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perennial.commands.output import print_json, print_table
from perennial.commands.running import as_of_option, flow_environment, json_option

if TYPE_CHECKING:
    from perennial.definition import ModelDefinition
    from perennial.review.desk import Asked
    from perennial.workspace import Workspace

_ARGUMENTS = {"answer": ("ID", "[TRUTH]"), "export": ("FILE",), "import": ("FILE",)}


@click.command()
@click.argument("model")
@click.argument("action", type=click.Choice(["list", "answer", "export", "import", "people", "fill"]), default="list")
@click.argument("arguments", nargs=-1, metavar="[ID [TRUTH] | FILE]")
@click.option("--by", default=None, help="Who answers, or is asked; default: your user name.")
@click.option("--skip", is_flag=True, help="answer: leave this row to others.")
@click.option("--cannot-tell", is_flag=True, help="answer: nobody could say what is true.")
@click.option("--undo", is_flag=True, help="answer: take your last answer to this row back.")
@click.option("--gold", is_flag=True, help="answer: this truth is known for sure; people may be judged by it.")
@click.option("--seconds", type=float, help="answer: how long it took.")
@click.option("--note", default="", help="answer: what is worth to know about it.")
@click.option("--author", "authors", multiple=True, help="import: NUMBER=NAME of an annotator; may be given again.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="list: so many rows.")
@as_of_option
@json_option
def reviews(
    model: str, action: str, arguments: tuple[str, ...], by: str | None, skip: bool, cannot_tell: bool, undo: bool,
    gold: bool, seconds: float | None, note: str, authors: tuple[str, ...], limit: int, as_of: datetime | None,
    as_json: bool,
) -> None:  # fmt: skip
    """List what you are asked to look at; answer it; or take all to Label Studio and its answers back.

    \b
    reviews MODEL                        what waits for you
    reviews MODEL answer ID TRUTH        the truth of a row, in the words of the data
    reviews MODEL export FILE.json       tasks for Label Studio, with its labelling page beside
    reviews MODEL import FILE.json       its annotations, exported as JSON
    reviews MODEL people                 how people answered, and how far they agree
    reviews MODEL fill                   put today's predictions up now
    """
    _require_arguments(action, arguments)
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition, at, who = workspace.definition(model), as_of or datetime.now(UTC), by or getpass.getuser()
    if action == "list":
        _list(workspace, definition, who, limit, at, as_json)
    elif action == "answer":
        raw: dict[str, Any] = {"id": arguments[0], "seconds": seconds, "note": note}
        raw |= {"truth": arguments[1]} if len(arguments) > 1 else {}
        raw |= {name: True for name, said in (("skip", skip), ("cannot_tell", cannot_tell), ("undo", undo)) if said}
        _answer(workspace, definition, raw, who, gold, at, as_json)
    elif action == "export":
        _export(workspace, definition, Path(arguments[0]), at, as_json)
    elif action == "import":
        _import(workspace, definition, Path(arguments[0]), authors, at, as_json)
    elif action == "people":
        _people(workspace, definition, at, as_json)
    else:
        _fill(definition, as_of, as_json)


def _require_arguments(action: str, arguments: tuple[str, ...]) -> None:
    wanted = _ARGUMENTS.get(action, ())
    least = sum(not name.startswith("[") for name in wanted)
    if not least <= len(arguments) <= len(wanted):
        told = f"{action} {' '.join(wanted)}" if wanted else f"{action}, without more"
        raise click.UsageError(f"write: reviews MODEL {told}")


def _list(workspace: Workspace, definition: ModelDefinition, who: str, limit: int, at: datetime, as_json: bool) -> None:
    from tasks.steps.review.answers import desk_of

    desk = desk_of(workspace.store, definition)
    shown, waiting = desk.ask(who, at, limit)
    if as_json:
        print_json({"model": definition.name, "author": who, "waiting": waiting, "items": shown})
        return
    if shown:
        columns = ("id", "time", *(() if definition.review.hide_score else ("model says",)), "again", "row")
        print_table(columns, [_cells(item, definition) for item in shown])
    if shown and shown[0].choices:
        click.echo(f"answer with {' or '.join(map(repr, shown[0].choices))}: reviews {definition.name} answer ID TRUTH")
    click.echo(f"{waiting} rows wait for {who}" + (f"; {limit} are shown" if waiting > limit else ""))


def _cells(item: Asked, definition: ModelDefinition) -> tuple[object, ...]:
    row = ", ".join(f"{name} {value}" for name, value in item.features.items() if value is not None)
    moment = f"{item.time:%Y-%m-%d %H:%M}"
    said = "-" if item.score is None else f"{item.score:.3f}"
    score = () if definition.review.hide_score else (said if item.predicted is None else f"{item.predicted} ({said})",)
    return (item.id, moment, *score, "people disagree" if item.again else "", row)


def _answer(
    workspace: Workspace, definition: ModelDefinition, raw: dict[str, Any], who: str, gold: bool, at: datetime,
    as_json: bool,
) -> None:  # fmt: skip
    from datetime import timedelta

    from perennial.review.events import Known
    from tasks.steps.review.answers import answer, desk_of

    desk = desk_of(workspace.store, definition)
    read = desk.read(raw, at=at, author=who)
    if gold and read.truth is None:
        raise click.UsageError("--gold needs a TRUTH")
    known = [Known(read.id, at + timedelta(microseconds=1), who, read.truth)] if gold and read.truth else []
    done = answer(desk, [read], known)
    if as_json:
        print_json(done)
        return
    state = desk.items(at + timedelta(seconds=1), [read.id])[read.id].state
    told = "written down" if done.written else "known already"
    # Whoever is asked about a gold row is not to learn that it was one.
    shown = "settled" if state == "gold" and not gold else state
    click.echo(f"{told}; {done.labels} labels; {read.id} is {shown}")


def _export(workspace: Workspace, definition: ModelDefinition, target: Path, at: datetime, as_json: bool) -> None:
    from tasks.steps.review.exchange import export_tasks

    done = export_tasks(workspace, definition, target, as_of=at)
    if as_json:
        print_json(done)
        return
    click.echo(f"{done.count} tasks in {done.tasks}; the labelling page for the project's settings: {done.page}")


def _import(
    workspace: Workspace, definition: ModelDefinition, source: Path, authors: tuple[str, ...], at: datetime,
    as_json: bool,
) -> None:  # fmt: skip
    from tasks.steps.review.exchange import import_annotations

    named = dict(pair.split("=", 1) for pair in authors if "=" in pair)
    if len(named) < len(authors):
        raise click.UsageError("write --author NUMBER=NAME, once for each annotator")
    done = import_annotations(workspace, definition, source, authors=named, as_of=at)
    if as_json:
        print_json(done)
        return
    gold = f", {done.gold} rows of known truth" if done.gold else ""
    click.echo(
        f"{done.written} answers of {', '.join(done.authors) or 'nobody'}, {done.unchanged} known already, "
        f"{done.labels} labels{gold}"
    )


def _people(workspace: Workspace, definition: ModelDefinition, at: datetime, as_json: bool) -> None:
    from tasks.review.people import told
    from tasks.steps.review.answers import people

    found = people(workspace.store, definition, as_of=at)
    if as_json:
        print_json(found)
        return
    columns = ("who", "answers", "can't tell", "skipped", "changed", "median s", "gold right", "as settled")
    print_table(
        columns,
        [
            (
                one.name, one.answers, one.cannot_tell, one.skipped, one.changed,
                None if one.seconds is None else f"{one.seconds:.1f}",
                None if one.gold_interval is None
                else f"{one.gold_right} of {one.gold} [{one.gold_interval[0]:.0%}, {one.gold_interval[1]:.0%}]",
                f"{one.with_settled} of {one.settled}" if one.settled else None,
            )
            for one in found.people
        ],
    )  # fmt: skip
    for sentence in told(found):
        click.echo(sentence)


def _fill(definition: ModelDefinition, as_of: datetime | None, as_json: bool) -> None:
    with flow_environment():
        from flows.review import review

        done = review(definition.name, as_of=as_of)
    if as_json:
        print_json(done)
        return
    told = done["told"] or ", ".join(f"{count} {reason}" for reason, count in sorted(done["put_up"].items()))
    click.echo(f"put up: {told}" if done["put_up"] else told)
