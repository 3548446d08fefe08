"""`perennial approve` and `perennial refuse`: a person's answer where `gate.approval` is `human`."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import UTC, datetime

import click

from perennial.commands.output import print_json
from perennial.commands.running import announce, json_option


def _answer(command: Callable[..., None]) -> Callable[..., None]:
    """What every answer of a person takes."""
    for option in (
        json_option,
        click.option("--reason", required=True, help="Why; it is kept with the version."),
        click.option("--by", default=getpass.getuser, help="Who says so; default: your user name."),
        click.option("--version", "number", type=int, help="Which one; default: the newest that waits."),
        click.argument("model"),
    ):
        command = option(command)
    return command


@click.command()
@_answer
def approve(model: str, number: int | None, by: str, reason: str, as_json: bool) -> None:
    """Promote the version that waits for a person."""
    from perennial.state.approval import approve as let_in
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition = workspace.definition(model)
    reign = let_in(
        workspace.registry, model, number, by=by, reason=reason, at=datetime.now(UTC),
        expires=definition.gate.approval_expires,
    )  # fmt: skip
    announce(model, reign)
    if as_json:
        print_json(reign)
        return
    click.echo(f"version {reign.version} of {model} is champion now")


@click.command()
@_answer
def refuse(model: str, number: int | None, by: str, reason: str, as_json: bool) -> None:
    """Refuse the version that waits for a person; the champion stays."""
    from perennial.state.approval import refuse as keep_out
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    workspace.definition(model)
    version = keep_out(workspace.registry, model, number, by=by, reason=reason)
    if as_json:
        print_json({"model": model, "version": version.number, "approval": "refused"})
        return
    click.echo(f"version {version.number} of {model} is refused; the champion stays")
