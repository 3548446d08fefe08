"""The way in for a registered version that the gate has judged: a retrained one, or a new map. It judges nothing."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, RegistryError
from perennial.model.known import stored_frame
from perennial.model.scores import score_array
from perennial.state.approval import ask
from perennial.state.registry import Registry, Reign, Version
from perennial.workspace import Workspace
from tasks.gate.report import GateReport
from tasks.learning.fitting import predict_score
from tasks.steps.register import GOLDEN_FILE
from tasks.steps.score import load_version


def let_in(
    workspace: Workspace, definition: ModelDefinition, version: Version, report: GateReport, *,
    beaten: Version | None, action: str, at: datetime, by: str, decision_id: str | None,
) -> Reign | None:  # fmt: skip
    """Make the version the champion if the gate let it in; let it wait, marked as waiting, if the gate is in doubt.

    The rest is as of `enter`.
    """
    if action == "promote":
        _make_room(workspace.registry, version)
    if report.verdict == "wait" and not version.tag("waiting"):
        workspace.registry.set_tags(version, {"waiting": "for evidence"})
    if report.verdict != "promote":
        return None
    reason = report.reasons[0] if report.reasons else report.verdict
    return enter(
        workspace, definition, version, reason, beaten=beaten, action=action, at=at, by=by, decision_id=decision_id
    )


def _make_room(registry: Registry, newer: Version) -> None:
    """An older challenger that waits for evidence waits no longer: a newer training has been judged."""
    for version in registry.versions(newer.model):
        if version.number < newer.number and version.tag("waiting") == "for evidence":
            registry.set_tags(version, {"waiting": "replaced"})


def enter(
    workspace: Workspace, definition: ModelDefinition, version: Version, reason: str, *,
    beaten: Version | None, action: str, at: datetime, by: str, decision_id: str | None,
) -> Reign | None:  # fmt: skip
    """Make a version that has won the champion if nobody's approval is needed, and it never failed live.

    Args:
        reason: Why it was let in.
        beaten: The champion that it was judged against.
        action: What the history calls it: promote, recalibrate.
        at: The moment of its data.

    Raises:
        ConflictError: Another version has become champion meanwhile.
        RegistryError: What was stored does not predict what was trained.
    """
    model, registry = definition.name, workspace.registry
    if was_rolled_back(registry.history(model), version.number):
        return None
    current, expected = registry.champion(model), beaten.number if beaten else None
    if current is not None and current.number not in (expected, version.number):
        raise ConflictError(
            f"version {current.number} became champion while version {version.number} was judged against {expected}",
            "The next check looks again" if action == "recalibrate" else f"Retrain again: `perennial retrain {model}`",
        )
    require_golden(workspace, definition, version)
    if definition.gate.approval == "human":
        ask(registry, version)
        return None
    return registry.promote(
        version, action=action, at=at, recorded_at=datetime.now(UTC), by=by, reason=reason, decision_id=decision_id
    )


def was_rolled_back(history: list[Reign], version: int) -> bool:
    """Whether a version was champion once and was rolled back: the same data is not tried again."""
    return any(line.action == "rollback" and line.previous == version for line in history)


def require_golden(workspace: Workspace, definition: ModelDefinition, version: Version) -> float:
    """The largest difference between what the stored model predicts for its golden rows and what was recorded.

    Raises:
        RegistryError: It is beyond `gate.golden_tolerance`; for a regression in units of the largest prediction.
    """
    golden = pd.read_parquet(workspace.registry.run_artifact(version, GOLDEN_FILE))
    wanted = score_array(golden["_score"])
    pipeline = load_version(workspace.registry, version, definition)
    features = stored_frame(golden, definition.features, pipeline)
    found = predict_score(pipeline, features, definition.task)
    apart = float(np.max(np.abs(found - wanted), initial=0.0)) if found.shape == wanted.shape else math.nan
    scale = 1.0 if definition.task == "classification" else max(1.0, float(np.abs(wanted).max(initial=0.0)))
    if not len(wanted) or not apart <= definition.gate.golden_tolerance * scale:
        raise RegistryError(
            f"version {version.number} of {definition.name} as it is stored predicts other than it was trained: its "
            f"{len(wanted)} golden predictions differ by up to {apart:g}, gate.golden_tolerance is "
            f"{definition.gate.golden_tolerance:g}",
            "The champion stays. Look how the estimator is stored: all that it predicts by must be in its attributes",
        )
    return apart
