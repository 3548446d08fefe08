"""`perennial deploy`: how the command reads its options and tells what changes. What changes is in `deployments`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perennial.commands.output import print_json

if TYPE_CHECKING:
    from deployments.changes import Change
    from deployments.pools import Pool
    from perennial.definition import ModelDefinition
    from perennial.settings import Settings


@click.command()
@click.option("--pool", help="Register with this work pool, whose workers execute the runs; as PERENNIAL_POOL.")
@click.option(
    "--pool-type",
    type=click.Choice(["process", "docker", "kubernetes"]),
    help="Make the pool, or bring it in line with our base job template.",
)
@click.option(
    "--pool-template",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --pool-type: a base job template of your own.",
)
@click.option("--image", help="The image that the pool runs, instead of its template's; as PERENNIAL_IMAGE.")
@click.option("--dry-run", is_flag=True, help="Only show what would change: + made, ~ changed, - removed, = left.")
@click.option(
    "--prefect-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Only write this prefect.yaml, for Prefect's own `prefect deploy --all`; no server is asked.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def deploy(
    pool: str | None,
    pool_type: Any,
    pool_template: Path | None,
    image: str | None,
    dry_run: bool,
    prefect_file: Path | None,
    as_json: bool,
) -> None:
    """Register definitions and automations with the running Prefect server; a second time changes nothing."""
    from perennial.definition import load_definitions
    from perennial.settings import load_settings

    settings = load_settings()
    definitions = load_definitions(settings.model_folders)
    if prefect_file is not None:
        _write(prefect_file, definitions, pool, image)
        return
    pool, image = pool or settings.pool, image or settings.image
    if pool is None and (pool_type or image):
        raise click.UsageError("--pool-type and --image need --pool")
    if pool_template and not pool_type:
        raise click.UsageError("--pool-template needs --pool-type")
    from deployments.pools import Pool

    chosen = Pool(pool, pool_type, image, pool_template) if pool else None
    changes = _register(settings, definitions, chosen, dry_run)
    if as_json:
        print_json(changes)
        return
    for change in changes:
        click.echo(change.line())
    if dry_run:
        count = sum(change.action != "unchanged" for change in changes)
        click.echo(f"{count} of {len(changes)} would change" if count else "nothing would change")


def _register(
    settings: Settings, definitions: Mapping[str, ModelDefinition], pool: Pool | None, dry_run: bool
) -> list[Change]:
    from deployments.automation_config import load_automations
    from perennial.errors import ServiceError
    from perennial.operate.identity import prefect_claim
    from perennial.operate.servers import use_prefect

    automations = load_automations(settings.model_folders, definitions)
    claim = prefect_claim(settings)
    if claim.url is None or claim.refuted:
        wanted = claim.refuted or f"no Prefect server runs for {settings.home_path}"
        remedy = "perennial up, with PERENNIAL_PREFECT_PORT set to a free port" if claim.foreign else "perennial up"
        raise ServiceError(wanted, f"Start it with: {remedy}")
    with use_prefect(settings, claim.url):
        from deployments.register import register

        return register(definitions, automations=automations, pool=pool, dry_run=dry_run)


def _write(path: Path, definitions: Mapping[str, ModelDefinition], pool: str | None, image: str | None) -> None:
    from deployments.prefect_file import render

    path.write_text(render(definitions, pool=pool, image=image), encoding="utf-8")
    click.echo(f"wrote {path}")
