"""`perennial deploy`."""

from __future__ import annotations

import click

from perennial.commands.output import print_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def deploy(as_json: bool) -> None:
    """Register all definitions with the running Prefect server; a second time changes nothing."""
    from perennial.definition import load_definitions
    from perennial.errors import ServiceError
    from perennial.servers import running_prefect, use_prefect
    from perennial.settings import load_settings

    settings = load_settings()
    definitions = load_definitions(settings.model_folders)
    url = running_prefect(settings)
    if url is None:
        wanted = settings.prefect_api_url or f"the server of {settings.home_path}"
        raise ServiceError(f"no Prefect server answers: {wanted}", "Start it with: perennial up")
    with use_prefect(settings, url):
        from deployments.register import register

        changes = register(definitions)
    if as_json:
        print_json(changes)
        return
    for change in changes:
        click.echo(f"{change.action:9} {change.name}")
