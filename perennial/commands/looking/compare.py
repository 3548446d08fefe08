"""`perennial compare`: two versions on the same rows."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from perennial.commands.output import print_json, print_table
from perennial.commands.running import as_of_option, json_option


@click.command()
@click.argument("model")
@click.argument("left", type=int)
@click.argument("right", type=int)
@as_of_option
@json_option
def compare(model: str, left: int, right: int, as_of: datetime | None, as_json: bool) -> None:
    """Score the newest rows of known truth with versions LEFT and RIGHT, and set their figures side by side."""
    from perennial.workspace import open_workspace
    from tasks.steps.shown.compared import compare_versions, write_comparison

    workspace = open_workspace()
    definition = workspace.definition(model)
    found = compare_versions(workspace, definition, left, right, as_of=as_of or datetime.now(UTC))
    path = write_comparison(workspace, found)
    if as_json:
        print_json(found.to_dict() | {"report": str(path)})
        return
    for side in (found.left, found.right):
        if side.learned:
            click.echo(f"version {side.version} has learned from {side.learned} of these rows, which flatters it")
    metrics = ((name, value, found.right.metrics[name]) for name, value in found.left.metrics.items())
    rows = [(name, *("" if value is None else f"{value:.4g}" for value in values)) for name, *values in metrics]
    print_table(("metric", f"version {left}", f"version {right}"), rows)
    interval = f" [{found.low:.4g}, {found.high:.4g}]" if found.low is not None and found.high is not None else ""
    click.echo(
        f"{found.loss} of version {right} less that of {left}: {found.difference:+.4g}{interval}, on {found.rows} rows "
        f"from {found.start[:10]} to {found.end[:10]}"
    )
