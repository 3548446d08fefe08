"""`perennial approve` and `perennial refuse`: a person's answer where `gate.approval` is `human`."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

import click

from perennial.commands.output import print_json
from perennial.commands.running import json_option

_version = click.option("--version", "number", type=int, help="Which one; default: the newest that waits.")
_by = click.option("--by", default=None, help="Who says so; default: your user name.")
_reason = click.option("--reason", required=True, help="Why; it is kept with the version.")


@click.command()
@click.argument("model")
@_version
@_by
@_reason
@json_option
def approve(model: str, number: int | None, by: str | None, reason: str, as_json: bool) -> None:
    """Promote the version that waits for a person."""
    from perennial.approval import approve as let_in
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition = workspace.definition(model)
    reign = let_in(
        workspace.registry, model, number, by=by or getpass.getuser(), reason=reason, at=datetime.now(UTC),
        expires=definition.gate.approval_expires,
    )  # fmt: skip
    if as_json:
        print_json(reign)
        return
    click.echo(f"version {reign.version} of {model} is champion now")


@click.command()
@click.argument("model")
@_version
@_by
@_reason
@json_option
def refuse(model: str, number: int | None, by: str | None, reason: str, as_json: bool) -> None:
    """Refuse the version that waits for a person; the champion stays."""
    from perennial.approval import refuse as keep_out
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    workspace.definition(model)
    version = keep_out(workspace.registry, model, number, by=by or getpass.getuser(), reason=reason)
    if as_json:
        print_json({"model": model, "version": version.number, "approval": "refused"})
        return
    click.echo(f"version {version.number} of {model} is refused; the champion stays")
