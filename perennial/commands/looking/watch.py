"""`perennial watch`: what the models stand on, by the same flow that runs on a schedule."""

from __future__ import annotations

from datetime import datetime

import click

from perennial.commands.output import print_json
from perennial.commands.running import as_of_option, flow_environment, json_option


@click.command()
@click.argument("model", required=False)
@as_of_option
@json_option
@click.option("--verbose", is_flag=True, help="Show Prefect's log.")
def watch(model: str | None, as_of: datetime | None, as_json: bool, verbose: bool) -> None:
    """Look at the packages, the source's columns and the API's document of MODEL, or of every one with `watch`."""
    from perennial.errors import NotFoundError
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definitions = [workspace.definition(model)] if model else list(workspace.definitions().values())
    names = [item.name for item in definitions if item.watch is not None]
    if not names:
        raise NotFoundError(
            f"{model} has nothing to watch" if model else "no definition has anything to watch",
            "Write `watch: {source: true}` into it, or see the README",
        )
    with flow_environment(verbose=verbose):
        from flows.upkeep.watch import watch as flow

        done = [flow(name, as_of=as_of) for name in names]
    if as_json:
        print_json(done)
        return
    for item in done:
        click.echo(
            f"{item['model']}: {len(item['findings'])} findings" if item["findings"] else f"{item['model']}: as it was"
        )
        for found in item["findings"]:
            click.echo(f"  {'!!' if found['grave'] else '! '} {found['what']}: {found['detail']}")
            click.echo(f"     {found['to do']}.")
