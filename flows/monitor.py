"""The flow that checks a champion and asks for the run that the verdict calls for. Thin: see tasks.steps.monitor."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger

from flows.recording import (
    announce,
    announce_reign,
    moment,
    page_of,
    publish_markdown,
    run_is_alive,
    step,
    tell_people,
    tell_waiting,
    title_run,
)
from perennial.definition import ModelDefinition
from perennial.errors import ConflictError
from perennial.events import REFUSED, decision_event
from perennial.workspace import Workspace, open_workspace
from tasks.alerts.queue import review_queue
from tasks.alerts.standing import standing
from tasks.check.decision import Decision, is_news
from tasks.check.text import render_markdown
from tasks.gate.probation import ProbationReport
from tasks.steps.monitor import open_decisions, record_decision, run_check
from tasks.steps.report import write_report
from tasks.steps.shown.examples import lines, write_examples
from tasks.steps.shown.examples import render_markdown as examples_markdown
from tasks.steps.shown.figures import record_figures
from tasks.steps.trial.probation import check_newcomer, end_probation
from tasks.steps.trial.realise import record_gains
from tasks.steps.trial.waiting import look_again, settle

_EVENT_PATIENCE = timedelta(minutes=5)


@flow(name="monitor", flow_run_name="monitor {model}", retries=0)
def monitor(model: str, as_of: datetime | None = None, report: bool = True, trigger: bool = True) -> dict[str, Any]:
    """Check the champion at a moment, write the decision down, and act on it.

    Args:
        model: The model's name.
        as_of: The moment; only what was known then is used. Now by default.
        report: Whether to make the Evidently report for people; it decides nothing.
        trigger: Whether a verdict to retrain or recalibrate asks for that run, or is only written down.
    """
    workspace, at = open_workspace(patient=True), moment(as_of)
    definition = workspace.definition(model)
    workspace.registry.settle(model)  # a promoter may have died before aliases and manifest followed
    newcomer = step("probation", check_newcomer)(workspace, definition, as_of=at)
    if newcomer and step("end-probation", end_probation)(workspace, definition, newcomer, as_of=at):
        publish_markdown("rollback", model, f"# {model}: rolled back\n\n{newcomer.reason}.\n", "Rolled back")
        get_run_logger().warning("%s was rolled back to version %s: %s", model, newcomer.former, newcomer.reason)
        if reign := workspace.registry.reign(model):
            announce_reign(model, reign)
    settled = _settle(workspace, definition, at)
    step("gains", record_gains)(workspace, definition, as_of=at)
    decision = step("check", run_check)(workspace, definition, as_of=at)
    before = workspace.ledger(model).newest(as_of=at - timedelta(microseconds=1))
    step("record", record_decision)(workspace, decision)
    examples = step("examples", write_examples)(workspace, definition, decision)
    told = render_markdown(decision) + examples_markdown(examples)
    text = told + page_of(workspace, f"/models/{model}/decisions/{decision.decision_id}")
    publish_markdown("check", model, text, f"{decision.verdict}: {decision.reasons[0]}"[:250])
    title_run(f"monitor {model} {at:%Y-%m-%d} → {decision.verdict}", decision.verdict)
    if trigger:
        _ask_for_runs(workspace, definition, decision)
        if is_news(decision, before):
            _ask_for_a_person(model, decision)
        if definition.alerts:
            step("alert", _alert)(workspace, definition, decision)
    step("figures", record_figures)(workspace, definition, decision)
    path = step("report", write_report)(workspace, definition, decision) if report else None
    if path is not None:
        where = page_of(workspace, f"/models/{model}/reports/{Path(path).name}")
        told = f"# {model}: the report of the check\n\nWhat moved, quality, distributions: {path}{where}"
        publish_markdown("report", model, told, f"Report of {decision.verdict}, {at:%Y-%m-%d %H:%M}")
    return decision.to_dict() | {
        "report": path, "examples": lines(examples), "probation": newcomer.to_dict() if newcomer else None,
        "waiting": settled.to_dict() if settled else None,
    }  # fmt: skip


def _settle(workspace: Workspace, definition: ModelDefinition, at: datetime) -> ProbationReport | None:
    """Look again at a challenger that the gate left in doubt, unless a training is at work that may replace it."""
    model = definition.name
    report = step("look-again", look_again)(workspace, definition, as_of=at)
    if report is None or report.verdict not in ("promote", "give up"):
        return report
    try:
        with workspace.retraining(model, wait_seconds=0) as lease:
            lease.require()
            reign = step("settle", settle)(workspace, definition, report, as_of=at)
    except ConflictError as error:
        get_run_logger().info("the challenger of %s is settled at the next check: %s", model, error)
        return report
    told = "is let in" if report.verdict == "promote" else "is given up"
    text = f"# {model}: version {report.version} {told}\n\n{report.reason}.\n"
    publish_markdown("doubt", model, text, f"Version {report.version} {told}")
    if reign is not None:
        announce_reign(model, reign)
    elif not tell_waiting(workspace, definition, report.version):
        payload = {
            "model": model, "version": report.version, "reason": report.reason,
            "subject": f"{model}: version {report.version} {told}", "text": f"{report.reason}.",
        }  # fmt: skip
        announce(REFUSED, model, payload)
    return report


def _ask_for_runs(workspace: Workspace, definition: ModelDefinition, decision: Decision) -> None:
    """Emit the event of a new decision, and start what an earlier lost event did not.

    Events are best effort; the ledger is the truth. A decision that nobody claimed within the time that an
    event may take, or whose run died, is started directly, under an idempotency key: twice is once.
    """
    model = definition.name
    for entry in open_decisions(workspace, model, as_of=decision.as_of, is_alive=run_is_alive):
        if entry["decision_id"] == decision.decision_id and not entry["claims"]:
            announce(
                decision_event(entry["verdict"]),
                model,
                {"decision_id": entry["decision_id"], "as_of": entry["as_of"]},
            )
        elif entry["claims"] or decision.as_of - datetime.fromisoformat(entry["as_of"]) >= _EVENT_PATIENCE:
            _start_directly(model, entry)


def _alert(workspace: Workspace, definition: ModelDefinition, decision: Decision) -> None:
    footer = [
        f"The check's verdict: {decision.verdict}. {decision.next_step}",
        f"Decision {decision.decision_id}: perennial ledger {decision.model}",
    ]
    items = (*standing(decision, definition.monitoring), *review_queue(workspace.store, definition, at=decision.as_of))
    tell_people(
        workspace, definition, items, source="check", at=decision.as_of, footer=footer, decision_id=decision.decision_id
    )


def _ask_for_a_person(model: str, decision: Decision) -> None:
    needs = "needs repair" if decision.verdict == "repair" else "is worth a look"
    payload = {
        "model": model, "decision_id": decision.decision_id, "as_of": decision.as_of.isoformat(),
        "subject": f"{model}: its data {needs}", "text": "\n".join(decision.reasons),
    }  # fmt: skip
    announce(decision_event("repair"), model, payload)


def _start_directly(model: str, entry: dict[str, Any]) -> None:
    try:
        run_deployment(
            f"{entry['verdict']}/{model}",
            parameters={"decision_id": entry["decision_id"], "as_of": entry["as_of"]},
            idempotency_key=f"{entry['decision_id']}:{len(entry['claims']) + 1}",
            timeout=0,
        )
    except ObjectNotFound:
        get_run_logger().warning("%s/%s is not deployed; run `perennial deploy`", entry["verdict"], model)
