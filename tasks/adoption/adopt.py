"""The steps that make a matched model the first champion: judged on what it has not seen, registered with its why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, DataError, PerennialError
from perennial.model.features import feature_frame
from perennial.model.scores import shares
from perennial.state.registry import Reign, Version
from perennial.workspace import Workspace
from tasks.adoption.finding import Found
from tasks.adoption.matching import matched
from tasks.gate.report import GateReport
from tasks.learning.fitting import FittedModel, predict_score
from tasks.learning.search import TrialRecord, TuningResult
from tasks.rows.split import utc_times
from tasks.steps.describe import describe
from tasks.steps.promote import require_golden
from tasks.steps.register import register_training
from tasks.steps.retrain import Judged, Prepared, judge_challenger, prepare, record_outcome

_TRIED_ROWS = 2000


@dataclass(frozen=True)
class Adoption:
    """What became of a model.

    Attributes:
        unseen_rows: Rows that it has certainly not learned from; None where that can't be known.
        repeatable: Whether a clone of it can be fitted anew; else why not.
    """

    version: Version
    reign: Reign
    report: GateReport
    unseen_rows: int | None
    repeatable: str


def adopt(
    workspace: Workspace, definition: ModelDefinition, found: Found, *, trained_until: datetime | None, by: str,
    reason: str, as_of: datetime,
) -> Adoption:  # fmt: skip
    """Make the model the champion.

    Args:
        trained_until: The newest time that it has learned from, as its owner says; None where nobody knows.
        by, reason: Who adopts it, and why.

    Raises:
        ConflictError: There is a champion.
        DataError: The model doesn't fit its definition, or there are too few labelled rows.
        RegistryError: A fresh process can't answer with it.
    """
    if (champion := workspace.registry.champion(definition.name)) is not None:
        raise ConflictError(
            f"{definition.name} has a champion, version {champion.number}: only a first one is adopted",
            f"Let retraining challenge it, or take the model away first: `perennial remove {definition.name}`",
        )
    prepared = prepare(workspace, definition, as_of=as_of)
    model = matched(found.model, definition, prepared.classes)
    _require_answers(model, prepared)
    seen_until = trained_until or found.made_until
    prepared, unseen = _judged_by(prepared, seen_until)
    fitted = _as_fitted(model, prepared, seen_until)
    judged = _told(judge_challenger(workspace, prepared, fitted), by, reason, unseen)
    record = describe(prepared, _untuned(prepared, judged), fitted, judged, seconds={}, decision_id=None)
    record = replace(
        record,
        lineage={
            **record.lineage,
            "kind": "adopted", "adopted_by": by, "adopted_reason": reason[:250], "adopted_from": found.origin,
            "adopted_digest": found.digest,
        },
    )  # fmt: skip
    version = register_training(workspace.registry, record)
    require_golden(workspace, definition, version)
    reign = workspace.registry.promote(
        version, action="adopt", at=as_of, recorded_at=datetime.now(UTC), by=by, reason=f"adopted: {reason}"
    )
    record_outcome(workspace, prepared, judged, by=by, decision_id=None, version=version.number)
    return Adoption(version, reign, judged.report, unseen, repeatable(found.model, prepared))


def _require_answers(model: Any, prepared: Prepared) -> None:
    """Refuse a model that fails on the definition's own rows."""
    features = feature_frame(prepared.frame.head(_TRIED_ROWS), prepared.definition.features)
    try:
        predict_score(model, features, prepared.definition.task)
    except PerennialError:
        raise
    except Exception as error:  # whatever a team's own model raises
        raise DataError(
            f"the model can't answer rows of {prepared.definition.name}: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}",
            "Numbers come as floats with NaN, categories as text: fit it on rows of that form, or correct the features",
        ) from error


def _judged_by(prepared: Prepared, seen_until: datetime | None) -> tuple[Prepared, int | None]:
    """Judge on the rows after those that it has learned from; where that can't be known, on the newest."""
    if seen_until is None:
        return prepared, None
    split, definition = prepared.split, prepared.definition
    order = np.concatenate([split.train, split.validation, split.holdout])
    times = utc_times(prepared.frame[definition.data.time])[order]
    after = times > pd.Timestamp(seen_until).tz_convert("UTC").tz_localize(None).to_datetime64()
    unseen = int(after.sum())
    if unseen < definition.gate.minimum_rows:
        return prepared, unseen
    holdout = order[after]
    start = pd.Timestamp(times[after].min(), tz="UTC").to_pydatetime()
    known = replace(split, train=order[~after], validation=order[:0], holdout=holdout, holdout_from=start)
    return replace(prepared, split=known), unseen


def _as_fitted(model: Any, prepared: Prepared, seen_until: datetime | None) -> FittedModel:
    """What is known of a fit that happened elsewhere: where nobody knows what it saw, all that there was."""
    target = prepared.frame[prepared.definition.data.target].to_numpy(dtype=np.float64)
    times = pd.to_datetime(prepared.frame[prepared.definition.data.time], utc=True)
    known = target[prepared.split.learning] if len(prepared.split.learning) else target
    seen = times <= pd.Timestamp(seen_until) if seen_until is not None else times.notna()
    classes = prepared.classes.names if prepared.classes else ()
    return FittedModel(
        pipeline=model, parameters={}, classes=classes, positive=classes[1] if len(classes) == 2 else None,
        trained_rows=int(seen.sum()), trained_from=times.min().to_pydatetime(),
        trained_until=min(seen_until or prepared.as_of, prepared.as_of), seconds=0.0,
        baseline=shares(known, len(classes)) if len(classes) > 2 else float(known.mean()),
    )  # fmt: skip


def _told(judged: Judged, by: str, reason: str, unseen: int | None) -> Judged:
    """The gate's findings as they are, its verdict told and not asked."""
    report = judged.report
    rows = f"the newest {report.rows:,} labelled rows"
    if unseen is None:
        seen = f"whether it has learned from {rows} can't be known: their figures may flatter it"
    elif unseen < report.rows:
        seen = f"only {unseen:,} rows are newer than what it learned from: the figures of {rows} may flatter it"
    else:
        seen = f"it has learned from none of {rows}"
    reasons = (
        f"adopted by {by}: {reason}",
        seen,
        f"the gate, which was not asked, says {report.verdict}",
        *report.reasons,
    )
    return replace(judged, report=replace(report, verdict="promote", reasons=reasons))


def _untuned(prepared: Prepared, judged: Judged) -> TuningResult:
    """The search that there was none of: one trial, the model as it came."""
    loss = float(judged.report.metrics["challenger"].get(judged.report.metric, float("nan")))
    trial = TrialRecord(0, {}, loss, 0.0, "complete")
    return TuningResult({}, loss, prepared.definition.loss, False, (trial,), 0.0, 0, "nothing to search")


def repeatable(model: Any, prepared: Prepared) -> str:
    """Empty where a clone of the model can be fitted on our rows and answers; else why not."""
    from sklearn.base import clone

    definition = prepared.definition
    rows = prepared.frame.tail(_TRIED_ROWS)
    features = feature_frame(rows.reset_index(drop=True), definition.features)
    target = rows[definition.data.target].to_numpy(dtype=np.float64)
    try:
        again = clone(model).fit(features, target.astype(np.int64) if definition.task == "classification" else target)
        predict_score(again, features, definition.task)
    except Exception as error:  # noqa: BLE001 - whatever a team's own model raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def write_unfitted(model: Any, path: Path) -> None:
    """Store a clone without its fit, for `training.estimator: FILE.skops`; never over a file."""
    import skops.io
    from sklearn.base import clone

    if path.exists():
        raise ConflictError(f"{path} is there already, and nothing is overwritten", "Move it away")
    skops.io.dump(clone(model), path)
