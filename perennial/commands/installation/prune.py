"""`perennial prune`: what nobody needs any more goes, by the same flow that runs on a schedule."""

from __future__ import annotations

from datetime import datetime

import click

from perennial.commands.output import print_json
from perennial.commands.running import as_of_option, flow_environment, json_option


@click.command()
@click.argument("model", required=False)
@click.option("--dry-run", is_flag=True, help="Remove nothing, only say what would go.")
@as_of_option
@json_option
@click.option("--verbose", is_flag=True, help="Show Prefect's log.")
def prune(model: str | None, dry_run: bool, as_of: datetime | None, as_json: bool, verbose: bool) -> None:
    """Remove old versions, rows, files and pages of MODEL, or of every model, as `retention` says."""
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    names = [workspace.definition(model).name] if model else list(workspace.definitions())
    with flow_environment(verbose=verbose):
        from flows.upkeep.prune import prune as flow

        done = [flow(name, as_of=as_of, dry_run=dry_run) for name in names]
    if as_json:
        print_json(done)
        return
    from tasks.upkeep.freed import Freed, freed_text, size_text

    for item in done:
        freed = [Freed(**kind) for kind in item["freed"]]
        click.echo(f"{item['model']}: {freed_text(freed, dry_run=dry_run)}")
        for kind in freed:
            if kind.count:
                notes = f"  ({', '.join(kind.notes)})" if kind.notes else ""
                click.echo(f"  {kind.count:>8,} {kind.what}, {size_text(kind.size_bytes)}{notes}")
