"""The flow by which a person lists a model's quarantine, tries rows again or discards them. Thin: see tasks.steps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from prefect import flow

from flows.recording import moment, publish_markdown, step
from perennial.workspace import open_workspace
from tasks.intake.quarantine import overview, overview_markdown
from tasks.steps.quarantine import Chosen, discard, release
from tasks.validation.suites import find_suite, load_suite


@flow(name="quarantine", flow_run_name="quarantine {model}: {action}", retries=0)
def quarantine(
    model: str,
    action: Literal["list", "release", "discard"] = "list",
    by: str = "",
    reason: str = "",
    ids: list[str] | None = None,
    rule: str | None = None,
    batch: str | None = None,
    entries: list[str] | None = None,
) -> dict[str, Any]:
    """List a model's refused rows, let in what passes now, or discard rows for good.

    Args:
        model: The model's name.
        action: list, release or discard.
        by: Who releases or discards; to discard it is required.
        reason: Why; to discard it is required.
        ids: Only the rows of these ids.
        rule: Only rows whose rule has this text in it.
        batch: Only the rows of this delivery.
        entries: Only these entries.

    Raises:
        NotFoundError: No open entry is meant.
        DataError: The name or the reason to discard is empty.
    """
    workspace, now = open_workspace(patient=True), moment(None)
    definition, store = workspace.definition(model), workspace.store
    chosen = Chosen(tuple(entries or ()), tuple(ids or ()), rule, batch)
    done: dict[str, Any] = {"model": model, "action": action}
    if action != "list":
        with workspace.ingesting(model, wait_seconds=60):
            if action == "discard":
                done["discarded"] = step("discard", discard)(store, definition, chosen, at=now, by=by, reason=reason)
            else:
                suite = load_suite(find_suite(model, workspace.settings.expectation_folders))
                tried = step("release", release)
                done |= asdict(tried(store, definition, suite, chosen, as_of=now, by=by, reason=reason))
    found = overview(store, definition)
    publish_markdown("quarantine", model, overview_markdown(model, found, now), f"{found.open:,} rows in quarantine")
    return done | found.to_dict()
