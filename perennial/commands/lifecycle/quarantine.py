"""`perennial quarantine`: what was refused and why; what passes by now goes in, what never will is discarded."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from perennial.commands.output import print_json, print_table
from perennial.commands.running import as_of_option, json_option

if TYPE_CHECKING:
    from perennial.definition import ModelDefinition
    from perennial.workspace import Workspace
    from tasks.steps.quarantine import Chosen


@click.command()
@click.argument("model")
@click.argument("action", type=click.Choice(["list", "show", "release", "discard"]), default="list")
@click.option("--id", "ids", multiple=True, help="Only the rows of this id; may be given several times.")
@click.option("--rule", help="Only rows whose rule has this text in it, such as a column's name.")
@click.option("--batch", help="Only the rows of this delivery, as `show` names it.")
@click.option("--entry", "names", multiple=True, help="Only this entry of `show`; may be given several times.")
@click.option("--all", "every", is_flag=True, help="discard: every open row. show: closed ones too.")
@click.option("--limit", type=int, default=20, show_default=True, help="show: so many rows.")
@click.option("--by", default=None, help="Who says so; default: your user name.")
@click.option("--reason", default="", help="Why; to discard it is required, and kept.")
@as_of_option
@json_option
def quarantine(
    model: str, action: str, ids: tuple[str, ...], rule: str | None, batch: str | None, names: tuple[str, ...],
    every: bool, limit: int, by: str | None, reason: str, as_of: datetime | None, as_json: bool,
) -> None:  # fmt: skip
    """List refused rows by reason and age, show them, release what passes now, or discard rows for good."""
    from perennial.workspace import open_workspace
    from tasks.steps.quarantine import Chosen

    workspace = open_workspace()
    definition, chosen = workspace.definition(model), Chosen(names, ids, rule, batch)
    at, by = as_of or datetime.now(UTC), by or getpass.getuser()
    if action == "list":
        _list(workspace, definition, at, as_json)
    elif action == "show":
        _show(workspace, definition, chosen, every, limit, as_json)
    elif action == "release":
        _release(workspace, definition, chosen, at, by, reason, as_json)
    else:
        if chosen == Chosen() and not every:
            raise click.UsageError("discard needs --id, --rule, --batch or --entry; or --all for every open row")
        _discard(workspace, definition, chosen, at, by, reason, as_json)


def _list(workspace: Workspace, definition: ModelDefinition, at: datetime, as_json: bool) -> None:
    from tasks.intake.quarantine import age_text, overview

    found = overview(workspace.store, definition)
    if as_json:
        print_json(found.to_dict())
        return
    if found.rules:
        how = {"row": "by row", "batch": "with its batch"}
        print_table(
            ("rows", "refused", "since", "last", "why"),
            [
                (item.rows, how[item.scope], age_text(at - item.oldest), age_text(at - item.newest), item.rule)
                for item in found.rules
            ],
        )
    closed = "".join(f", {count} {state}" for state, count in sorted(found.closed.items()))
    click.echo(f"{found.open} rows open{closed}")


def _show(
    workspace: Workspace, definition: ModelDefinition, chosen: Chosen, every: bool, limit: int, as_json: bool
) -> None:
    from tasks.intake.quarantine import OPEN, entries

    found = entries(workspace.store, definition, with_rows=True)
    found = chosen.among(found if every else found[found["state"] == OPEN])
    shown = [_plain_entry(line) for line in found.head(limit).to_dict("records")]
    if as_json:
        print_json({"rows": len(found), "entries": shown})
        return
    for line in shown:
        state = line["state"] if line["state"] == OPEN else f"{line['state']} by {line['by']}: {line['why']}"
        came = f"from {line['source']} on {line['first_at']:%Y-%m-%d %H:%M}, batch {line['batch_id']}"
        click.echo(
            f"{line['entry']}  id {line['id'] or '-'}  {state}  {came}"
            f"\n  why: {line['reasons']}\n  row: {json.dumps(line['row'], ensure_ascii=False)}"
        )
    click.echo(f"{len(shown)} of {len(found)} rows" + ("; more with --limit" if len(shown) < len(found) else ""))


def _plain_entry(line: dict[Any, Any]) -> dict[str, Any]:
    plain = {str(name): None if value != value else value for name, value in line.items()}
    return plain | {"row": json.loads(line["row"]), "rules": json.loads(line["rules"])}


def _release(
    workspace: Workspace, definition: ModelDefinition, chosen: Chosen, at: datetime, by: str, reason: str, as_json: bool
) -> None:
    from tasks.steps.quarantine import release
    from tasks.validation.suites import find_suite, load_suite

    suite = load_suite(find_suite(definition.name, workspace.settings.expectation_folders))
    with workspace.ingesting(definition.name, wait_seconds=60):
        done = release(workspace.store, definition, suite, chosen, as_of=at, by=by, reason=reason)
    if as_json:
        print_json(asdict(done))
        return
    click.echo(
        f"{done.released} of {done.tried} rows released, {done.known} known already, {done.held} stay in quarantine, "
        f"{done.labels} labels"
    )
    for sentence in done.learnt:
        click.echo(sentence)
    for sentence in done.told:
        click.echo(f"stays: {sentence}")


def _discard(
    workspace: Workspace, definition: ModelDefinition, chosen: Chosen, at: datetime, by: str, reason: str, as_json: bool
) -> None:
    from tasks.steps.quarantine import discard

    with workspace.ingesting(definition.name, wait_seconds=60):
        count = discard(workspace.store, definition, chosen, at=at, by=by, reason=reason)
    if as_json:
        print_json({"discarded": count})
        return
    click.echo(f"{count} rows discarded")
