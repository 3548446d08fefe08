"""A check's estimate of the newest window's loss before its labels come: value, limit, and whether it may be trusted.

How estimates are made is in `estimates`, how their errors are measured in `record`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.definition import Monitoring
from perennial.errors import DataError
from perennial.model.scores import known_scores, own_scores, score_array
from perennial.state.tables import ROW_ID
from tasks.check.estimate import estimates
from tasks.check.estimate import record as estimate_record
from tasks.check.estimate.estimates import Floats, LossEstimate
from tasks.check.estimate.record import Record
from tasks.check.history import History
from tasks.check.inputs import CheckInputs
from tasks.check.signal import Signal, finite
from tasks.check.window import missing_features
from tasks.measures.quality import row_losses

NAME = "estimated loss"
WIDENING = 2.0


@dataclass(frozen=True)
class EstimatedQuality:
    """What the check says about the loss of rows without labels.

    Attributes:
        signal: Not yet persistent.
        evidence: JSON-ready, for the ledger: a later check measures this estimate by it. None without an estimate.
        trusted: It was nearer to the truth than guessing, on this model.
        extreme: So far beyond its limit that one check is enough.
    """

    signal: Signal
    evidence: dict[str, Any] | None
    trusted: bool = False
    extreme: bool = False


def estimate_quality(
    inputs: CheckInputs,
    policy: Monitoring,
    history: History,
    joined: pd.DataFrame,
    past: pd.DataFrame | None,
    newest_loss: float | None,
    as_of: datetime,
) -> EstimatedQuality:
    """Estimate the newest window's loss and hold it against its limit.

    Args:
        inputs, policy, history, as_of: The check's.
        joined: The champion's mature predictions with their truth (tasks.check.evidence.join_labels).
        past: `inputs.past` with a column `truth` as known at the moment.
        newest_loss: Of the newest mature window; None where it can't be judged.
    """
    found = _estimate(inputs, policy, joined)
    if isinstance(found, str):
        return EstimatedQuality(_silent(f"no estimate of the loss before labels: {found}"), None)
    record = _record(inputs, policy, history, past, as_of)
    newest = None if newest_loss is None else (as_of, newest_loss)
    reference = inputs.reference
    evidence = {
        "value": found.value,
        "standard_error": finite(found.standard_error),
        "rows": found.rows,
        "method": found.method,
        "fitted_rows": found.fitted_rows,
        "auc": found.auc,
        "versions": sorted(inputs.versions),
        "map": inputs.recalibrator.to_dict() if inputs.recalibrator else None,
        "promotion": finite(reference.holdout_loss),
        "recent": estimate_record.recent_loss(history, policy.window, newest),
        "record": record.to_dict(),
        "trusted": not record.distrust,
    }
    if record.error is None or np.isnan(reference.holdout_loss):
        lacking = record.distrust or "no loss is known from its promotion"
        detail = f"{reference.loss} of the newest {found.rows} rows is estimated as {found.value:.4g}; {lacking}"
        return EstimatedQuality(_silent(detail, found.value), evidence)
    return _judged(found, record, evidence, policy, history, inputs)


def _judged(
    found: LossEstimate,
    record: Record,
    evidence: dict[str, Any],
    policy: Monitoring,
    history: History,
    inputs: CheckInputs,
) -> EstimatedQuality:
    reference, off = inputs.reference, record.error or 0.0
    own = 0.0 if np.isnan(reference.holdout_error) else reference.holdout_error
    sigmas = policy.quality_sigmas * policy.backoff**history.fruitless
    reach = sigmas * float(np.hypot(found.standard_error, own)) + WIDENING * off
    limit = reference.holdout_loss + reach
    fired = found.value > limit
    source = (
        f"{sigmas:.2g} standard errors above the loss at promotion, and {WIDENING:g} times {off:.3g}, the "
        f"estimate's own error over {record.windows} windows"
    )
    detail = (
        f"{reference.loss} of the newest {found.rows} rows, without labels, is estimated as {found.value:.4g} "
        f"({found.method}), {'above' if fired else 'within'} the limit of {limit:.4g}; "
        + (f"not trusted: {record.distrust}" if record.distrust else f"trusted: {_standing(record)}")
    )
    extreme = found.value > reference.holdout_loss + policy.extreme * reach
    signal = Signal(NAME, "estimate", found.value, limit, source, fired, False, detail)
    return EstimatedQuality(signal, evidence, not record.distrust, extreme)


def _standing(record: Record) -> str:
    told = f"over {record.windows} windows it was off by {record.error:.3g}"
    beside = [
        f"{name} by {error:.3g}"
        for name, error in (
            ("no change since promotion", record.promotion_error),
            ("the last realised windows", record.recent_error),
        )
        if error is not None
    ]
    return f"{told}, {' and '.join(beside)}" if beside else told


def _silent(detail: str, value: float | None = None) -> Signal:
    return Signal(NAME, "estimate", value, None, "its own measured error", False, False, detail)


def _record(
    inputs: CheckInputs, policy: Monitoring, history: History, past: pd.DataFrame | None, as_of: datetime
) -> Record:
    if past is None:
        return Record(0)
    rows = estimate_record.past_windows(history, policy.window, as_of - inputs.label_delay)
    return estimate_record.measure(
        estimate_record.realise(rows, past, inputs.reference.loss, policy.minimum_rows, policy.minimum_coverage)
    )


def _estimate(inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame) -> LossEstimate | str:
    """The estimate, or why there is none."""
    mine = inputs.predictions[inputs.predictions["version"].astype(str).isin(inputs.versions)]
    raw = own_scores(mine)
    mine = mine.assign(raw_score=raw)[known_scores(score_array(raw))]
    if len(mine) < policy.minimum_rows:
        return f"{len(mine)} predictions of this champion in the window, {policy.minimum_rows} are needed"
    if inputs.reference.task == "classification":
        known = _known_scores(inputs, policy, joined)
        if known is None:
            return _too_few(policy)
        raw_scores = score_array(mine["raw_score"])
        return estimates.estimate_class_loss(*known, raw_scores, inputs.recalibrator, inputs.reference.loss)
    losses = _known_losses(inputs, policy, joined)
    if losses is None:
        return _too_few(policy)
    window = _window_inputs(inputs, mine)
    if window is None:
        return "the window's rows can't be read as the champion's features"
    return estimates.estimate_value_loss(*losses, window, len(mine))


def _too_few(policy: Monitoring) -> str:
    return f"fewer than {policy.minimum_rows} rows with labels, or too small a share of them, to fit it on"


def _usable(policy: Monitoring, known: NDArray[np.bool_]) -> bool:
    """Whether the rows with labels tell about all of them, not of those alone whose labels came first."""
    return bool(known.sum() >= policy.minimum_rows and known.sum() >= policy.minimum_coverage * len(known))


def _known_scores(inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame) -> tuple[Floats, Floats] | None:
    """Truth and raw score of mature rows, or of the rows that the champion was judged on; None where there are few."""
    found = [(joined["truth"], joined["raw_score"])]
    found += [] if inputs.holdout is None else [(inputs.holdout["_truth"], inputs.holdout["_score"])]
    for truths, scores in found:
        truth, raw = truths.to_numpy(dtype=np.float64), score_array(scores)
        known = np.isfinite(truth) & known_scores(raw)
        if _usable(policy, known):
            return truth[known], raw[known]
    return None


def _known_losses(inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame) -> tuple[Floats, Floats] | None:
    """Losses, and what the model of them reads, of mature rows or of those that the champion was judged on."""
    known = (joined["truth"].notna() & joined["score"].notna()).to_numpy()
    if inputs.mature_features is not None and _usable(policy, known):
        labelled = joined[known]
        features = inputs.mature_features.drop_duplicates(ROW_ID)
        at = _first_positions(features[ROW_ID], labelled["id"])
        features, at = features[at >= 0], at[at >= 0]
        if len(features) >= policy.minimum_rows:
            chosen = estimates.sample_ids(features[ROW_ID], estimates.FEATURE_ROWS)
            rows = labelled.iloc[at[chosen]]
            return _losses(inputs, features.iloc[chosen], rows["truth"], rows["score"].to_numpy(dtype=np.float64))
    held = None if inputs.holdout is None else inputs.holdout.dropna(subset=["_score", "_truth"])
    if held is None or len(held) < policy.minimum_rows:
        return None
    held = held.iloc[np.linspace(0, len(held) - 1, min(len(held), estimates.FEATURE_ROWS)).astype(np.int64)]
    raw = held["_score"].to_numpy(dtype=np.float64)
    return _losses(inputs, held, held["_truth"], inputs.recalibrator.apply(raw) if inputs.recalibrator else raw)


def _losses(inputs: CheckInputs, features: pd.DataFrame, truth: pd.Series[Any], score: Floats) -> tuple[Floats, Floats]:
    losses = row_losses(truth.to_numpy(dtype=np.float64), score, inputs.reference.loss)
    return losses, estimates.loss_inputs(features, score, inputs.reference)


def _window_inputs(inputs: CheckInputs, mine: pd.DataFrame) -> Floats | None:
    """What the model of the loss reads, for a sample of the window's rows that the champion has answered."""
    reference, features = inputs.reference, inputs.window_features
    if features is None or ROW_ID not in features or missing_features(reference, features):
        return None
    features = features.drop_duplicates(ROW_ID)
    at = _first_positions(features[ROW_ID], mine["id"])
    features, at = features[at >= 0], at[at >= 0]
    if not len(features):
        return None
    chosen = estimates.sample_ids(features[ROW_ID], estimates.FEATURE_ROWS)
    features, raw = features.iloc[chosen], mine["raw_score"].to_numpy(dtype=np.float64)[at[chosen]]
    score = inputs.recalibrator.apply(raw) if inputs.recalibrator else raw
    try:
        return estimates.loss_inputs(features, score, reference)
    except DataError:  # what is wrong with the columns is the health signals' to say
        return None


def _first_positions(wanted: pd.Series[Any], ids: pd.Series[Any]) -> NDArray[np.intp]:
    """Where each wanted id is found first, -1 for none; only the few wanted are hashed, not the whole window."""
    import pyarrow as pa
    import pyarrow.compute as pc

    few, many = (pa.array(item.astype("str"), type=pa.large_string()) for item in (wanted, ids))
    found = pc.index_in(many, value_set=few).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(np.isfinite(found))  # no match is a NaN
    positions = np.full(len(wanted), -1, dtype=np.intp)
    positions[found[rows][::-1].astype(np.intp)] = rows[::-1]
    return positions
