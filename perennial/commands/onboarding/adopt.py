"""`perennial adopt`: the model that is in production today becomes the first champion."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

import click

from perennial.commands.output import print_json
from perennial.commands.running import Moment, announce, as_of_option, json_option


@click.command()
@click.argument("name")
@click.argument("model")
@click.option("--reason", required=True, help="Why; it is kept with the version.")
@click.option("--by", default=None, help="Who says so; default: your user name.")
@click.option("--trained-until", type=Moment(), help="The newest time that it has learned from, if you know it.")
@click.option("--from", "registry", help="The MLflow registry that has MODEL; default: ours.")
@as_of_option
@json_option
def adopt(
    name: str, model: str, reason: str, by: str | None, trained_until: datetime | None, registry: str | None,
    as_of: datetime | None, as_json: bool,
) -> None:  # fmt: skip
    """Make MODEL, fitted elsewhere, the first champion of NAME.

    MODEL is a file (.skops; .joblib or .pkl where the definition allows pickles) or an MLflow address, models:/x@prod.
    """
    from perennial.workspace import open_workspace
    from tasks.adoption.adopt import adopt as run
    from tasks.adoption.adopt import write_unfitted
    from tasks.adoption.finding import find_model
    from tasks.rows.frames import require_ingested

    workspace = open_workspace()
    definition = workspace.definition(name)
    require_ingested(workspace.store, name)
    found = find_model(model, definition, tracking_uri=registry or workspace.settings.mlflow_uri)
    with workspace.retraining(name, wait_seconds=5):
        done = run(
            workspace, definition, found, trained_until=trained_until, by=by or getpass.getuser(), reason=reason,
            as_of=as_of or datetime.now(UTC),
        )  # fmt: skip
    announce(name, done.reign)
    again = definition.folder / f"{name}-adopted.skops"
    if not done.repeatable and not again.exists():
        write_unfitted(found.model, again)
    if as_json:
        print_json(
            {"version": done.version.number, "reasons": done.report.reasons, "metrics": done.report.metrics,
             "unseen_rows": done.unseen_rows, "repeatable": not done.repeatable}
        )  # fmt: skip
        return
    click.echo(f"version {done.version.number} of {name} is champion now: {found.origin}, of {found.digest}")
    for text in done.report.reasons:
        click.echo(f"  {text}")
    if done.repeatable:
        click.echo(
            f"its fit can't be repeated ({done.repeatable}): challengers come from {definition.training.estimator}"
        )
    else:
        click.echo(
            f"its fit can be repeated: `training: {{estimator: {again.name}}}` makes challengers of its kind; as it "
            f"stands, they come from {definition.training.estimator}"
        )
