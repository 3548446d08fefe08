"""The flow that gives the champion's score a new map, on evidence. Thin: each step is in tasks.steps.recalibrate."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.recording import (
    announce_gate,
    gate_title,
    moment,
    nothing_to_do,
    publish_markdown,
    run_is_alive,
    step,
    tell_waiting,
    title_run,
)
from perennial.errors import ClaimedError
from perennial.workspace import open_workspace
from tasks.gate.report import render_markdown
from tasks.steps import recalibrate as recalibrating
from tasks.steps.register import register_training


@flow(name="recalibrate", flow_run_name="recalibrate {model}", retries=0)
def recalibrate(
    model: str, as_of: datetime | None = None, decision_id: str | None = None, wait_seconds: float = 5.0
) -> dict[str, Any]:
    """Refit the map from the champion's score to probability or value; the gate promotes it or keeps the champion.

    Args:
        model: The model's name.
        as_of: The moment; only what was known then is used. Now by default.
        decision_id: The decision that asked for it: the run claims it, or ends at once, skipped, if another run has.
        wait_seconds: How long to wait where the model is being retrained or recalibrated already.

    Raises:
        ConflictError: The decision is claimed, or the model is being retrained.
        DataError: There are too few mature labels.
    """
    try:
        return _recalibrate(model, as_of, decision_id, wait_seconds)
    except ClaimedError as error:
        return nothing_to_do(error)


def _recalibrate(model: str, as_of: datetime | None, decision_id: str | None, wait_seconds: float) -> dict[str, Any]:
    workspace, at = open_workspace(patient=True), moment(as_of)
    definition = workspace.definition(model)
    by = str(flow_run.get_id() or "recalibrate")
    if decision_id:
        workspace.ledger(model).require_open(decision_id, by, is_alive=run_is_alive)
    with workspace.retraining(model, wait_seconds=wait_seconds) as lease:
        if decision_id:
            workspace.ledger(model).claim(
                decision_id, by, as_of=at, recorded_at=datetime.now(UTC), is_alive=run_is_alive
            )
        found = step("fit-map", recalibrating.fit_map)(workspace, definition, as_of=at)
        report = step("gate", recalibrating.judge_map)(found)
        publish_markdown("gate", model, render_markdown(report), f"Gate: {report.verdict}")
        record = step("describe", recalibrating.describe_map)(workspace, found, report, decision_id=decision_id)
        lease.require()
        version = step("register", register_training)(workspace.registry, record)
        reign = step("promote", recalibrating.promote_map)(
            workspace, found, version, report, by=by, decision_id=decision_id
        )
        step("record", recalibrating.record_recalibration)(
            workspace, found, report, by=by, decision_id=decision_id, version=version.number
        )
    waits = tell_waiting(workspace, definition, version.number)
    title_run(
        *gate_title("recalibrate", model, version.number, report.verdict, promoted=reign is not None, waits=waits)
    )
    announce_gate(model, version.number, report.verdict, report.reasons, reign, waits=waits)
    return {
        "version": version.number,
        "gate": report.verdict,
        "promoted": reign is not None,
        "waits_for_approval": waits,
        "reason": report.reasons[0] if report.reasons else "",
    }
