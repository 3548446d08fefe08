"""`perennial backup` and `restore`."""

from __future__ import annotations

from pathlib import Path

import click

from perennial.commands.output import print_json
from perennial.commands.running import json_option


@click.command()
@click.argument("destination", type=click.Path(file_okay=False, path_type=Path))
@click.option("--without-registry", is_flag=True, help="Leave out a registry that you back up by its own tools.")
@json_option
def backup(destination: Path, without_registry: bool, as_json: bool) -> None:
    """Copy everything that is ours into a new folder, while it runs."""
    from perennial.operate.backup import backup as run
    from perennial.settings import load_settings

    made = run(load_settings(), destination.expanduser().resolve(), without_registry=without_registry)
    if as_json:
        print_json(made)
        return
    click.echo(f"{made.files} files, {made.size_bytes / 2**20:.1f} MiB, {len(made.tables)} tables in {made.place}")
    for line in made.left_out:
        click.echo(f"not in it: {line}")


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def restore(source: Path, as_json: bool) -> None:
    """Put a backup into an empty home, after all its digests were found right."""
    from perennial.operate.backup import check_restored
    from perennial.operate.backup import restore as run
    from perennial.settings import load_settings

    settings = load_settings()
    done = run(settings, source.expanduser().resolve())
    told = [] if done.registry == "left out" else check_restored(settings, done.tables)
    if as_json:
        print_json({"restored": done, "champions": told})
        return
    click.echo(f"{done.files} files, {done.size_bytes / 2**20:.1f} MiB, {len(done.tables)} tables restored")
    for line in told:
        click.echo(line)
    if done.registry == "left out":
        click.echo("the registry is not in this backup: restore it by its own tools, then run: perennial doctor")
