"""`perennial check --all`: every champion in one process, which starts once; a model that fails stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from perennial.commands.output import print_json, print_table
from perennial.commands.running import flow_environment
from perennial.errors import PerennialError

COLUMNS = ("model", "verdict", "reason", "seconds")


def check_all(as_of: datetime | None, *, dry_run: bool, as_json: bool, verbose: bool) -> None:
    """Check every model that has a champion; the exit code is 1 where one could not be checked."""
    from perennial.workspace import open_workspace

    workspace, at = open_workspace(), as_of or datetime.now(UTC)
    names = [name for name in workspace.definitions() if workspace.registry.reign(name, as_of=at) is not None]
    if dry_run:
        from tasks.steps.monitor import run_check

        found = [_checked(name, lambda name: run_check(workspace, workspace.definition(name), as_of=at).to_dict())
                 for name in names]  # fmt: skip
    else:
        with flow_environment(verbose=verbose):
            from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

            from flows.monitor import monitor

            # A heartbeat costs each run a second, and says of a run within this process what the process says.
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                found = [_checked(name, lambda name: monitor(name, as_of=at)) for name in names]
    if as_json:
        print_json(found)
    elif found:
        print_table(COLUMNS, [[str(row[column]) for column in COLUMNS] for row in found])
    else:
        click.echo("no model has a champion yet")
    if failed := [row["model"] for row in found if row["verdict"] == "failed"]:
        raise PerennialError(f"{len(failed)} of {len(found)} models could not be checked: {', '.join(failed)}",
                             "See the reasons above")  # fmt: skip


def _checked(model: str, check: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """The check's outcome in a line; what is wrong with a model is told there."""
    started = time.perf_counter()
    try:
        decision = check(model)
        told = {
            "verdict": decision["verdict"],
            "reason": decision["reasons"][0],
            "decision_id": decision["decision_id"],
        }
    except PerennialError as error:
        told = {"verdict": "failed", "reason": str(error), "decision_id": None}
    return {"model": model, **told, "seconds": round(time.perf_counter() - started, 2)}
