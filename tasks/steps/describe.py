"""What is written down of a training: metrics, figures, importance, lineage, and what checks will compare with.

It computes; logging it is tasks.steps.register's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from perennial.cards.card import escape
from perennial.cards.writing import EVALUATION_FILE
from perennial.definition import ModelDefinition
from perennial.model.answers.intervals import make_intervals
from perennial.model.scores import is_many, score_column
from perennial.state.tables import ROW_ID
from tasks.check.reference import Reference, build_reference
from tasks.check.told.sentences import segment_lines
from tasks.gate import figures
from tasks.gate.class_figures import class_figures
from tasks.gate.report import render_markdown
from tasks.gate.threshold import cheapest_threshold
from tasks.learning.fitting import FittedModel, environment_fingerprint, predict_score
from tasks.learning.search import TuningResult
from tasks.measures.dates import Dates
from tasks.measures.described.images import stored_features
from tasks.measures.evaluation import evaluate
from tasks.measures.metrics import class_table, curves, permutation_importance, slice_table
from tasks.measures.quality import additive_loss, mean_loss
from tasks.measures.quality import row_losses as losses_per_row
from tasks.rows.reviewed import ROW_WEIGHT
from tasks.steps.register import REFERENCE_FILE, TrainingRecord, training_facts
from tasks.steps.retrain import Judged, Prepared

_GOLDEN_ROWS = 200


def describe(
    prepared: Prepared,
    tuning: TuningResult,
    challenger: FittedModel,
    judged: Judged,
    *,
    seconds: Mapping[str, float],
    decision_id: str | None,
) -> TrainingRecord:
    """Everything that the run and the version of the challenger will carry; see `with_twin` for one that is let in.

    Args:
        challenger: What the gate judged.
        seconds: Wall time of each step so far, for comparison between runs.
    """
    definition, report = prepared.definition, judged.report
    holdout = prepared.rows(prepared.split.holdout).reset_index(drop=True)
    importance, evaluated = measure_importance(prepared, challenger, judged), evaluation(prepared, judged)
    golden_rows = stored_features(_spread(holdout, _GOLDEN_ROWS), definition.features)
    version, classes = prepared.data.data_version, prepared.classes
    lineage = training_facts(definition, as_of=prepared.as_of, data_version=version, classes=classes) | {
        **_learned(challenger),
        "parameters": json.dumps(challenger.parameters, default=str),
        "environment": environment_fingerprint()["hash"],
        "decision_id": decision_id or "",
        "beaten_version": str(prepared.champion.number) if prepared.champion else "",
        **report.tags(),
        **threshold_tag(definition, judged.truth, judged.challenger),
        **interval_tag(definition, judged.truth, judged.challenger),
    }
    metrics = report.flat_metrics()
    slices = {name: holdout[name].to_numpy() for name in definition.gate.slices}
    if classes is not None and classes.many:
        for name, values in class_table(judged.truth, judged.challenger, classes.names).items():
            metrics |= {f"class/{_plain(name)}/{metric}": value for metric, value in values.items()}
    for item in slice_table(
        definition.task, judged.truth, judged.challenger, slices, definition.gate.slice_minimum_rows
    ):
        metrics |= {f"slice/{item.column}/{_plain(item.value)}/{name}": value for name, value in item.metrics.items()}
    metrics |= {f"importance/{_plain(name)}": value for name, value in importance.items()}
    metrics |= {f"seconds/{name}": value for name, value in seconds.items()}
    if prepared.reviewed_rows:
        metrics["rows.reviewed"] = prepared.reviewed_rows
    metrics |= {"rows.trained": challenger.trained_rows, "rows.holdout": report.rows, "tuning.best": tuning.value}
    return TrainingRecord(
        key=prepared.key,
        definition=definition,
        pipeline=challenger.pipeline,
        golden=(golden_rows, predict_score(challenger.pipeline, golden_rows, definition.task)),
        sample=training_sample(prepared, judged),
        lineage=lineage,
        parameters={
            **{f"estimator.{name}": value for name, value in challenger.parameters.items()},
            "estimator": definition.training.estimator,
            "data_version": prepared.data.data_version,
            "definition_hash": definition.hash,
            "as_of": prepared.as_of.isoformat(),
        },
        metrics=metrics,
        dataset={"digest": prepared.data.digest, "versions": prepared.data.data_version},
        curves=_curves(definition.task, judged),
        figures=draw(prepared, tuning, judged, importance),
        tables={"tuning": tuning_table(tuning), "gate": report.table()},
        reports={
            "gate.json": report.to_dict() | {"segments": evaluated["segments"]},
            "gate.md": render_markdown(report) + _segments(evaluated),
            "environment.json": environment_fingerprint(),
            EVALUATION_FILE: evaluated,
            REFERENCE_FILE: reference(prepared, judged, importance).to_dict(),
        },
    )


def threshold_tag(definition: ModelDefinition, truth: np.ndarray, score: np.ndarray) -> dict[str, str]:
    """The threshold of a version whose mistakes have a price, chosen on rows that it has not learned from."""
    cost = definition.serving.cost
    return {} if cost is None else {"threshold": cheapest_threshold(truth, score, cost).tag(cost)}


def interval_tag(definition: ModelDefinition, truth: np.ndarray, score: np.ndarray) -> dict[str, str]:
    """The intervals of a version, made on rows that it has not learned from; none where those are too few."""
    coverage = definition.serving.interval
    made = None if coverage is None else make_intervals(truth, score, coverage)
    return {} if made is None else {"interval": made.tag()}


def evaluation(prepared: Prepared, judged: Judged) -> dict[str, Any]:
    """What the version's card tells of its quality on the holdout."""
    definition, search = prepared.definition, prepared.definition.segments
    features = definition.features
    named = (search and search.among) or (*features.numeric, *features.categorical, *features.boolean)
    holdout = prepared.rows(prepared.split.holdout).reset_index(drop=True)
    return evaluate(
        definition.task,
        judged.truth,
        judged.challenger,
        loss=definition.loss,
        blocks=holdout[definition.data.time].dt.floor("D").astype("int64").to_numpy(),
        slices={name: holdout[name].to_numpy() for name in definition.gate.slices},
        features=holdout[list(named)],
        minimum_rows=search.minimum_rows if search else definition.gate.slice_minimum_rows,
        confidence=search.confidence if search else definition.gate.confidence,
        columns=search.columns if search else 1,
        seed=definition.training.seed,
    )


def _segments(evaluated: Mapping[str, Any]) -> str:
    """The challenger's weak segments, as the gate's report shows them."""
    told = "\n".join(f"- {escape(line)}" for line in segment_lines(evaluated))
    return f"\n## Weak segments of the challenger\n\n{told}\n" if told else ""


def with_twin(record: TrainingRecord, twin: FittedModel) -> TrainingRecord:
    """The record of a winner's twin, which has learned from the holdout too and is registered in its place."""
    rows, _ = record.golden
    return replace(
        record,
        pipeline=twin.pipeline,
        golden=(rows, predict_score(twin.pipeline, rows, record.definition.task)),
        lineage={**record.lineage, **_learned(twin)},
        metrics={**record.metrics, "rows.trained": twin.trained_rows, "seconds/refit": twin.seconds},
    )


def reference(prepared: Prepared, judged: Judged, importance: Mapping[str, float]) -> Reference:
    """What later checks compare with: the profile of every row trained on, and the loss that the gate saw."""
    definition = prepared.definition
    scores, classes = _holdout_scores(prepared, judged), prepared.classes
    loss = additive_loss(definition.loss, definition.task)
    promised = mean_loss(losses_per_row(judged.truth, judged.challenger, loss))
    return build_reference(
        prepared.learned,
        time=definition.data.time,
        task=definition.task,
        loss=loss,
        window_seconds=definition.monitoring.window.total_seconds(),
        numeric=definition.features.numeric,
        categorical=(*definition.features.categorical, *definition.features.boolean),
        text=definition.features.text,
        image=definition.features.image,
        dates=watched_dates(definition),
        scores=scores,
        classes=classes.names if classes is not None and classes.many else (),
        truth=prepared.frame[definition.data.target].to_numpy(dtype=np.float64),
        importance=importance,
        holdout_loss=promised.mean,
        holdout_error=promised.standard_error,
        holdout_rows=promised.rows,
    )


def watched_dates(definition: ModelDefinition) -> Dates:
    """The moments that checks watch, and the zone and the time by which they do."""
    features = definition.features
    return Dates(features.datetime, definition.data.time, features.timezone)


def measure_importance(prepared: Prepared, challenger: FittedModel, judged: Judged) -> dict[str, float]:
    """Each feature's permutation importance on the holdout, by the compared metric."""
    definition = prepared.definition
    features = stored_features(prepared.rows(prepared.split.holdout).reset_index(drop=True), definition.features)
    return permutation_importance(
        lambda frame: predict_score(challenger.pipeline, frame, definition.task),
        features,
        judged.truth,
        definition.loss,
        definition.training.seed,
    )


def draw(
    prepared: Prepared, tuning: TuningResult, judged: Judged, importance: Mapping[str, float]
) -> dict[str, Callable[[], Any]]:
    """What makes the figures of a run, by the name that they are logged under."""
    drawn: dict[str, Callable[[], Any]] = {
        "gate": partial(figures.gate_figure, judged.report),
        "importance": partial(figures.importance_figure, importance, prepared.definition.loss),
        "tuning": partial(draw_tuning, tuning),
    }
    if prepared.definition.task == "regression":
        return drawn | {"residuals": partial(figures.residuals_figure, judged.truth, judged.challenger)}
    scores = {"challenger": judged.challenger} | ({} if judged.champion is None else {"champion": judged.champion})
    if prepared.classes is not None and prepared.classes.many:
        return drawn | class_figures(judged.truth, scores, prepared.classes.names)
    return drawn | {
        "roc": partial(figures.roc_figure, judged.truth, scores),
        "precision_recall": partial(figures.precision_recall_figure, judged.truth, scores),
        "calibration": partial(figures.calibration_figure, judged.truth, scores),
    }


def draw_tuning(tuning: TuningResult) -> Any:
    """The search's figure: each trial's value and the best so far."""
    best, history = math.nan, []
    better = max if tuning.greater_is_better else min
    for trial in tuning.trials:
        if trial.value is not None:
            best = trial.value if math.isnan(best) else better(best, trial.value)
            history.append((trial.number, trial.value, best))
    return figures.tuning_figure(history, tuning.metric, tuning.greater_is_better)


def tuning_table(tuning: TuningResult) -> pd.DataFrame:
    """One row a trial: number, value, seconds, state, parameters."""
    return pd.DataFrame(
        [
            {
                "trial": trial.number,
                tuning.metric: trial.value,
                "seconds": round(trial.seconds, 2),
                "state": trial.state,
            }
            | trial.parameters
            for trial in tuning.trials
        ]
    )


def _learned(model: FittedModel) -> dict[str, str]:
    return {
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
        "trained_rows": str(model.trained_rows),
    }


def _curves(task: str, judged: Judged) -> dict[str, list[float]]:
    if task == "regression":
        return {}
    if is_many(judged.challenger):  # each class has a curve, in the run's figures
        return {}
    shown = curves(judged.truth, judged.challenger)
    return {
        "curve/roc": shown.roc.tolist(),
        "curve/precision_recall": shown.precision_recall.tolist(),
        "curve/calibration": shown.calibration.tolist(),
    }


def training_sample(prepared: Prepared, judged: Judged) -> pd.DataFrame:
    """Rows over the whole training window, with the scores of those that the challenger had not seen as `_score`."""
    scores = score_column(_holdout_scores(prepared, judged), prepared.learned.index)
    frame = prepared.learned.assign(_score=scores).drop(columns=[ROW_ID, ROW_WEIGHT], errors="ignore")
    return _spread(frame, prepared.definition.monitoring.report_rows)


def _holdout_scores(prepared: Prepared, judged: Judged) -> np.ndarray:
    """The challenger's scores of all rows, NaN but for the holdout's."""
    scores = np.full((len(prepared.frame), *judged.challenger.shape[1:]), np.nan)
    scores[prepared.split.holdout] = judged.challenger
    return scores


def _spread(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """At most so many rows, evenly over the frame."""
    if len(frame) <= rows:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, rows).astype(np.int64)].reset_index(drop=True)


def _plain(text: str) -> str:
    """Text that MLflow takes in a metric's name."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in str(text))
