"""The steps of one retraining with their input and output, in the order in which the flow takes them.

Each step is a plain function on a workspace; what it does is in the module of its name. A training that was
killed is run again under the same key: tuning goes on from its journal, fits are deterministic, and
registration, promotion and outcome are written once.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ESTIMATORS, ModelDefinition
from perennial.errors import DataError, DefinitionError
from perennial.model.artifacts import how_to_store
from perennial.model.scores import constant_scores
from perennial.model.truth import Classes
from perennial.state.registry import Reign, Version
from perennial.state.tables import ROW_ID, ROW_TIME, ROW_TRUTH
from perennial.workspace import Workspace
from tasks.calibration.fit import carried_strength
from tasks.calibration.maps import judged_note, judged_score, reigned_maps
from tasks.check.complaints.complaint import Complaint, read_complaints
from tasks.check.complaints.masks import is_refused, sound_rows, without_refused
from tasks.check.gains import warning
from tasks.check.history import outcome_row, read_history
from tasks.compute.cluster import tuning_executor
from tasks.gate.court import judge
from tasks.gate.evidence import Evidence, behind_fair_maps
from tasks.gate.intervention import beside_naive
from tasks.gate.report import GateReport
from tasks.learning.estimators import build_pipeline
from tasks.learning.fitting import FittedModel, boosting_threads, fit, predict_score, training_key
from tasks.learning.search import TrialRecord, TuningResult, tune
from tasks.measures.described.images import stored_features
from tasks.measures.leakage import separations, shared_rows
from tasks.measures.propensity import Experiment
from tasks.rows.classes import known_coding, of_codes, require_every_class, settle
from tasks.rows.experiment import read_experiment
from tasks.rows.frames import LabelledRows, labelled_rows
from tasks.rows.normal_form import batch_digest
from tasks.rows.reviewed import ROW_WEIGHT, Reviewed, reviewed, training_weights
from tasks.rows.split import Split, split_by_time, without_judges
from tasks.steps.promote import let_in
from tasks.steps.score import load_version, raw_score

_PROBE_ROWS = 20_000


@dataclass(frozen=True)
class Prepared:
    """What a training starts from.

    Attributes:
        definition: The model's definition; `encoded` is the same for a target of codes.
        frame: Labelled rows under the definition's names, beside `_id`.
        champion: The version to beat; None for a first model.
        classes: What the codes mean in the target; None for regression.
        refused: The complaints of the data as they stood; rows that they refuse as a whole are not in the frame.
        reviewed_rows: How many of its rows have their truth from people's reviews alone.
        experiment: Which rows were acted on while a control group was set; None of a model without one.
        acted_on_rows: How many rows that leaves out of what is learned from.
        acted_on: Rows of the holdout's time that judge nothing, since they were acted on.
    """

    definition: ModelDefinition
    encoded: ModelDefinition
    as_of: datetime
    key: str
    data: LabelledRows
    frame: pd.DataFrame
    split: Split
    champion: Version | None
    classes: Classes | None = None
    refused: tuple[Complaint, ...] = ()
    reviewed_rows: int = 0
    experiment: Experiment | None = None
    acted_on_rows: int = 0
    acted_on: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    def rows(self, index: np.ndarray) -> pd.DataFrame:
        return self.frame.iloc[index]

    @cached_property
    def learned(self) -> pd.DataFrame:
        """The frame as models learn from it: values that complaints refuse are missing."""
        return without_refused(self.frame, self.definition.data.time, self.refused)


@dataclass(frozen=True)
class Measured:
    """A challenger as the gate sees it, before it is put beside the champion.

    Attributes:
        score: Its scores on the holdout's rows.
        baseline: What predicting the training rows' mean or prevalence gives.
        latency_ms: Median of one row; None in a replay whose gate does not limit it.
        scoring_seconds: Wall time of scoring the holdout.
    """

    score: np.ndarray
    baseline: float | np.ndarray
    trained_until: datetime
    latency_ms: float | None
    size_mb: float
    scoring_seconds: float


@dataclass(frozen=True)
class Judged:
    """The gate's report and the scores that it saw, on the holdout's rows."""

    report: GateReport
    truth: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray | None
    seconds: dict[str, float] = field(default_factory=dict)


def prepare(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime, again: bool = False) -> Prepared:
    """Read what was known at `as_of`, and cut it by time.

    Args:
        again: Judge on the newest rows although the champion has learned from them, and without it: see `judged_again`.

    Raises:
        DataError: There are too few labelled rows, or none since the champion's training.
        DefinitionError: A custom estimator can't be built, or not be stored.
    """
    if definition.training.estimator not in ESTIMATORS:
        # Hours of tuning must not end in a model that can't be stored.
        how_to_store(build_pipeline(definition, {}, definition.training.seed), definition.training)
    coding = known_coding(workspace.store, definition)
    settle(workspace.store, definition, coding, at=as_of, batch_id="")
    refused = standing_complaints(workspace, definition.name, as_of=as_of)
    data = _sound(labelled_rows(workspace.store, definition, as_of=as_of), refused)
    by_people = reviewed(workspace.store, definition.name, as_of=as_of)
    data = data if by_people is None else _weighted(data, by_people, definition.review.most_weight)
    experiment = read_experiment(workspace.store, definition, as_of=as_of)
    labelled = len(data.frame)
    data = data if experiment is None else _left_alone(data, experiment, definition)
    key = training_key(definition, data.digest, as_of, definition.training.seed)
    champion = None if again else _champion_to_beat(workspace, definition.name, key, as_of)
    _require_two_for_cost(definition, coding.classes)
    encoded = of_codes(definition, coding.classes)
    frame = data.frame.rename(columns={ROW_TIME: definition.data.time, ROW_TRUTH: definition.data.target})
    until = champion.tag("trained_until") if champion else ""
    split = split_by_time(frame, encoded, as_of, datetime.fromisoformat(until) if until else None)
    rows_reviewed = 0
    if by_people is not None:
        split = without_judges(split, frame[ROW_ID].isin(list(by_people.chosen)).to_numpy())
        rows_reviewed = int(frame[ROW_ID].isin(list(by_people.only)).sum())
    acted_on = np.zeros(0, dtype=np.intp)
    if experiment is not None:
        treated = experiment.weights(frame[ROW_ID], frame[definition.data.time]) == 0
        acted_on = split.holdout[treated[split.holdout]]
        split = without_judges(split, treated)
        _require_left_alone(split, acted_on)
    split = without_refused_holdout(split, frame, encoded, refused)
    require_every_class(frame[definition.data.target].iloc[split.learning], coding.classes, definition.name)
    return Prepared(
        definition, encoded, as_of, key, data, frame, split, champion, coding.classes, refused, rows_reviewed,
        experiment, labelled - len(frame), acted_on,
    )  # fmt: skip


def without_refused_holdout(
    split: Split, frame: pd.DataFrame, definition: ModelDefinition, refused: tuple[Complaint, ...]
) -> Split:
    """Judge on rows that no complaint stands against, where they are as many as the gate wants and half of all."""
    times = frame[definition.data.time].iloc[split.holdout]
    sound = split.holdout[~is_refused(times, refused)]
    enough = len(sound) >= max(definition.gate.minimum_rows, len(split.holdout) / 2)
    return replace(split, holdout=sound) if enough and len(sound) < len(split.holdout) else split


def standing_complaints(workspace: Workspace, model: str, *, as_of: datetime) -> tuple[Complaint, ...]:
    """The complaints that refuse something, as the newest check left them, but for what people accepted since."""
    ledger = workspace.ledger(model)
    newest = ledger.newest(as_of=as_of)
    if newest is None:
        return ()
    standing = [item for item in read_complaints([newest]) if item.refuses]
    if newest.get("acceptance"):
        standing = [item for item in standing if not item.firing]
    return tuple(item for item in standing if not ledger.entry(item.decision_id, as_of=as_of).get("acceptance"))


def _sound(data: LabelledRows, refused: tuple[Complaint, ...]) -> LabelledRows:
    """Without the rows that are refused; the digest says what is learned from."""
    if not refused:
        return data
    frame = data.frame[sound_rows(data.frame, ROW_TIME, refused)].reset_index(drop=True)
    return replace(data, frame=frame, digest=batch_digest(without_refused(frame, ROW_TIME, refused)))


def _weighted(data: LabelledRows, by_people: Reviewed, most: float) -> LabelledRows:
    """With what each row counts, where that is not the same for all; the digest says what is learned from."""
    weights = training_weights(data.frame[ROW_ID], by_people, most)
    if (weights == 1.0).all():
        return data
    frame = data.frame.assign(**{ROW_WEIGHT: weights})
    return replace(data, frame=frame, digest=batch_digest(frame))


def _require_left_alone(split: Split, acted_on: np.ndarray) -> None:
    if not len(split.holdout):
        raise DataError(
            f"all {len(acted_on)} labelled rows from {split.holdout_from:%Y-%m-%d %H:%M} on were acted on, or may have "
            "been: nothing is left to judge by",
            "Raise serving.control_group, log all that is answered (serving.log_share), or widen gate.holdout_window",
        )


def _left_alone(data: LabelledRows, experiment: Experiment, definition: ModelDefinition) -> LabelledRows:
    """By `training.intervention`, without what was acted on, or with each of the rest as many as it stands for.

    Weights are 1 on average; the digest says what is learned from.
    """
    if definition.training.intervention == "ignore":
        return data
    weights = experiment.weights(data.frame[ROW_ID], data.frame[ROW_TIME])
    kept = weights > 0
    frame = data.frame[kept].reset_index(drop=True)
    weights = weights[kept] / weights[kept].mean() if kept.any() else weights[kept]
    if definition.training.intervention == "weighted" and not np.allclose(weights, 1.0):
        before = frame[ROW_WEIGHT].to_numpy(dtype=np.float64) if ROW_WEIGHT in frame.columns else 1.0
        frame = frame.assign(**{ROW_WEIGHT: weights * before})
    elif kept.all():
        return data
    return replace(data, frame=frame, digest=batch_digest(frame))


def search(
    workspace: Workspace, prepared: Prepared, progress: Callable[[TrialRecord, TrialRecord | None], None] | None = None
) -> TuningResult:
    """Tune within the budget, from the champion's parameters on; a killed search is resumed.

    Args:
        progress: Called after each trial with it and the best so far.
    """
    champion = prepared.champion
    parameters = json.loads(champion.tag("parameters", "{}")) if champion else None
    with tuning_executor(prepared.definition) as executor:
        return tune(
            prepared.encoded,
            prepared.learned,
            prepared.split.folds,
            storage=workspace.work_folder(prepared.definition.name, prepared.key) / "tuning.journal",
            study_name=prepared.key,
            champion_parameters=parameters,
            seed=prepared.definition.training.seed,
            rows_digest=prepared.data.digest,
            executor=executor,
            progress=progress,
        )


def train(prepared: Prepared, tuning: TuningResult) -> FittedModel:
    """Fit the challenger on everything before the holdout."""
    return fit(
        prepared.encoded,
        prepared.learned.iloc[prepared.split.learning],
        tuning.parameters,
        prepared.definition.training.seed,
    )


def judge_challenger(workspace: Workspace, prepared: Prepared, challenger: FittedModel) -> Judged:
    """Let the gate compare challenger and champion on the holdout, which neither has seen.

    Both behind maps made alike; where the definition makes no maps, the champion is judged by one that it has from
    elsewhere only as far as that has not seen the holdout.
    """
    measured, champion, definition = measure_challenger(prepared, challenger), prepared.champion, prepared.definition
    if champion is None:
        return judge_measured(prepared, measured, champion_score=None, champion_until=None)
    raw = raw_score(load_version(workspace.registry, champion, definition), _holdout_features(prepared), definition)
    score, note = raw, ""
    if not definition.monitoring.recalibrate:
        maps = reigned_maps(workspace.registry, champion, as_of=prepared.as_of)
        score = judged_score(raw, maps, prepared.split.holdout_from)
        note = judged_note(maps, prepared.split.holdout_from)
    until = datetime.fromisoformat(champion.tag("trained_until"))
    prior = warning(read_history(workspace.ledger(definition.name).rows(as_of=prepared.as_of), prepared.as_of))
    judged = judge_measured(
        prepared, measured, champion_score=score, champion_until=until, champion_note=note, prior=prior
    )
    if not len(prepared.acted_on):
        return judged
    return _beside_naive(prepared, judged, challenger, load_version(workspace.registry, champion, definition))


def _beside_naive(prepared: Prepared, judged: Judged, challenger: FittedModel, champion: Any) -> Judged:
    """With what the gate would have seen over all rows, acted on or not, told and not judged by.

    Both models by their own scores, before any map.
    """
    definition = prepared.definition
    rows = prepared.rows(np.sort(np.concatenate([prepared.split.holdout, prepared.acted_on])))
    features = stored_features(rows.reset_index(drop=True), definition.features)
    report = beside_naive(
        judged.report,
        truth=rows[definition.data.target].to_numpy(dtype=np.float64),
        challenger=predict_score(challenger.pipeline, features, definition.task),
        champion=raw_score(champion, features, definition),
        blocks=_blocks(rows, definition),
        policy=definition.gate,
        seed=definition.training.seed,
        acted_on=len(prepared.acted_on),
    )
    return replace(judged, report=report)


def judged_again(workspace: Workspace, judged: Judged, model: str, *, promote: bool) -> Judged:
    """A judgement on rows that were judged on before, told as what it is: no evidence against a live champion.

    Who tries one definition after the other on the same rows chooses by their luck, too.

    Args:
        promote: Whether a person let it in over a live champion.
    """
    report = judged.report
    told = f"judged again on {report.rows:,} rows on which models of {model} were chosen before: no evidence"
    champion = workspace.registry.champion(model)
    if champion is None:
        return replace(judged, report=replace(report, reasons=(*report.reasons, told)))
    verdict, reasons = report.verdict, (told, *report.reasons)
    if promote and verdict == "promote":
        reasons = (f"let in by a person over version {champion.number}; {told}", *report.reasons)
    elif verdict in ("promote", "wait"):
        verdict = "keep"
        reasons = (f"version {champion.number} stays, for --yes was not given; {told}", *report.reasons)
    return replace(judged, report=replace(report, verdict=verdict, reasons=reasons))


def beating(workspace: Workspace, prepared: Prepared) -> Prepared:
    """The same training as one against the live champion, in whose place it is put if at all."""
    return replace(prepared, champion=workspace.registry.champion(prepared.definition.name))


def measure_challenger(prepared: Prepared, challenger: FittedModel) -> Measured:
    """Score the holdout with the challenger, and time and weigh it."""
    features = _holdout_features(prepared)
    started = time.perf_counter()
    score = predict_score(challenger.pipeline, features, prepared.definition.task)
    return Measured(
        score=score,
        baseline=challenger.baseline,
        trained_until=challenger.trained_until,
        scoring_seconds=time.perf_counter() - started,
        latency_ms=one_row_milliseconds(challenger.pipeline, features),
        size_mb=len(pickle.dumps(challenger.pipeline)) / 1e6,
    )


def judge_measured(
    prepared: Prepared, measured: Measured, *, champion_score: np.ndarray | None, champion_until: datetime | None,
    champion_note: str = "", prior: tuple[float, float] | None = None, every_metric: bool = True,
) -> Judged:  # fmt: skip
    """The gate's verdict, given both models' scores on the holdout.

    Args:
        champion_score: Its own, before a map, on the holdout's rows, in their order; None for a first model.
        champion_until: The newest time that the champion has learned from.
        champion_note: What the report tells of the champion's score.
        prior: What promotions of this model have been found to bring, see `tasks.check.gains.warning`.
        every_metric: As in `tasks.gate.court.judge`.
    """
    definition, split = prepared.definition, prepared.split
    holdout = prepared.rows(split.holdout).reset_index(drop=True)
    features = stored_features(holdout, definition.features)
    truth = holdout[definition.data.target].to_numpy(dtype=np.float64)
    learning_ids = prepared.frame[ROW_ID].iloc[split.learning]
    evidence = Evidence(
        truth=truth,
        challenger=measured.score,
        champion=champion_score,
        baseline=constant_scores(measured.baseline, len(truth)),
        overlap_rows=shared_rows(holdout[ROW_ID], learning_ids),
        blocks=_blocks(holdout, definition),
        weights=_judging_weights(prepared, holdout),
        slices={name: features[name].to_numpy() for name in definition.gate.slices} | _class_slices(prepared, truth),
        latency_ms=measured.latency_ms,
        size_mb=measured.size_mb,
        challenger_newest=measured.trained_until,
        champion_newest=champion_until,
        champion_note=champion_note,
        prior=prior,
        separations=separations(features.tail(_PROBE_ROWS), truth[-_PROBE_ROWS:], definition.task),
    )
    monitoring, seed = definition.monitoring, definition.training.seed
    if monitoring.recalibrate:
        strength = carried_strength(monitoring, definition.data.label_delay)
        evidence = behind_fair_maps(evidence, definition.task, strength)
    report = judge(
        evidence, definition.gate, task=definition.task, metric=definition.loss, seed=seed, every_metric=every_metric
    )
    return Judged(report, truth, measured.score, champion_score, {"score_holdout": measured.scoring_seconds})


def _require_two_for_cost(definition: ModelDefinition, classes: Classes | None) -> None:
    """Classes that were learnt and not declared are known by now only."""
    if definition.serving.cost is not None and classes is not None and classes.many:
        raise DefinitionError(
            f"serving.cost belongs to two classes, and {definition.name} has {len(classes.names)}: of more, the "
            "likeliest is the label",
            "Leave it out",
        )


def _judging_weights(prepared: Prepared, holdout: pd.DataFrame) -> np.ndarray | None:
    """For how many rows each of the holdout stands, shape (n,); None where all stand for themselves."""
    if prepared.experiment is None:
        return None
    weights = prepared.experiment.weights(holdout[ROW_ID], holdout[prepared.definition.data.time])
    return None if not len(weights) or np.allclose(weights, weights[0]) else weights


def _blocks(holdout: pd.DataFrame, definition: ModelDefinition) -> np.ndarray:
    """What the bootstrap draws whole: days; where the definition names groups, those. Shape (n,)."""
    if (name := definition.training.groups) is None:
        days: np.ndarray = holdout[definition.data.time].dt.floor("D").astype("int64").to_numpy()
        return days
    codes = pd.factorize(holdout[name])[0]
    alone = codes < 0
    codes[alone] = codes.max() + 1 + np.arange(int(alone.sum()))
    return np.asarray(codes)


def _class_slices(prepared: Prepared, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Of many classes each is a slice of its own: a challenger must not win by giving one up."""
    if prepared.classes is None or not prepared.classes.many:
        return {}
    names = np.array(prepared.classes.names, dtype=object)
    return {prepared.definition.data.target: names[truth.astype(np.int64)]}


def refit(prepared: Prepared, tuning: TuningResult) -> FittedModel:
    """The twin of the challenger that is registered in its place if it wins or waits: it has learned from the holdout.

    Holding the newest rows back for good costs a part of what retraining gains, and the gate has judged
    the procedure and its parameters on them already.
    """
    split = prepared.split
    rows = prepared.learned.iloc[np.concatenate([split.learning, split.holdout, split.aside])]
    return fit(prepared.encoded, rows, tuning.parameters, prepared.definition.training.seed)


def promote(
    workspace: Workspace, prepared: Prepared, version: Version, report: GateReport, *, by: str,
    decision_id: str | None,
) -> Reign | None:  # fmt: skip
    """See `tasks.steps.promote.let_in`."""
    return let_in(
        workspace, prepared.definition, version, report, beaten=prepared.champion, action="promote",
        at=prepared.as_of, by=by, decision_id=decision_id,
    )  # fmt: skip


def record_outcome(
    workspace: Workspace, prepared: Prepared, judged: Judged, *, by: str, decision_id: str | None, version: int
) -> dict[str, Any]:
    """Write into the ledger what the training brought."""
    body = training_outcome(prepared, judged.report, decision_id)
    if prepared.reviewed_rows:
        body |= {"reviewed_rows": prepared.reviewed_rows}
    if prepared.experiment is not None:
        body |= {"left_out_acted_on": prepared.acted_on_rows, "not_judged_acted_on": len(prepared.acted_on)}
    outcome = body | {"version": version, "reasons": list(judged.report.reasons[:3])}
    key = f"{decision_id or ''}:{prepared.key}"
    workspace.ledger(prepared.definition.name).close(outcome, by, key=key, recorded_at=datetime.now(UTC))
    return outcome


def training_outcome(prepared: Prepared, report: GateReport, decision_id: str | None) -> dict[str, Any]:
    """What later checks read of a training: the gate's verdict, the gain, the rows."""
    losses = {name: table.get(report.metric) for name, table in report.metrics.items()}
    champion, challenger = losses.get("champion"), losses.get("challenger")
    gain = champion - challenger if champion is not None and challenger is not None else None
    return outcome_row(
        decision_id,
        prepared.as_of,
        report.verdict,
        gain=gain,
        champion_loss=champion,
        trained_rows=len(prepared.frame),
    )


def _champion_to_beat(workspace: Workspace, model: str, key: str, as_of: datetime) -> Version | None:
    """The champion of the moment; of a training that was killed after it registered, the one that it was judged by."""
    registry = workspace.registry
    if (registered := registry.find(model, key)) is None:
        return registry.champion(model, as_of=as_of)
    beaten = registered.tag("beaten_version")
    return registry.version(model, int(beaten)) if beaten else None


def _holdout_features(prepared: Prepared) -> pd.DataFrame:
    holdout = prepared.rows(prepared.split.holdout).reset_index(drop=True)
    return stored_features(holdout, prepared.definition.features)


def one_row_milliseconds(pipeline: Any, features: pd.DataFrame, repeats: int = 15) -> float:
    """The median time of one row through the pipeline, in milliseconds."""
    if not len(features):
        raise DataError("there is no row to time", "Wait for labels")
    ask = pipeline.predict_proba if hasattr(pipeline, "predict_proba") else pipeline.predict
    row, seconds = features.head(1), []
    with boosting_threads():
        for _ in range(repeats):
            started = time.perf_counter()
            ask(row)
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds) * 1000)
