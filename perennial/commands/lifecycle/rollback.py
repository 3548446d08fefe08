"""`perennial rollback`."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

import click

from perennial.commands.output import print_json
from perennial.commands.running import announce, json_option


@click.command()
@click.argument("model")
@click.option("--to", "version", type=int, help="The version to go back to; default: the champion before this one.")
@click.option("--reason", default="rolled back by hand", show_default=True)
@click.option("--by", default=None, help="Who says so; default: your user name.")
@json_option
def rollback(model: str, version: int | None, reason: str, by: str | None, as_json: bool) -> None:
    """Make an earlier champion the champion again."""
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    workspace.definition(model)
    now = datetime.now(UTC)
    reign = workspace.registry.rollback(
        model, to=version, at=now, recorded_at=now, by=by or getpass.getuser(), reason=reason
    )
    announce(model, reign)
    if as_json:
        print_json(reign)
        return
    click.echo(f"version {reign.version} of {model} is champion again, instead of version {reign.previous}")
