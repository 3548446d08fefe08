"""A challenger that the gate left in doubt: looked at again at each check, let in or given up. It holds no rule.

The ledger says who waits: the newest training, if the gate's word on it was `wait` and nothing has settled it since.
What waits is the twin that has learned from everything, registered already: a win costs no second training.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from perennial.definition import ModelDefinition
from perennial.state.registry import Reign
from perennial.workspace import Workspace
from tasks.check.gains import warning
from tasks.check.history import moment, read_history, settlement_row
from tasks.gate.probation import EVIDENCE, Bout, ProbationReport, judge_waiting, waiting_length
from tasks.steps.promote import enter
from tasks.steps.trial.shadow import rows_of_both


def waiting_outcome(workspace: Workspace, model: str, *, as_of: datetime) -> dict[str, Any] | None:
    """The training whose challenger waits for evidence at a moment, as its row in the ledger; None if none does."""
    row = read_history(workspace.ledger(model).rows(as_of=as_of), as_of).waiting
    return None if row is None else dict(row)


def look_again(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime) -> ProbationReport | None:
    """Judge the challenger that waits, on rows that neither it nor the champion has learned from; None of none."""
    outcome = waiting_outcome(workspace, definition.name, as_of=as_of)
    champion = workspace.registry.champion(definition.name, as_of=as_of)
    if outcome is None or champion is None or outcome["version"] == champion.number:
        return None
    challenger = workspace.registry.version(definition.name, int(outcome["version"]))
    history = read_history(workspace.ledger(definition.name).rows(as_of=as_of), as_of)
    rows = rows_of_both(workspace, definition, challenger, champion, as_of=as_of)
    return judge_waiting(
        rows, Bout.of(definition, prior=warning(history)), version=challenger.number, former=champion.number,
        time_is_up=as_of - moment(outcome) > waiting_length(definition),
    )  # fmt: skip


def settle(
    workspace: Workspace, definition: ModelDefinition, report: ProbationReport, *, as_of: datetime
) -> Reign | None:
    """Let in a challenger that has won, or give it up, and write why; the reign that it began, if it did.

    Where a person's approval is asked for, who has won waits for that now.
    """
    model, registry = definition.name, workspace.registry
    outcome = waiting_outcome(workspace, model, as_of=as_of)
    if report.verdict not in ("promote", "give up") or outcome is None:
        return None
    won, version = report.verdict == "promote", registry.version(model, report.version)
    reign, decision_id = None, outcome["decision_id"]
    tags = {"waiting": "won" if won else "given up", "gate.reason": report.reason[:250]}
    if won:  # judged anew, by the champion of now
        tags |= {"beaten_version": str(report.former), "gate.verdict": "promote"}
    registry.set_tags(version, tags)
    if won:
        reign = enter(
            workspace, definition, registry.version(model, report.version), report.reason,
            beaten=registry.version(model, report.former), action="promote", at=as_of, by=EVIDENCE,
            decision_id=decision_id,
        )  # fmt: skip
    body = settlement_row(
        decision_id, as_of, "promote" if won else "keep",
        version=report.version, former=report.former, reason=report.reason,
    )  # fmt: skip
    workspace.ledger(model).close(
        body, EVIDENCE, key=f"settlement:{report.version}", recorded_at=datetime.now(UTC), kind="settlement"
    )
    return reign
