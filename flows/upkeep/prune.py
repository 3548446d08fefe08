"""The flow that removes what nobody needs of a model any more. Thin: what and how is in tasks.upkeep."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow

from flows.recording import moment, publish_markdown, step
from perennial.workspace import open_workspace
from tasks.upkeep.freed import freed_markdown, freed_text
from tasks.upkeep.prune import prune_model


@flow(name="prune", flow_run_name="prune-{model}", retries=0)
def prune(model: str, as_of: datetime | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Remove old versions, rows, files and pages of a model, as its definition's `retention` says.

    Args:
        model: The model's name.
        as_of: The moment that ages are counted to; now by default.
        dry_run: Remove nothing, only say what would go.
    """
    workspace, at = open_workspace(patient=True), moment(as_of)
    freed = step("prune", prune_model)(workspace, workspace.definition(model), as_of=at, dry_run=dry_run)
    told = freed_text(freed, dry_run=dry_run)
    publish_markdown("prune", model, freed_markdown(model, freed, dry_run=dry_run), told[:250])
    return {"model": model, "dry_run": dry_run, "freed": [item.to_dict() for item in freed]}
