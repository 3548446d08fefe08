"""The flow by which a person answers for a waiting version from Prefect's pages. Thin: see perennial.state.approval."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from prefect import flow

from flows.recording import announce_reign, publish_markdown, title_run
from perennial.errors import DataError
from perennial.state import approval
from perennial.workspace import open_workspace


@flow(name="approve", flow_run_name="{answer} {model}", retries=0)
def approve(
    model: str, by: str, reason: str, answer: Literal["approve", "refuse"] = "approve", version: int | None = None
) -> dict[str, Any]:
    """Promote the version that waits for a person, or refuse it.

    Args:
        model: The model's name.
        by: Who answers.
        reason: Why; it is kept with the version and, of one that is let in, in the history.
        answer: approve or refuse.
        version: Which one; the newest that waits by default.

    Raises:
        NotFoundError: None waits, or that one does not.
        ConflictError: It has waited too long, or the champion has changed since it was judged.
        DataError: The name or the reason is empty.
    """
    for name, value in (("by", by), ("reason", reason)):
        if not value.strip():
            raise DataError(f"{name} is empty", "Start the run again with your name and your reason")
    workspace, now = open_workspace(), datetime.now(UTC)
    expires = workspace.definition(model).gate.approval_expires
    if answer == "refuse":
        number = approval.refuse(workspace.registry, model, version, by=by, reason=reason).number
    else:
        reign = approval.approve(workspace.registry, model, version, by=by, reason=reason, at=now, expires=expires)
        announce_reign(model, reign)
        number = reign.version
    title_run(f"{answer} {model} v{number}, by {by}")
    told = f"{by} answered {answer} for version {number} of {model}: {reason}"
    publish_markdown("approval", model, f"# {model}: {answer}\n\n{told}\n", told[:250])
    return {"model": model, "version": number, "answer": answer, "by": by, "reason": reason}
