"""The flow that puts the day's predictions up for people. Thin: what is chosen and written is in tasks.steps.review."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import flow

from flows.recording import moment, publish_markdown, step
from perennial.workspace import open_workspace
from tasks.steps.review.fill import fill_reviews


@flow(name="review", flow_run_name="review {model}", retries=0)
def review(model: str, as_of: datetime | None = None) -> dict[str, Any]:
    """Put up predictions for people to look at, as the definition's `review` says; once a day.

    Args:
        model: The model's name.
        as_of: The moment; only what was known then is used. Now by default.
    """
    workspace, at = open_workspace(patient=True), moment(as_of)
    filled = step("fill", fill_reviews)(workspace, workspace.definition(model), as_of=at)
    told = filled.told or ", ".join(f"{count} {reason}" for reason, count in sorted(filled.put_up.items()))
    publish_markdown("review", model, f"# {model}: put up for review\n\n{told}.\n", told[:250])
    return {"model": model} | filled.to_dict()
