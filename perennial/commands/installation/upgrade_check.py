"""`perennial upgrade-check`: what other packages would change in the models' answers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from perennial.commands.output import print_json
from perennial.commands.running import as_of_option, json_option

_TOLD = 12


@click.command("upgrade-check")
@click.argument("lock", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("models", nargs=-1)
@click.option("--whole", is_flag=True, help="Install all of LOCK; by default what is here in its version is shared.")
@click.option("--quick", is_flag=True, help="Golden rows alone: no fit, no backtest.")
@as_of_option
@json_option
def upgrade_check(
    lock: Path, models: tuple[str, ...], whole: bool, quick: bool, as_of: datetime | None, as_json: bool
) -> int:
    """Which predictions of MODELS (all, by default) would change with the packages of LOCK, a requirements file.

    Its packages go into an environment of their own, kept in the home. In it and here, each champion answers its golden
    rows, a model is fitted, and the last windows are replayed. Exit code 0: all as now; 1: something changes, or fails.
    """
    from perennial.workspace import open_workspace
    from tasks.upgrade.checking import PARTS, check_upgrade
    from tasks.upgrade.comparison import told

    found = check_upgrade(
        open_workspace(), lock, models, at=as_of or datetime.now(UTC), whole=whole,
        parts=PARTS[:1] if quick else PARTS, tell=lambda what: click.echo(f"{what} …", err=True),
    )  # fmt: skip
    if as_json:
        print_json({"packages": found.other, "models": [item.to_dict() for item in found.models], "alike": found.alike})
        return int(not found.alike)
    listed = [f"{name} {ours} → {theirs}" for name, (ours, theirs) in found.other.items()]
    click.echo(", ".join(listed[:_TOLD]) + (f" and {len(listed) - _TOLD} more" if len(listed) > _TOLD else "")
               if listed else "every package of the lock is here in its version: nothing would change")  # fmt: skip
    for item in found.models:
        click.echo(f"{'✓' if item.alike else '▲'} {item.model} version {item.version}")
        for line in told(item):
            click.echo(f"    {line}")
    return int(not found.alike)
