"""Signals of the champion's quality, and of how much is new since its training. No verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import Monitoring
from perennial.model.scores import known_scores, score_array
from tasks.check.complaints.complaint import Complaint
from tasks.check.complaints.masks import is_refused
from tasks.check.estimate.unlabelled import EstimatedQuality, estimate_quality
from tasks.check.gains import RECENT, expected_gain
from tasks.check.history import History
from tasks.check.inputs import CheckInputs, judged_since
from tasks.check.reference import Reference, is_prediction
from tasks.check.signal import Signal, finite
from tasks.check.signals.persistence import persists
from tasks.measures.profiles import microseconds
from tasks.measures.propensity import effective_rows
from tasks.measures.quality import Coverage, MeanLoss, coverage, mean_loss, row_losses

ALIKE_SHARE = 0.99
LEAST_ALIKE_ROWS = 30
_ROUNDING = 1e-6


def newest_mature(
    inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame, as_of: datetime
) -> tuple[MeanLoss, Coverage, bool, pd.Timestamp]:
    """The champion's loss on the newest mature rows, their labels' coverage, whether that suffices, and since when.

    They are those of one window, or of as many as it takes where windows have few rows. Rows of unequal weight count as
    the fewer that they are worth.
    """
    end = pd.Timestamp(as_of - inputs.label_delay)
    truth, score = joined["truth"].to_numpy(dtype=np.float64), score_array(joined["score"])
    answered = known_scores(score)
    known = np.isfinite(truth) & answered
    start = judged_since(joined, known, end, policy)
    inside = ((joined["time"] >= start) & (joined["time"] < end)).to_numpy()
    part, truth, score, known = joined[inside], truth[inside], score[inside], known[inside]
    weights = part["weight"].to_numpy(dtype=np.float64)[known] if "weight" in part else None
    loss = mean_loss(row_losses(truth[known], score[known], inputs.reference.loss), weights=weights)
    edges = [int(moment.value // 1000) for moment in (start.as_unit("ns"), end.as_unit("ns"))]
    now = int(pd.Timestamp(as_of).as_unit("ns").value // 1000)
    labelled = part["labelled"].to_numpy() & answered[inside]
    covered = coverage(microseconds(part["time"]), labelled, edges[0], edges[1], now)
    worth = loss.rows if weights is None else effective_rows(weights)
    judged = worth >= policy.minimum_rows - _ROUNDING and covered.share >= policy.minimum_coverage
    return loss, covered, judged, start


def quality_signals(
    inputs: CheckInputs,
    policy: Monitoring,
    history: History,
    loss: MeanLoss,
    covered: Coverage,
    judged: bool,
    drifting: bool,
    mends: float,
    windows: int,
) -> tuple[Signal, ...]:
    """The newest mature loss, of so many windows, beside its limit.

    What a new map would mend (by `mends` per row) asks for no training, as long as no map has been tried for it.
    """
    reference = inputs.reference
    sigmas = policy.quality_sigmas * (policy.backoff**history.fruitless)
    if drifting:
        sigmas /= policy.backoff
    source = f"{sigmas:.2g} standard errors above the loss at promotion"
    source += ", lowered by persistent drift" if drifting else ""
    if not judged or np.isnan(reference.holdout_loss):
        reason = "no loss is known from its promotion" if judged else _why_unjudged(inputs, loss, covered, policy)
        return (Signal("loss", "quality", finite(loss.mean), None, source, False, False, f"quality: {reason}"),)
    own = 0.0 if np.isnan(reference.holdout_error) else reference.holdout_error
    error = float(np.hypot(loss.standard_error, own))
    limit = reference.holdout_loss + sigmas * error
    fired = loss.mean > limit
    extreme = loss.mean > reference.holdout_loss + policy.extreme * sigmas * error
    persistent = persists(history, inputs.versions, "loss", fired, extreme, policy)
    mended = fired and mends > 0 and loss.mean - mends <= limit
    tried = mended and history.map_was_tried(inputs.versions, "loss", policy.persistence[1] - 1)
    low, high = loss.interval()
    where = f"{loss.rows} mature rows" + (f" of {windows} windows" if windows > 1 else "")
    detail = (
        f"{reference.loss} is {loss.mean:.4g} [{low:.4g}, {high:.4g}] on {where}, "
        f"{'above' if fired else 'within'} the limit of {limit:.4g}; at promotion it was {reference.holdout_loss:.4g}"
        + (f"; a new map would bring it to {loss.mean - mends:.4g}" if mended else "")
        + (", but one was tried for this and has not" if tried else "")
    )
    return (Signal("loss", "quality", loss.mean, limit, source, fired, persistent and (tried or not mended), detail),)


def _why_unjudged(inputs: CheckInputs, loss: MeanLoss, covered: Coverage, policy: Monitoring) -> str:
    which = "" if inputs.experiment is None else " on which nobody acted"
    if covered.predictions == 0:
        return f"this version has no mature prediction{which} yet"
    if covered.share < policy.minimum_coverage:
        return (
            f"{covered.labelled} of {covered.predictions} mature predictions{which} have labels ({covered.share:.0%}); "
            f"{policy.minimum_coverage:.0%} are needed to judge"
        )
    if loss.rows < covered.labelled:
        return (
            f"{covered.labelled} mature rows have labels, {loss.rows} of an age at which all labels have come; "
            f"{policy.minimum_rows} of those are needed to judge"
        )
    return f"{loss.rows} mature rows{which} have labels; {policy.minimum_rows} are needed to judge" + (
        ", counted by what they are worth" if which and loss.rows >= policy.minimum_rows else ""
    )


def is_blind(
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


def estimate_signal(
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
    lasts = persists(history, inputs.versions, found.signal.name, found.signal.fired, found.extreme, policy)
    return replace(found, signal=replace(found.signal, persistent=found.trusted and lasts))


def explained(
    signals: tuple[Signal, ...], joined: pd.DataFrame, complaints: Sequence[Complaint], newest: datetime
) -> tuple[Signal, ...]:
    """A fall of quality on rows that a complaint refuses asks for no training: it is the data's."""
    times = joined["time"][joined["time"] >= pd.Timestamp(newest)]
    if not is_refused(times, complaints).any():
        return signals
    return tuple(
        replace(signal, persistent=False, detail=f"{signal.detail}; a complaint stands against these rows")
        if signal.persistent
        else signal
        for signal in signals
    )


def alike_signals(inputs: CheckInputs, joined: pd.DataFrame) -> tuple[Signal, ...]:
    """A champion that answers one value to all, while the truth varies: what is broken is the model."""
    mine = inputs.predictions[inputs.predictions["version"].astype(str).isin(inputs.versions)]
    scores = score_array(mine["score"])
    scores = scores[known_scores(scores)]
    if len(scores) < LEAST_ALIKE_ROWS:
        return ()
    values, counts = np.unique(np.round(scores, 9), return_counts=True, axis=0)
    share = float(counts.max() / len(scores))
    known = [column for column in inputs.reference.profile.columns if is_prediction(column.name)]
    if share < ALIKE_SHARE or (known and all(column.bins <= 3 for column in known)):
        return ()
    truth = joined["truth"].to_numpy(dtype=np.float64)
    truth = truth[np.isfinite(truth)]
    varied = np.array(inputs.reference.target_runs)
    varies = bool(np.ptp(truth) > 0) if len(truth) > 1 else bool(len(varied) and np.ptp(varied, axis=0).max() > 0)
    answer = ", ".join(f"{value:.4g}" for value in np.atleast_1d(values[counts.argmax()]))
    detail = f"the model answers {answer} to {counts.max()} of {len(scores)} rows" + (
        ": it has learned nothing, while the truth varies" if varies else "; there is no truth yet that says otherwise"
    )
    source = "share of one answer, while the truth varies; fixed"
    return (Signal("predictions alike", "quality", share, ALIKE_SHARE, source, varies, varies, detail),)


def growth_signals(inputs: CheckInputs, policy: Monitoring, history: History) -> tuple[Signal, ...]:
    """How much is new, beside how much must be.

    After fruitless trainings more must be, unless the model's retrainings have shown that one is worth its price.
    """
    basis = max(inputs.reference.trained_rows, history.tried_rows, 1)
    ratio = inputs.labelled_rows / basis
    expected = expected_gain(history)
    failed = max(history.fruitless, sum(gain < 0 for gain in history.gains[-RECENT:]))
    dear = failed > 0 and expected.mean < policy.training_price
    limit = 1 + (policy.growth - 1) * (policy.backoff**failed if dear else 1)
    fired = ratio >= limit
    detail = f"{inputs.labelled_rows} labelled rows are {ratio:.2f}× the {basis} of the last training"
    detail += f"; {expected.told()}" if expected.trainings else ""
    source = "monitoring.growth"
    if dear:
        source += f", raised: trainings that brought nothing: {failed}; less is expected than monitoring.training_price"
    return (Signal("growth", "growth", round(ratio, 6), round(limit, 6), source, fired, fired, detail),)


def age_signals(inputs: CheckInputs, policy: Monitoring, as_of: datetime) -> tuple[Signal, ...]:
    if policy.maximum_age is None:
        return ()
    age, limit = as_of - inputs.reference.trained_until, policy.maximum_age
    days, most = age.total_seconds() / 86400, limit.total_seconds() / 86400
    detail = f"the champion's training data ended {days:.1f} days ago; {most:.1f} are allowed"
    return (Signal("age", "schedule", days, most, "monitoring.maximum_age, days", age > limit, age > limit, detail),)


def in_flight(inputs: CheckInputs, policy: Monitoring, history: History, as_of: datetime) -> datetime | None:
    """When the newest training was asked for, if no label has shown yet what it brought; None otherwise.

    It has been shown by the first mature window that lies wholly after it.
    """
    newest = history.attempts[-1] if history.attempts else None
    return newest if newest is not None and newest > as_of - inputs.label_delay - policy.window else None


def await_truth(
    signals: tuple[Signal, ...], inputs: CheckInputs, history: History, since: datetime | None
) -> tuple[Signal, ...]:
    """Signals that rest on no label, without their word where a training could learn nothing new, or is in flight.

    They would ask again on what the last training has learned from already, until its truth comes.

    Args:
        since: As of `in_flight`.
    """
    if inputs.labelled_rows <= max(inputs.reference.trained_rows, history.tried_rows):
        told = "; no label is newer than those of the last training"
    elif since is not None:
        told = f"; no label has shown yet what the training of {since:%Y-%m-%d %H:%M} brought"
    else:
        return signals
    return tuple(
        replace(signal, persistent=False, detail=signal.detail + told) if signal.persistent else signal
        for signal in signals
    )


def loss_dict(loss: MeanLoss, reference: Reference) -> dict[str, Any]:
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
