"""The flow that looks at what a model stands on, before the next ingestion. Thin: how is in tasks.watch."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow

from flows.recording import moment, publish_table, step, tell_people
from perennial.workspace import open_workspace
from tasks.watch.looking import look_around


@flow(name="watch", flow_run_name="watch-{model}", retries=0)
def watch(model: str, as_of: datetime | None = None) -> dict[str, Any]:
    """Look at the champion's packages, the source's columns and its API's document, and tell what changed.

    Args:
        model: The model's name.
        as_of: The moment; now by default.
    """
    workspace, at = open_workspace(patient=True), moment(as_of)
    definition = workspace.definition(model)
    found = step("look-around", look_around)(workspace, definition, at=at)
    rows: list[dict[Any, Any]] = [
        {"grave": item.grave, "what": item.title, "detail": item.detail, "to do": item.to_do} for item in found
    ]
    publish_table("watch", model, rows or [{"what": "nothing changed"}], f"{len(found)} findings")
    footer = [f"Found by the watch, before the next ingestion: perennial watch {model}"]
    told = tell_people(workspace, definition, found, source="watch", at=at, footer=footer)
    return {"model": model, "watched": definition.watch is not None, "findings": rows, "told": told is not None}
