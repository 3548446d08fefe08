"""`perennial up`."""

from __future__ import annotations

import click


@click.command()
def up() -> None:
    """Start Prefect, MLflow and the runner, and keep them running until Ctrl-C."""
    from perennial.operate import supervisor
    from perennial.settings import load_settings

    supervisor.up(load_settings())
