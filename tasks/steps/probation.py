"""After a promotion: the former champion scores the same rows in the shadow, and a worse newcomer is rolled back.

The shadow is computed from the ingested rows when the check runs: the same answers that it would have logged, at no
cost to whoever asks the champion. Judged are only rows that the newcomer answered live, whose truth is known
and that no complaint stands against.
The rule is in `tasks.gate.probation`.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.model.features import feature_frame
from perennial.state.registry import Reign
from perennial.state.store import ROW_ID
from perennial.workspace import Workspace
from tasks.check.complaints.complaint import read_complaints
from tasks.check.complaints.masks import is_refused
from tasks.check.history import rollback_row
from tasks.gate.probation import PROMOTIONS, ProbationReport, judge_newcomer
from tasks.learning.fitting import predict_score
from tasks.rows.frames import known_labels, window_rows
from tasks.steps.score import load_version, predictions_between


def check_newcomer(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime) -> ProbationReport | None:
    """Judge the champion if it is on probation at this moment; None if it is not."""
    reign = workspace.registry.reign(definition.name, as_of=as_of)
    if reign is None or reign.previous is None or reign.action not in PROMOTIONS:
        return None
    if as_of - reign.at > definition.gate.probation:
        return None
    rows = _shadowed(workspace, definition, reign, as_of)
    return judge_newcomer(
        rows, definition.gate, version=reign.version, former=reign.previous, metric=definition.loss,
        seed=definition.training.seed,
    )  # fmt: skip


def end_probation(
    workspace: Workspace, definition: ModelDefinition, report: ProbationReport, *, as_of: datetime
) -> bool:
    """Roll a newcomer back that is surely worse, and write why; whether it was done."""
    if report.verdict != "roll back":
        return False
    undone = workspace.registry.reign(definition.name, as_of=as_of)
    workspace.registry.rollback(
        definition.name, to=report.former, at=as_of, recorded_at=datetime.now(UTC), by="probation", reason=report.reason
    )
    body = rollback_row(
        undone.decision_id if undone else None, as_of, version=report.version, former=report.former,
        reason=report.reason,
    )  # fmt: skip
    key = f"rollback:{undone.sequence if undone else 0}"
    workspace.ledger(definition.name).close(body, "probation", key=key, recorded_at=datetime.now(UTC), kind="rollback")
    return True


def was_rolled_back(history: list[Reign], version: int) -> bool:
    """Whether a version was champion once and was rolled back: the same data is not tried again."""
    return any(line.action == "rollback" and line.previous == version for line in history)


def _shadowed(workspace: Workspace, definition: ModelDefinition, reign: Reign, as_of: datetime) -> pd.DataFrame:
    store, model = workspace.store, definition.name
    logged = predictions_between(store, model, start=reign.at, end=as_of, known_at=as_of)
    newest = workspace.ledger(model).newest(as_of=as_of)
    doubted = is_refused(logged["time"], read_complaints([newest] if newest else []))
    logged = logged[(logged["version"] == reign.version).to_numpy() & ~doubted]
    truth = known_labels(store, model, as_of=as_of, ids=logged["id"])[["id", "truth"]]
    known = logged.merge(truth, on="id", how="inner")
    if not len(known) or reign.previous is None:
        return pd.DataFrame({"time": pd.to_datetime([], utc=True), "truth": [], "score": [], "shadow": []})
    rows = window_rows(store, definition, start=known["time"].min().to_pydatetime(), end=as_of, known_at=as_of)
    rows = rows.merge(known[["id"]], left_on=ROW_ID, right_on="id", how="inner").drop_duplicates(ROW_ID)
    former = workspace.registry.version(model, reign.previous)
    pipeline = load_version(workspace.registry, former, definition)
    shadow = predict_score(pipeline, feature_frame(rows, definition.features), definition.task)
    by_id = pd.DataFrame({"id": rows[ROW_ID].to_numpy(), "shadow": np.asarray(shadow)})
    return known.merge(by_id, on="id", how="inner")
