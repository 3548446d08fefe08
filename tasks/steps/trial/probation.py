"""After a promotion: the former champion goes on in the shadow, and a newcomer that is surely worse is rolled back.

A retrained newcomer is compared with the champion before it behind maps made alike, on all rows that neither has
learned from (`tasks.steps.trial.shadow`); maps that it is given meanwhile don't end its probation. A new map is
compared with the map before it, by what was answered live. The rule is in `tasks.gate.probation`.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd

from perennial.definition import ModelDefinition
from perennial.model.scores import score_column
from perennial.state.registry import Registry, Reign, Version
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace
from tasks.calibration.maps import base_version
from tasks.check.history import rollback_row
from tasks.gate.probation import (
    MODEL_PROMOTIONS,
    PROBATION,
    Bout,
    ProbationReport,
    is_last_look,
    judge_newcomer,
    probation_length,
)
from tasks.learning.fitting import predict_score
from tasks.measures.described.images import stored_features
from tasks.rows.frames import window_rows
from tasks.rows.reviewed import judging_labels
from tasks.steps.score import load_version, predictions_between
from tasks.steps.trial.shadow import rows_of_both


def check_newcomer(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime) -> ProbationReport | None:
    """Judge the champion, and its newest map, if they are on probation at this moment; None if neither is."""
    lines = _until(workspace.registry, definition.name, as_of)
    if not lines or lines[-1].action == "rollback":
        return None
    found = None
    if lines[-1].action == "recalibrate" and _lasts(lines[-1], definition, as_of):
        found = _judge_map(workspace, definition, lines[-1], as_of)
        if found.verdict == "roll back":
            return found
    crowned = crowning(workspace.registry, definition.name, lines)
    if crowned is None or not _lasts(crowned, definition, as_of):
        return found
    return judge_reign(workspace, definition, crowned, as_of=as_of)


def crowning(registry: Registry, model: str, lines: list[Reign]) -> Reign | None:
    """The line by which the champion's model, whatever its map is now, took another's place; None of a first model.

    Args:
        lines: The history up to a moment, not empty. After a rollback nobody is new.
    """
    base = base_version(registry.version(model, lines[-1].version))
    for line in reversed(lines):
        if line.action == "rollback":
            return None
        if line.action in MODEL_PROMOTIONS and base_version(registry.version(model, line.version)) == base:
            return line if line.previous is not None else None
    return None


def judge_reign(
    workspace: Workspace, definition: ModelDefinition, crowned: Reign, *, as_of: datetime, until: datetime | None = None
) -> ProbationReport:
    """The model of a reign beside the one that it followed, on the rows known at a moment, or those before `until`."""
    newcomer, former = (
        workspace.registry.version(definition.name, number) for number in (crowned.version, crowned.previous or 0)
    )
    rows = rows_of_both(workspace, definition, newcomer, former, as_of=as_of, until=until)
    last = until is None and is_last_look(definition, crowned.at, as_of)
    return judge_newcomer(rows, Bout.of(definition), version=newcomer.number, former=former.number, last=last)


def end_probation(
    workspace: Workspace, definition: ModelDefinition, report: ProbationReport, *, as_of: datetime
) -> bool:
    """Roll a newcomer back that is surely worse, and write why; whether it was done."""
    if report.verdict != "roll back":
        return False
    lines = _until(workspace.registry, definition.name, as_of)
    undone = next((line for line in reversed(lines) if line.version == report.version), None)
    workspace.registry.rollback(
        definition.name, to=report.former, at=as_of, recorded_at=datetime.now(UTC), by=PROBATION, reason=report.reason
    )
    body = rollback_row(
        undone.decision_id if undone else None, as_of, version=report.version, former=report.former,
        reason=report.reason,
    )  # fmt: skip
    key = f"rollback:{undone.sequence if undone else 0}"
    workspace.ledger(definition.name).close(body, PROBATION, key=key, recorded_at=datetime.now(UTC), kind="rollback")
    return True


def _until(registry: Registry, model: str, as_of: datetime) -> list[Reign]:
    return [line for line in registry.history(model) if line.at <= as_of]


def _lasts(line: Reign, definition: ModelDefinition, as_of: datetime) -> bool:
    return as_of - line.at <= probation_length(definition)


def _judge_map(workspace: Workspace, definition: ModelDefinition, reign: Reign, as_of: datetime) -> ProbationReport:
    """By what was answered since, beside what the champion with its map before would have answered."""
    former = workspace.registry.version(definition.name, reign.previous or 0)
    rows = _answered(workspace, definition, reign, former, as_of)
    bout = Bout.of(definition, maps_alone=True)
    return judge_newcomer(rows, bout, version=reign.version, former=former.number)


def _answered(
    workspace: Workspace, definition: ModelDefinition, reign: Reign, former: Version, as_of: datetime
) -> pd.DataFrame:
    store, model = workspace.store, definition.name
    logged = predictions_between(store, model, start=reign.at, end=as_of, known_at=as_of)
    logged = logged[logged["version"] == reign.version]
    truth = judging_labels(store, model, as_of=as_of, ids=logged["id"])[["id", "truth"]]
    known = logged.merge(truth, on="id", how="inner")
    if not len(known):
        return pd.DataFrame({"time": pd.to_datetime([], utc=True), "truth": [], "score": [], "shadow": []})
    rows = window_rows(store, definition, start=known["time"].min().to_pydatetime(), end=as_of, known_at=as_of)
    rows = rows.merge(known[["id"]], left_on=ROW_ID, right_on="id", how="inner").drop_duplicates(ROW_ID)
    pipeline = load_version(workspace.registry, former, definition)
    shadow = predict_score(pipeline, stored_features(rows, definition.features), definition.task)
    by_id = pd.DataFrame({"id": rows[ROW_ID].to_numpy(), "shadow": score_column(shadow)})
    return known.merge(by_id, on="id", how="inner")
