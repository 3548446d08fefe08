"""From a check's inputs to its signals: every measurement beside its limit, with persistence counted. No verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.definition import GatePolicy, Monitoring
from perennial.errors import DataError
from tasks.calibration.fit import (
    METHODS,
    TESTED_ROWS,
    RecalibrationTest,
    Recalibrator,
    check_recalibration,
    fit_recalibration,
)
from tasks.check import health
from tasks.check.drift import ColumnDrift, measure_drift
from tasks.check.estimate.record import RECENT_WINDOWS
from tasks.check.estimate.unlabelled import EstimatedQuality, estimate_quality
from tasks.check.health import Freshness
from tasks.check.history import History
from tasks.check.reference import PREDICTION, Reference, RunSummary
from tasks.check.signals import Signal, finite
from tasks.check.window import WindowFacts, read_facts
from tasks.gate.map_court import MapCourt, cross_fitted, judge_mapped
from tasks.measures.profiles import Counts, microseconds
from tasks.measures.quality import AGES, Coverage, MeanLoss, complete_ages, coverage, mean_loss, row_losses

Floats = NDArray[np.float64]
DRIFT_SOURCE = "windows of the training data, each against the rest of it"
TOLD_COLUMNS = 10


@dataclass(frozen=True)
class CheckInputs:
    """All that a check knows; the caller reads it as of the check's moment.

    Attributes:
        model: Its name.
        champion_version: The version judged.
        same_model: Other versions of the champion that differ from it by the score's map only (recalibrations of it
            and what they were made from): their predictions and checks count as its own.
        recalibrator: The map in force, from raw_score to score; None when there is none.
        reference: What that version was trained on.
        time: The time column of `window`.
        window: Features and time of rows with as_of - window ≤ time < as_of, any order; labels are not needed. Of a
            large one the facts of its parts, added up.
        predictions: Columns id, time, score, version: the champion's predictions of the window; may be empty.
        mature: Columns id, time, score, version and, where a map is in force, raw_score: logged predictions with
            time in [as_of - label_delay - policy.mature_windows × window, as_of - label_delay). Where another model
            answered rows that the champion has not learned from, what the champion says to them, as its own.
        labels: Columns id, truth, labelled_at: known at as_of (later ones are ignored); of several for an id the
            newest counts.
        label_delay: How long until the truth is known.
        labelled_rows: How many labelled rows there are now from `reference.trained_from` on. With a sliding window of
            training, rows that have left it count too: growth is about how much is new, not how much is kept.
        freshness: What ingestion knows.
        ledger: Earlier rows, oldest first (tasks.check.history).
        past: As `mature`, but as they were logged, of the windows whose estimates have met their labels
            (tasks.check.estimate.record.past_windows); a sample per window will do. Without it, no estimate is trusted.
        window_features, mature_features: `_id` and features of a sample of the champion's predictions and of the
            mature ones, for the estimate of a regression's loss; a class needs none.
        holdout: A sample of what the champion was judged on before its promotion: features, `_score`, `_truth`.
            Estimates rest on it until there are mature labels.
        gate: By which a new map would be judged.
        metric: The gate's; empty for the task's proper loss.
        seed: Of the gate's resampling.
    """

    model: str
    champion_version: str
    reference: Reference
    time: str
    window: pd.DataFrame | WindowFacts
    predictions: pd.DataFrame
    mature: pd.DataFrame
    labels: pd.DataFrame
    label_delay: timedelta
    labelled_rows: int
    freshness: Freshness = field(default_factory=Freshness)
    ledger: tuple[Mapping[str, Any], ...] = ()
    same_model: tuple[str, ...] = ()
    recalibrator: Recalibrator | None = None
    gate: GatePolicy = field(default_factory=GatePolicy)
    metric: str = ""
    seed: int = 0
    past: pd.DataFrame | None = None
    window_features: pd.DataFrame | None = None
    mature_features: pd.DataFrame | None = None
    holdout: pd.DataFrame | None = None

    @property
    def versions(self) -> frozenset[str]:
        """The champion's version and those of the same model."""
        return frozenset((self.champion_version, *self.same_model))


def gather(
    inputs: CheckInputs, policy: Monitoring, history: History, as_of: datetime
) -> tuple[tuple[Signal, ...], dict[str, Any]]:
    """All signals, the strongest kind first, and the evidence for the record."""
    _require(inputs)
    joined, past = _join(inputs, policy, as_of)
    window = inputs.window
    if not isinstance(window, WindowFacts):
        window = read_facts(inputs.reference, window, inputs.time)
    data, summary, counts = _read_window(inputs, window, policy, history, as_of)
    loss, covered, judged = _newest_mature(inputs, policy, joined, as_of)
    drift = _drift(inputs, window.rows, policy, history, counts)
    drifting = any(signal.name == "drift" and signal.persistent for signal in drift)
    test, refusal = _recalibration_test(inputs, policy, joined)
    maps = _recalibration(test, refusal, policy, history, as_of)
    mends = test.gain if policy.recalibrate and maps[0].persistent else 0.0
    quality = _quality(inputs, policy, history, loss, covered, judged, drifting, mends)
    blind = _is_blind(inputs, policy, history, covered, judged, as_of)
    estimated = _estimate(inputs, policy, history, joined, past, loss.mean if judged else None, as_of)
    signals = (
        *data,
        *quality,
        estimated.signal,
        *drift,
        *_label_shift(inputs.reference, joined),
        *_growth(inputs, policy, history),
        *_age(inputs, policy, as_of),
        *maps,
    )
    evidence: dict[str, Any] = {
        "rows": window.rows,
        "window": summary.to_dict() if summary else None,
        "window_start": (as_of - policy.window).isoformat(),
        "mature_predictions": covered.predictions,
        "mature_labels": covered.labelled,
        "coverage": round(covered.share, 6),
        "coverage_by_age": [list(part) for part in covered.by_age],
        "judged": judged,
        "blind": blind,
        "loss": _loss_dict(loss, inputs.reference),
        "estimate": estimated.evidence,
        "recalibration": {"method": test.method, "gain": test.gain, "rows": test.rows},
        "labelled_rows": inputs.labelled_rows,
        "trained_rows": inputs.reference.trained_rows,
        "trained_until": inputs.reference.trained_until.isoformat(),
    }
    return signals, evidence


def join_labels(inputs: CheckInputs, policy: Monitoring, as_of: datetime) -> pd.DataFrame:
    """The champion's mature predictions with the newest truth known at `as_of`, NaN where none is; in order of time.

    `score` is what the map in force makes of the raw score: what the champion would answer now. `labelled` says whether
    a row has a label; the truth of rows too young to have all of theirs is left out, since those that come first are
    not like the others.
    """
    return _join(inputs, policy, as_of)[0]


def _join(inputs: CheckInputs, policy: Monitoring, as_of: datetime) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The mature predictions of `join_labels`, and `inputs.past` with its truth."""
    mine = inputs.mature[inputs.mature["version"].astype(str).isin(inputs.versions)]
    both = mine if inputs.past is None else pd.concat([mine, inputs.past], ignore_index=True)
    known = inputs.labels[inputs.labels["labelled_at"] <= pd.Timestamp(as_of)]
    known = known.sort_values("labelled_at", kind="stable")
    raw = both["raw_score"].fillna(both["score"]) if "raw_score" in both else both["score"]
    truth = _newest_truth(both["id"], known["id"], known["truth"].to_numpy(dtype=np.float64))
    both = both.assign(raw_score=raw, truth=truth)
    past = None if inputs.past is None else both.iloc[len(mine) :]
    joined = both.iloc[: len(mine)].sort_values("time", kind="stable", ignore_index=True)
    raw = joined["raw_score"]
    score = inputs.recalibrator.apply(raw.to_numpy(dtype=np.float64)) if inputs.recalibrator else raw
    labelled = joined["truth"].notna()
    end, length = (as_of - inputs.label_delay), policy.window / AGES
    complete = complete_ages(
        microseconds(joined["time"]),
        labelled.to_numpy(),
        int(pd.Timestamp(end).as_unit("ns").value // 1000),
        round(length.total_seconds() * 1e6),
        _reached(past, policy),
    )
    return joined.assign(score=score, labelled=labelled, truth=joined["truth"].where(complete)), past


def _reached(past: pd.DataFrame | None, policy: Monitoring) -> float:
    """The greatest share of labels that one of the newest windows of the past has by now; 0 where none is known."""
    if past is None:
        return 0.0
    age = ((past["time"].max() - past["time"]) // policy.window).to_numpy()
    rows = past["truth"].notna().groupby(age).agg(["mean", "size"])
    whole = rows[(rows["size"] >= policy.minimum_rows) & (rows.index < RECENT_WINDOWS)]
    return float(whole["mean"].max()) if len(whole) else 0.0


def _estimate(
    inputs: CheckInputs,
    policy: Monitoring,
    history: History,
    joined: pd.DataFrame,
    past: pd.DataFrame | None,
    newest_loss: float | None,
    as_of: datetime,
) -> EstimatedQuality:
    """The newest window's estimated loss; it persists only where its record lets it be trusted."""
    found = estimate_quality(inputs, policy, history, joined, past, newest_loss, as_of)
    lasts = _persist(history, inputs.versions, found.signal.name, found.signal.fired, found.extreme, policy)
    return replace(found, signal=replace(found.signal, persistent=found.trusted and lasts))


def _newest_truth(wanted: pd.Series[Any], ids: pd.Series[Any], truth: Floats) -> Floats:
    """Each wanted id's last truth, NaN where it has none; ids are hashed once, which a merge does three times."""
    codes, names = pd.factorize(pd.concat([wanted.astype("str"), ids.astype("str")], ignore_index=True))
    newest = np.full(len(names), np.nan)
    newest[codes[len(wanted) :]] = truth
    return newest[codes[: len(wanted)]]


def _require(inputs: CheckInputs) -> None:
    wanted = {
        **({} if isinstance(inputs.window, WindowFacts) else {"window": (inputs.window, [inputs.time])}),
        "predictions": (inputs.predictions, ["id", "time", "score", "version"]),
        "mature": (inputs.mature, ["id", "time", "score", "version"]),
        "labels": (inputs.labels, ["id", "truth", "labelled_at"]),
    }
    for name, (frame, columns) in wanted.items():
        if absent := [column for column in columns if column not in frame]:
            raise DataError(f"the check's {name} lack {', '.join(absent)}", f"Give {', '.join(columns)}")


def _read_window(
    inputs: CheckInputs, window: WindowFacts, policy: Monitoring, history: History, as_of: datetime
) -> tuple[tuple[Signal, ...], RunSummary | None, Counts | None]:
    """Health signals, and for a readable window its summary and its counts (columns, width)."""
    reference = inputs.reference
    stale_after = policy.stale_after or policy.window
    found = [*health.check_feed(reference, window.rows, inputs.freshness, as_of, stale_after)]
    found += health.check_schema(window)
    mine = inputs.predictions[inputs.predictions["version"].astype(str).isin(inputs.versions)]
    scores = mine["score"].to_numpy(dtype=np.float64, na_value=np.nan)
    found += health.check_predictions(reference, scores)
    summary, counts = None, None
    if window.readable:
        summary = window.summary(reference.columns)
        if window.rows >= policy.minimum_rows:
            recent = health.recent_runs(history.decisions, history.acceptances)
            found += health.check_rows(reference, summary, recent)
            found += health.check_columns(reference, window, summary, recent)
        counts = _counts(reference, window, scores)
    accepted = history.accepted(inputs.versions)
    return tuple(_accept(signal, accepted) for signal in found), summary, counts


def _counts(reference: Reference, window: WindowFacts, scores: Floats) -> Counts:
    width = reference.profile.counts.shape[2]
    counts = np.zeros((len(reference.profile.columns), width), dtype=np.int64)
    for row, column in enumerate(reference.profile.columns):
        if column.name == PREDICTION:
            tally = np.bincount(column.codes(pd.Series(scores, name=PREDICTION)), minlength=column.bins + 1)
        else:
            tally = window.columns[column.name].counts
        counts[row, : column.bins] = tally[: column.bins]
        counts[row, -1] = tally[column.bins]
    return counts


def _accept(signal: Signal, accepted: dict[str, Any]) -> Signal:
    if signal.name not in accepted:
        return signal
    row = accepted[signal.name]
    detail = f"{signal.detail} (accepted by {row['by']}: {row['reason']})"
    return Signal(
        signal.name, signal.kind, signal.value, signal.threshold, signal.threshold_source, False, False, detail
    )


def _persist(
    history: History, versions: frozenset[str], name: str, fired: bool, extreme: bool, policy: Monitoring
) -> bool:
    needed, among = policy.persistence
    earlier = history.fired(versions, name, among - 1)
    return fired and (extreme or 1 + sum(earlier) >= needed)


def _drift(
    inputs: CheckInputs, rows: int, policy: Monitoring, history: History, counts: Counts | None
) -> tuple[Signal, ...]:
    reference = inputs.reference
    if counts is None or rows < policy.minimum_rows:
        detail = f"drift was not measured: {rows} rows, at least {policy.minimum_rows} are needed"
        return (Signal("drift", "drift", None, 1.0, DRIFT_SOURCE, False, False, detail),)
    importance = dict(reference.importance)
    if reference.column(PREDICTION) and counts[-1].sum():
        importance[PREDICTION] = max(importance.values(), default=1.0)
    moved = [
        item
        for item in measure_drift(reference.profile, reference.null, counts, importance, policy.false_alarm_rate)
        if item.name != PREDICTION or counts[_position(reference)].sum()
    ]
    ratios = [item.ratio for item in moved if not np.isnan(item.ratio)]
    if not ratios:
        runs = reference.null.runs
        detail = f"drift has no limit: the training data holds {runs} windows, too few to know what is ordinary"
        whole = Signal("drift", "drift", None, 1.0, DRIFT_SOURCE, False, False, detail)
    else:
        greatest = max(ratios)
        beyond = [item for item in moved if item.ratio > 1]
        named = ", ".join(f"{item.name} {item.ratio:.1f}×" for item in beyond[:3])
        detail = (
            f"{len(beyond)} of {len(moved)} columns moved further than they ordinarily do: {named} of their limit"
            if beyond
            else f"no column moved further than it ordinarily does; the furthest is {moved[0].name}, "
            f"{greatest:.2f}× its limit"
        )
        persistent = _persist(history, inputs.versions, "drift", greatest > 1, greatest > policy.extreme, policy)
        source = f"{DRIFT_SOURCE}; {policy.false_alarm_rate:.2%} false alarms for all columns together"
        whole = Signal("drift", "drift", round(greatest, 6), 1.0, source, greatest > 1, persistent, detail)
    return (whole, *(_column_signal(item) for item in moved[:TOLD_COLUMNS]))


def _position(reference: Reference) -> int:
    return next(i for i, column in enumerate(reference.profile.columns) if column.name == PREDICTION)


def _column_signal(item: ColumnDrift) -> Signal:
    """The column's worse side: its values, or the share of them that is missing."""
    fired = bool(item.ratio > 1)
    gone = bool(item.ratio > item.distance / item.limit)
    name = f"drift of {item.name}" + (" (missing)" if gone else "")
    value, limit = (abs(item.missing), item.missing_limit) if gone else (item.distance, item.limit)
    detail = f"{item.name}: distance {item.distance:.3f}, missing {item.missing:+.1%}, importance {item.importance:.1%}"
    return Signal(name, "drift", finite(value), finite(limit), DRIFT_SOURCE, fired, False, detail)


def _newest_mature(
    inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame, as_of: datetime
) -> tuple[MeanLoss, Coverage, bool]:
    """The champion's loss on the newest mature window, its labels' coverage, and whether that suffices to judge."""
    end = pd.Timestamp(as_of - inputs.label_delay)
    start = end - policy.window
    part = joined[(joined["time"] >= start) & (joined["time"] < end)]
    truth = part["truth"].to_numpy(dtype=np.float64)
    known = np.isfinite(truth) & np.isfinite(part["score"].to_numpy(dtype=np.float64))
    score = part["score"].to_numpy(dtype=np.float64)
    loss = mean_loss(row_losses(truth[known], score[known], inputs.reference.loss))
    edges = [int(moment.value // 1000) for moment in (start.as_unit("ns"), end.as_unit("ns"))]
    now = int(pd.Timestamp(as_of).as_unit("ns").value // 1000)
    labelled = (part["labelled"] & np.isfinite(score)).to_numpy()
    covered = coverage(microseconds(part["time"]), labelled, edges[0], edges[1], now)
    judged = loss.rows >= policy.minimum_rows and covered.share >= policy.minimum_coverage
    return loss, covered, judged


def _quality(
    inputs: CheckInputs,
    policy: Monitoring,
    history: History,
    loss: MeanLoss,
    covered: Coverage,
    judged: bool,
    drifting: bool,
    mends: float,
) -> tuple[Signal, ...]:
    """The newest mature loss beside its limit.

    What a new map would mend (by `mends` per row) asks for no training, as long as no map has been tried for it.
    """
    reference = inputs.reference
    sigmas = policy.quality_sigmas * (policy.backoff**history.fruitless)
    if drifting:
        sigmas /= policy.backoff
    source = f"{sigmas:.2g} standard errors above the loss at promotion"
    source += ", lowered by persistent drift" if drifting else ""
    if not judged or np.isnan(reference.holdout_loss):
        reason = "no loss is known from its promotion" if judged else _why_unjudged(loss, covered, policy)
        return (Signal("loss", "quality", finite(loss.mean), None, source, False, False, f"quality: {reason}"),)
    own = 0.0 if np.isnan(reference.holdout_error) else reference.holdout_error
    error = float(np.hypot(loss.standard_error, own))
    limit = reference.holdout_loss + sigmas * error
    fired = loss.mean > limit
    extreme = loss.mean > reference.holdout_loss + policy.extreme * sigmas * error
    persistent = _persist(history, inputs.versions, "loss", fired, extreme, policy)
    mended = fired and mends > 0 and loss.mean - mends <= limit
    tried = mended and history.map_was_tried(inputs.versions, "loss", policy.persistence[1] - 1)
    low, high = loss.interval()
    detail = (
        f"{reference.loss} is {loss.mean:.4g} [{low:.4g}, {high:.4g}] on {loss.rows} mature rows, "
        f"{'above' if fired else 'within'} the limit of {limit:.4g}; at promotion it was {reference.holdout_loss:.4g}"
        + (f"; a new map would bring it to {loss.mean - mends:.4g}" if mended else "")
        + (", but one was tried for this and has not" if tried else "")
    )
    return (Signal("loss", "quality", loss.mean, limit, source, fired, persistent and (tried or not mended), detail),)


def _why_unjudged(loss: MeanLoss, covered: Coverage, policy: Monitoring) -> str:
    if covered.predictions == 0:
        return "this version has no mature prediction yet"
    if covered.share < policy.minimum_coverage:
        return (
            f"{covered.labelled} of {covered.predictions} mature predictions have labels ({covered.share:.0%}); "
            f"{policy.minimum_coverage:.0%} are needed to judge"
        )
    if loss.rows < covered.labelled:
        return (
            f"{covered.labelled} mature rows have labels, {loss.rows} of an age at which all labels have come; "
            f"{policy.minimum_rows} of those are needed to judge"
        )
    return f"{loss.rows} mature rows have labels; {policy.minimum_rows} are needed to judge"


def _is_blind(
    inputs: CheckInputs, policy: Monitoring, history: History, covered: Coverage, judged: bool, as_of: datetime
) -> bool:
    """Labels can't judge what a drift may have done, and waiting for them is no answer.

    Mature predictions lack labels; or labels come later than the policy's patience, and the champion has none yet or
    the drift began after its newest mature window. A new champion whose labels are soon due is waited for.
    """
    if covered.predictions and not judged:
        return True
    if inputs.label_delay <= policy.label_patience:
        return False
    since = history.firing_since(inputs.versions, "drift") or as_of
    return not judged or since - policy.window >= as_of - inputs.label_delay


def refit_map(inputs: CheckInputs, policy: Monitoring, as_of: datetime) -> Recalibrator:
    """The map that a verdict of `recalibrate` asks for, from the raw score, fitted on the rows it was tested on."""
    truth, raw, _ = _labelled(join_labels(inputs, policy, as_of))
    task = inputs.reference.task
    return fit_recalibration(truth, raw, task, method=METHODS[task][0], strength=policy.recalibration_strength)


def mature_rows(joined: pd.DataFrame) -> pd.DataFrame:
    """The rows of `join_labels` that have both truth and score."""
    known = np.isfinite(joined["truth"].to_numpy(dtype=np.float64))
    known &= np.isfinite(joined["score"].to_numpy(dtype=np.float64))
    rows: pd.DataFrame = joined[known].reset_index(drop=True)
    return rows


def _labelled(joined: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Truth, raw score and answered score of the rows that have all of them."""
    rows = mature_rows(joined)
    truth, raw, score = (rows[name].to_numpy(dtype=np.float64) for name in ("truth", "raw_score", "score"))
    return truth, raw, score


def map_court(inputs: CheckInputs, policy: Monitoring) -> MapCourt:
    """By whose rules a new map for this champion is judged, in the check and in the run that it asks for."""
    task, usual = inputs.reference.task, inputs.reference.target_runs
    metric = inputs.metric or ("log_loss" if task == "classification" else "mse")
    baseline = float(np.mean(usual)) if usual else float("nan")
    return MapCourt(
        inputs.gate, task, metric, baseline, policy.recalibration_strength, policy.recalibration_sigmas,
        policy.minimum_rows, inputs.seed,
    )  # fmt: skip


def _recalibration_test(
    inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame
) -> tuple[RecalibrationTest, str | None]:
    """The test of a new map, and why the gate would refuse it; None if it would not, or the test is not passed."""
    truth, raw, score = _labelled(joined)
    task = inputs.reference.task
    if len(truth) < policy.minimum_rows:
        return RecalibrationTest(METHODS[task][0], 0.0, float("inf"), len(truth)), None
    rows = mature_rows(joined)
    test = check_recalibration(truth, raw, score, task, strength=policy.recalibration_strength)
    if test.sigmas <= policy.recalibration_sigmas:
        return test, None
    court = map_court(inputs, policy)
    rows = rows.iloc[:: max(1, -(-len(rows) // TESTED_ROWS))]
    report = judge_mapped(rows.assign(challenger=cross_fitted(rows, court)), court)
    return test, None if report.verdict == "promote" else report.reasons[0]


def _recalibration(
    test: RecalibrationTest, refusal: str | None, policy: Monitoring, history: History, as_of: datetime
) -> tuple[Signal, ...]:
    source = "standard errors of the gain, cross-fitted; and the gate's own comparison"
    if not np.isfinite(test.standard_error):
        detail = f"recalibration: {test.rows} mature rows with labels are too few to test it"
        return (
            Signal("recalibration", "recalibration", None, policy.recalibration_sigmas, source, False, False, detail),
        )
    fired = test.sigmas > policy.recalibration_sigmas and refusal is None
    rested = history.recalibrated is None or as_of - history.recalibrated >= policy.recalibration_cooldown
    does = "saves" if test.gain > 0 else "costs"
    detail = (
        f"a new {test.method.capitalize()} map {does} {abs(test.gain):.3g} loss per row on {test.rows} mature rows, "
        f"{test.sigmas:.1f} standard errors" + (f", but the gate would not let it in: {refusal}" if refusal else "")
    )
    limit = policy.recalibration_sigmas
    return (
        Signal("recalibration", "recalibration", round(test.sigmas, 6), limit, source, fired, fired and rested, detail),
    )


def _label_shift(reference: Reference, joined: pd.DataFrame) -> tuple[Signal, ...]:
    truth = joined["truth"].to_numpy(dtype=np.float64)
    truth = truth[np.isfinite(truth)]
    if not len(truth) or len(reference.target_runs) < 2:
        return ()
    usual = np.asarray(reference.target_runs)
    reach = float(np.abs(usual - usual.mean()).max())
    moved = float(truth.mean() - usual.mean())
    detail = f"the mean truth is {truth.mean():.4g}; in training windows {usual.min():.4g} to {usual.max():.4g}"
    source = "the furthest of the training data's windows"
    return (Signal("truth", "label", abs(moved), reach, source, abs(moved) > reach, False, detail),)


def _growth(inputs: CheckInputs, policy: Monitoring, history: History) -> tuple[Signal, ...]:
    basis = max(inputs.reference.trained_rows, history.tried_rows, 1)
    ratio = inputs.labelled_rows / basis
    limit = 1 + (policy.growth - 1) * policy.backoff**history.fruitless
    fired = ratio >= limit
    detail = f"{inputs.labelled_rows} labelled rows are {ratio:.2f}× the {basis} of the last training"
    source = "monitoring.growth" + (f", raised: fruitless trainings {history.fruitless}" if history.fruitless else "")
    return (Signal("growth", "growth", round(ratio, 6), round(limit, 6), source, fired, fired, detail),)


def _age(inputs: CheckInputs, policy: Monitoring, as_of: datetime) -> tuple[Signal, ...]:
    if policy.maximum_age is None:
        return ()
    age, limit = as_of - inputs.reference.trained_until, policy.maximum_age
    days, most = age.total_seconds() / 86400, limit.total_seconds() / 86400
    detail = f"the champion's training data ended {days:.1f} days ago; {most:.1f} are allowed"
    return (Signal("age", "schedule", days, most, "monitoring.maximum_age, days", age > limit, age > limit, detail),)


def _loss_dict(loss: MeanLoss, reference: Reference) -> dict[str, Any]:
    low, high = loss.interval() if loss.rows else (float("nan"), float("nan"))
    return {
        "name": reference.loss,
        "mean": finite(loss.mean),
        "standard_error": finite(loss.standard_error),
        "interval": [finite(low), finite(high)],
        "rows": loss.rows,
        "at_promotion": finite(reference.holdout_loss),
        "at_promotion_standard_error": finite(reference.holdout_error),
    }
