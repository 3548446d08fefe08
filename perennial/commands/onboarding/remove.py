"""`perennial remove`: shows what a model has, makes a backup, asks, and takes it away."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from perennial.commands.output import print_json, print_table
from perennial.commands.running import json_option


@click.command()
@click.argument("name")
@click.option(
    "--backup", "destination", type=click.Path(file_okay=False, path_type=Path),
    help="Where the backup of everything goes; default: a new folder beside the home.",
)  # fmt: skip
@click.option("--without-backup", is_flag=True, help="Make none: there is one, or nothing is wanted back.")
@click.option("--dry-run", is_flag=True, help="Show what there is, and end.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def remove(name: str, destination: Path | None, without_backup: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Take the model NAME away: tables, versions, runs, reports. Definition and suite are moved into the home."""
    from perennial.operate.backup import backup
    from perennial.operate.removal import parts
    from perennial.operate.removal import remove as run
    from perennial.settings import load_settings

    settings, at = load_settings(), datetime.now(UTC)
    found = parts(settings, name)
    if as_json and dry_run:
        print_json(found)
        return
    if not as_json:
        print_table(("what", "where", "how much"), [(part.kind, part.place, part.detail) for part in found])
    if dry_run:
        return
    home = settings.home_path
    place = (destination or home.with_name(f"{home.name}-before-removing-{name}-{at:%Y%m%dT%H%M%S}")).resolve()
    told = "no backup is made" if without_backup else f"a backup of everything goes to {place} first"
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask on: give --yes, or --dry-run")
        click.confirm(f"Remove all of this? {told[0].upper()}{told[1:]}.", abort=True)
    made = None if without_backup else backup(settings, place)
    kept = run(settings, name, at=at)
    if as_json:
        print_json({"removed": found, "backup": None if made is None else made.place, "kept": kept})
        return
    if made is not None:
        click.echo(f"backup: {made.place}, {made.files} files: `perennial restore` puts it into an empty home")
    click.echo(f"removed: {name}; its definition and suite are in {kept}")
    click.echo("what still knows it: an API, until it is started anew; a Prefect server, until `perennial deploy`")
