"""`perennial card`: what is known of a version, as it was written when it became champion, or anew."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from perennial.commands.output import print_json
from perennial.commands.running import json_option


@click.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="Which one; default: the champion.")
@click.option("--write", is_flag=True, help="Write it anew first, with the definition's `card` as it is now.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Save the page as this file.")
@json_option
def card(model: str, number: int | None, write: bool, html: Path | None, as_json: bool) -> None:
    """Show a version's card: purpose, data, quality with intervals, weak segments, limits, gate, approvals."""
    from perennial.cards.writing import HTML_FILE, read_card, write_card
    from perennial.errors import NotFoundError
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition, registry = workspace.definition(model), workspace.registry
    version = registry.champion(model) if number is None else registry.version(model, number)
    if version is None:
        raise NotFoundError(f"{model} never had a champion", f"Train one: `perennial retrain {model}`")
    if write:
        write_card(registry, definition, version, at=datetime.now(UTC))
    text = read_card(registry, version)
    if html is not None:
        html.write_text(read_card(registry, version, HTML_FILE), encoding="utf-8")
    if as_json:
        print_json({"model": model, "version": version.number, "markdown": text})
    elif html is None:
        click.echo(text)
    else:
        click.echo(f"the card of version {version.number} of {model} is in {html}")
