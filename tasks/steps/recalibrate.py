"""The steps of one recalibration with their input and output: a new map for the champion's score, gated like any model.

No model is trained: the version that comes out is the champion's pipeline behind a map fitted on matured labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from perennial.cards.writing import EVALUATION_FILE
from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.calibrated import Recalibrated
from perennial.model.scores import is_many, score_array, score_column
from perennial.state.registry import Reign, Version
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace
from tasks.calibration.fit import Recalibrator
from tasks.calibration.maps import base_version
from tasks.check.history import recalibration_row
from tasks.check.inputs import CheckInputs, join_with_past, mature_rows
from tasks.check.signals.maps import map_court, refit_map
from tasks.gate import figures
from tasks.gate.class_figures import class_figures
from tasks.gate.map_court import MapCourt, cross_fitted, judge_mapped
from tasks.gate.report import GateReport, render_markdown
from tasks.gate.threshold import cheapest_threshold
from tasks.learning.fitting import predict_score
from tasks.measures.described.images import stored_features
from tasks.measures.evaluation import evaluate
from tasks.rows.frames import window_rows
from tasks.rows.normal_form import batch_digest
from tasks.steps.monitor import gather_inputs, reference_sample
from tasks.steps.promote import let_in
from tasks.steps.register import REFERENCE_FILE, TrainingRecord, training_facts
from tasks.steps.score import load_version, require_champion

_GOLDEN_ROWS = 200
_MODELS = {"challenger": "challenger", "champion": "score"}


@dataclass(frozen=True)
class Recalibration:
    """A new map for a champion, and what it was judged by.

    Attributes:
        pipeline: The champion's pipeline behind the map: what is registered.
        rows: Labelled mature rows, oldest first: id, time, truth, what was answered, what the cross-fitted map gives.
        court: By whose rules it is judged.
    """

    definition: ModelDefinition
    as_of: datetime
    key: str
    champion: Version
    inputs: CheckInputs
    map: Recalibrator
    pipeline: Any
    rows: pd.DataFrame
    court: MapCourt


def fit_map(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime) -> Recalibration:
    """Fit the map on the labels that are known at `as_of`, and the same cross-fitted for the gate.

    Raises:
        NotFoundError: There is no champion.
        DataError: There are too few mature labels.
    """
    champion = _champion_to_map(workspace, definition, as_of)
    inputs = gather_inputs(workspace, definition, champion, as_of=as_of)
    found, rows, court = cross_fitted_map(inputs, definition, as_of)
    pipeline = load_version(workspace.registry, champion, definition)
    inner = pipeline.pipeline if isinstance(pipeline, Recalibrated) else pipeline
    mapped = Recalibrated(inner, found.method, list(found.parameters), definition.task)
    key = _key(definition, champion, as_of, found, rows.drop(columns="challenger"))
    return Recalibration(definition, as_of, key, champion, inputs, found, mapped, rows, court)


def cross_fitted_map(
    inputs: CheckInputs, definition: ModelDefinition, as_of: datetime
) -> tuple[Recalibrator, pd.DataFrame, MapCourt]:
    """The new map, the labelled mature rows with what the cross-fitted map gives as `challenger`, and their judge.

    Raises:
        DataError: There are too few mature labels.
    """
    policy = definition.monitoring
    joined, past = join_with_past(inputs, policy, as_of)
    rows = mature_rows(joined)
    if len(rows) < policy.minimum_rows:
        raise DataError(
            f"{definition.name} has {len(rows)} mature labels, and monitoring.minimum_rows is {policy.minimum_rows}",
            "Wait for more labels",
        )
    court = map_court(inputs, policy, past)
    challenger = score_column(cross_fitted(rows, court), rows.index)
    return refit_map(joined, court), rows.assign(challenger=challenger), court


def judge_map(recalibration: Recalibration) -> GateReport:
    """The gate's verdict on a new map."""
    return judge_mapped(recalibration.rows, recalibration.court)


def describe_map(
    workspace: Workspace, recalibration: Recalibration, report: GateReport, *, decision_id: str | None
) -> TrainingRecord:
    """What the run and the version carry: the champion's lineage, the map, the gate's report.

    The reference stays the champion's, loss at promotion included: what a map could not mend is still a fall.
    """
    definition, champion = recalibration.definition, recalibration.champion
    kept = ("trained_from", "trained_until", "trained_rows", "parameters", "environment", "classes")
    lineage = training_facts(definition, as_of=recalibration.as_of, data_version=champion.tag("data_version"))
    lineage |= {name: champion.tag(name) for name in kept}
    lineage |= {
        "kind": "recalibration",
        "base_version": base_version(champion),
        "mapped_until": recalibration.rows["time"].max().isoformat(),
        "recalibration": json.dumps(recalibration.map.to_dict()),
        "beaten_version": str(champion.number),
        "decision_id": decision_id or "",
        **report.tags(),
        **_threshold(recalibration),
    }
    return TrainingRecord(
        key=recalibration.key,
        definition=definition,
        pipeline=recalibration.pipeline,
        golden=_golden(workspace, recalibration),
        sample=reference_sample(workspace.registry, champion),
        lineage=lineage,
        parameters={
            "kind": "recalibration",
            "base_version": base_version(champion),
            "map": recalibration.map.method,
            "map_parameters": ", ".join(f"{value:.6g}" for value in recalibration.map.parameters[:12]),
            "definition_hash": definition.hash,
            "as_of": recalibration.as_of.isoformat(),
        },
        metrics=report.flat_metrics() | {"rows.recalibrated": recalibration.map.rows},
        dataset={"digest": recalibration.key, "versions": champion.tag("data_version")},
        figures=_figures(recalibration, report),
        tables={"gate": report.table()},
        reports={
            "gate.json": report.to_dict(),
            "gate.md": render_markdown(report),
            EVALUATION_FILE: _evaluation(recalibration),
            REFERENCE_FILE: recalibration.inputs.reference.to_dict(),
        },
    )


def _threshold(recalibration: Recalibration) -> dict[str, str]:
    """The threshold moves with the map: chosen on the cross-fitted map's scores."""
    cost, rows = recalibration.definition.serving.cost, recalibration.rows
    if cost is None:
        return {}
    truth, score = (rows[name].to_numpy(dtype=np.float64) for name in ("truth", "challenger"))
    return {"threshold": cheapest_threshold(truth, score, cost).tag(cost)}


def promote_map(
    workspace: Workspace, recalibration: Recalibration, version: Version, report: GateReport, *, by: str,
    decision_id: str | None,
) -> Reign | None:  # fmt: skip
    """See `tasks.steps.promote.let_in`."""
    return let_in(
        workspace, recalibration.definition, version, report, beaten=recalibration.champion, action="recalibrate",
        at=recalibration.as_of, by=by, decision_id=decision_id,
    )  # fmt: skip


def record_recalibration(
    workspace: Workspace, recalibration: Recalibration, report: GateReport, *, by: str, decision_id: str | None,
    version: int,
) -> None:  # fmt: skip
    """Write into the ledger what the recalibration brought."""
    champion = str(recalibration.champion.number)
    body = recalibration_row(decision_id, recalibration.as_of, report.verdict, champion_version=champion) | {
        "version": version,
        "map": recalibration.map.to_dict(),
        "reasons": list(report.reasons[:3]),
    }
    key = f"{decision_id or ''}:{recalibration.key}"
    workspace.ledger(recalibration.definition.name).close(
        body, by, key=key, recorded_at=datetime.now(UTC), kind="recalibration"
    )


def _champion_to_map(workspace: Workspace, definition: ModelDefinition, as_of: datetime) -> Version:
    """The champion of the moment; of a recalibration that was killed after its promotion, the one that it mapped."""
    champion = require_champion(workspace.registry, definition.name, as_of=as_of)
    reign = workspace.registry.reign(definition.name, as_of=as_of)
    if reign and reign.at == as_of and reign.action == "recalibrate" and champion.tag("beaten_version"):
        return workspace.registry.version(definition.name, int(champion.tag("beaten_version")))
    return champion


def _key(
    definition: ModelDefinition, champion: Version, as_of: datetime, found: Recalibrator, rows: pd.DataFrame
) -> str:
    parts = [definition.name, definition.hash, champion.number, as_of.isoformat(), found.to_dict()]
    kept = rows[["id", "truth", "raw_score", "score"]]
    lists = {name: kept[name].map(list) for name in kept.columns[2:] if kept[name].dtype == object}
    content = json.dumps(parts, sort_keys=True) + batch_digest(kept.assign(**lists))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _evaluation(recalibration: Recalibration) -> dict[str, Any]:
    """Of the cross-fitted map: each row is answered by a map that has not seen it."""
    definition, rows = recalibration.definition, recalibration.rows
    return evaluate(
        definition.task,
        rows["truth"].to_numpy(),
        score_array(rows["challenger"]),
        loss=definition.loss,
        blocks=rows["time"].dt.floor("D").astype("int64").to_numpy(),
        confidence=definition.gate.confidence,
        seed=definition.training.seed,
    )


def _golden(workspace: Workspace, recalibration: Recalibration) -> tuple[pd.DataFrame, np.ndarray]:
    definition, rows = recalibration.definition, recalibration.rows
    start, end = rows["time"].min().to_pydatetime(), recalibration.as_of
    found = window_rows(workspace.store, definition, start=start, end=end, known_at=recalibration.as_of)
    chosen = found.drop(columns=ROW_ID).iloc[np.linspace(0, len(found) - 1, min(_GOLDEN_ROWS, len(found))).astype(int)]
    features = stored_features(chosen.reset_index(drop=True), definition.features)
    return features, predict_score(recalibration.pipeline, features, definition.task)


def _figures(recalibration: Recalibration, report: GateReport) -> Mapping[str, Callable[[], Any]]:
    rows = recalibration.rows
    truth = rows["truth"].to_numpy()
    drawn: dict[str, Callable[[], Any]] = {"gate": partial(figures.gate_figure, report)}
    if recalibration.definition.task == "regression":
        return drawn | {"residuals": partial(figures.residuals_figure, truth, rows["challenger"].to_numpy())}
    scores = {name: score_array(rows[column]) for name, column in _MODELS.items()}
    if is_many(scores["challenger"]):
        names = json.loads(recalibration.champion.tag("classes"))
        return drawn | class_figures(truth, scores, names)
    return drawn | {"calibration": partial(figures.calibration_figure, truth, scores)}
