"""`perennial migrate`."""

from __future__ import annotations

import click


@click.command()
def migrate() -> None:
    """Bring home and tables to this version's layout; a second time changes nothing."""
    from perennial.settings import load_settings
    from perennial.state.layout import LAYOUT_VERSION
    from perennial.state.layout import migrate as run

    told = False
    for line in run(load_settings()):
        told = True
        click.echo(line)
    if not told:
        click.echo(f"nothing to do: home and tables have layout {LAYOUT_VERSION}")
