"""`perennial models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from perennial.commands.output import print_json, print_table

if TYPE_CHECKING:
    from perennial.definition import ModelDefinition


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the models as JSON.")
def models(as_json: bool) -> None:
    """List the defined models."""
    from perennial.definition import load_definitions
    from perennial.settings import load_settings

    rows = [_row(definition) for definition in load_definitions(load_settings().model_folders).values()]
    if as_json:
        print_json(rows)
        return
    shown = ("name", "task", "target", "features", "estimator", "monitor", "retrain", "definition")
    print_table(shown, [[row[column] for column in shown] for row in rows])


def _row(definition: ModelDefinition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "task": definition.task,
        "description": definition.description,
        "target": definition.data.target,
        "features": len(definition.features.columns),
        "estimator": definition.training.estimator,
        "monitor": definition.monitoring.schedule,
        "retrain": definition.retraining.schedule,
        "ingest": definition.ingestion.schedule,
        "score": definition.scoring.schedule,
        "definition": definition.hash,
        "path": definition.path,
    }
