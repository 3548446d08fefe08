"""`perennial migrate`."""

from __future__ import annotations

import click


@click.command()
def migrate() -> None:
    """Bring home and tables to this version's layout, and a copied or moved home to its new place.

    A second time changes nothing.
    """
    from perennial.settings import load_settings
    from perennial.state.layout import LAYOUT_VERSION
    from perennial.state.layout import migrate as run
    from perennial.workspace import Workspace

    settings, told = load_settings(), False
    for line in run(settings):
        told = True
        click.echo(line)
    for model in Workspace(settings).settle():  # manifests name the artifacts' places too
        if told:
            click.echo(f"{model}: aliases and the API's manifest are as the history says")
    if not told:
        click.echo(f"nothing to do: home and tables have layout {LAYOUT_VERSION}")
