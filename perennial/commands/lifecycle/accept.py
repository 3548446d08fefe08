"""`perennial accept`: a person says that what a `repair` complained of is as it should be."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

import click

from perennial.commands.output import print_json
from perennial.commands.running import json_option


@click.command()
@click.argument("model")
@click.argument("decision_id")
@click.option("--by", default=None, help="Who says so; default: your user name.")
@click.option("--reason", required=True, help="Why the data is right; it is kept in the ledger.")
@json_option
def accept(model: str, decision_id: str, by: str | None, reason: str, as_json: bool) -> None:
    """Accept the data that the decision called broken: it stops nothing any more, for this champion."""
    from perennial.errors import NotFoundError
    from perennial.workspace import open_workspace
    from tasks.check.history import acceptance_row

    workspace = open_workspace()
    workspace.definition(model)
    ledger, now = workspace.ledger(model), datetime.now(UTC)
    found = [entry for entry in ledger.entries() if entry["decision_id"].startswith(decision_id)]
    if len(found) != 1 or not any(s["kind"] == "health" and s["fired"] for s in found[0]["signals"]):
        raise NotFoundError(
            f"{decision_id!r} names no decision of {model} that complains of its data",
            f"See `perennial ledger {model}`",
        )
    entry = found[0]
    at = max(now, datetime.fromisoformat(entry["as_of"]))
    row = acceptance_row(entry["decision_id"], at, by=by or getpass.getuser(), reason=reason)
    written = ledger.accept(row, recorded_at=now)
    if as_json:
        print_json(row | {"written": written})
        return
    click.echo("accepted" if written else "it was accepted already")
