"""What each promotion has brought, by rows that came afterwards, written into the ledger once. It judges nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from perennial.definition import ModelDefinition
from perennial.state.registry import Reign
from perennial.workspace import Workspace
from tasks.check.history import realised_row
from tasks.gate.probation import EVIDENCE, MODEL_PROMOTIONS, probation_length
from tasks.steps.trial.probation import judge_reign


def record_gains(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime) -> list[dict[str, Any]]:
    """Write down what those promotions have brought whose probation is over; the rows written.

    The two models are compared on the rows of the probation alone: what a former champion is worth a year later says
    nothing of the retraining. One that was looked at before, or that is long past, is left as it is.
    """
    model, length = definition.name, probation_length(definition)
    ledger = workspace.ledger(model)
    written = {int(row["version"]) for row in ledger.rows(as_of=as_of) if row["kind"] == "realised"}
    found = []
    for line in workspace.registry.history(model):
        ended = line.at + length
        if line.version in written or not ended < as_of <= ended + length or not _crowns(line):
            continue
        report = judge_reign(workspace, definition, line, as_of=as_of, until=ended)
        if report.interval is None:
            continue
        low, high = (report.interval.low, report.interval.high) if report.interval.known else (None, None)
        body = realised_row(
            line.decision_id, as_of, version=report.version, former=report.former, gain=report.interval.estimate,
            low=low, high=high, rows=report.rows,
        )  # fmt: skip
        key = f"realised:{line.sequence}"
        if ledger.close(body, EVIDENCE, key=key, recorded_at=datetime.now(UTC), kind="realised"):
            found.append(body)
    return found


def _crowns(line: Reign) -> bool:
    return line.action in MODEL_PROMOTIONS and line.previous is not None
