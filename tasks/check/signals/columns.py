"""Signals of a window's columns: health, drift, and the shift of the truth. No quality, no verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from perennial.definition import Monitoring
from perennial.model.scores import score_array, shares
from tasks.check import health
from tasks.check.complaints.complaint import Complaint, is_judgeable, read_complaints
from tasks.check.complaints.course import tell
from tasks.check.drift import ColumnDrift, measure_drift
from tasks.check.history import History, moment
from tasks.check.inputs import CheckInputs, Floats
from tasks.check.reference import Reference, RunSummary, is_prediction, prediction_values
from tasks.check.signal import Signal, finite
from tasks.check.signals.complaints import follow_complaints
from tasks.check.signals.moved import Moved, what_moved
from tasks.check.signals.persistence import accepted_signal, persists
from tasks.check.window import WindowFacts
from tasks.measures.profiles import Counts

DRIFT_SOURCE = "windows of the training data, each against the rest of it"


TOLD_COLUMNS, TOLD_MOVED = 10, 3


@dataclass(frozen=True)
class Seen:
    """What a check saw of its window.

    Attributes:
        signals: Of its health, as complaints and acceptances have it.
        complaints: All, after this check.
        summary, counts: Of a readable window: its summary, and its counts of shape (columns, width).
    """

    signals: tuple[Signal, ...]
    complaints: tuple[Complaint, ...]
    summary: RunSummary | None
    counts: Counts | None


def look(
    inputs: CheckInputs, window: WindowFacts, policy: Monitoring, history: History, as_of: datetime, decision_id: str
) -> Seen:
    """The window's health and its counts."""
    reference = inputs.reference
    stale_after = policy.stale_after or policy.window
    found = [*health.check_feed(reference, window.rows, inputs.freshness, as_of, stale_after)]
    found += health.check_schema(window)
    mine = inputs.predictions[inputs.predictions["version"].astype(str).isin(inputs.versions)]
    scores = score_array(mine["score"])
    found += health.check_predictions(scores)
    summary, counts = None, None
    if window.readable:
        summary = window.summary(reference.columns)
        if window.rows >= policy.minimum_rows:
            standing = read_complaints(history.decisions)
            recent = health.recent_runs(history.decisions, history.acceptances, standing)
            found += health.check_rows(reference, summary, recent)
            found += health.check_columns(reference, window, summary, recent)
        counts = _counts(reference, window, scores)
    accepted = history.accepted(inputs.versions)
    told = [accepted_signal(signal, accepted) for signal in found]
    complaints = follow_complaints(inputs, policy, history, told, as_of, decision_id)
    signals = (_told(signal, complaints, inputs, history, decision_id) for signal in told)
    return Seen(tuple(signals), complaints, summary, counts)


def _told(
    signal: Signal, complaints: Sequence[Complaint], inputs: CheckInputs, history: History, decision_id: str
) -> Signal:
    """As its complaint has it; a fact that lasts says so."""
    if is_judgeable(signal.name) or not signal.persistent:
        return tell(signal, complaints, inputs.model, decision_id)
    first = history.first_of_row(signal.name)
    if first is None:
        return signal
    since = f"still, since {moment(first):%Y-%m-%d %H:%M} (decision {first['decision_id'][:8]})"
    return replace(signal, detail=f"{since}: {signal.detail}")


def _counts(reference: Reference, window: WindowFacts, scores: Floats) -> Counts:
    width = reference.profile.counts.shape[2]
    counts = np.zeros((len(reference.profile.columns), width), dtype=np.int64)
    answers = prediction_values(scores, reference.classes)
    for row, column in enumerate(reference.profile.columns):
        if is_prediction(column.name):
            tally = np.bincount(column.codes(pd.Series(answers[column.name])), minlength=column.bins + 1)
        else:
            tally = window.columns[column.name].counts
        counts[row, : column.bins] = tally[: column.bins]
        counts[row, -1] = tally[column.bins]
    return counts


def drift_signals(
    inputs: CheckInputs,
    rows: int,
    policy: Monitoring,
    history: History,
    counts: Counts | None,
    complaints: Sequence[Complaint],
    summary: RunSummary | None,
) -> tuple[tuple[Signal, ...], tuple[Moved, ...], dict[str, float]]:
    """Of all columns together, then each column's; what a complaint refuses is told, and asks for no training.

    Returns:
        The signals; what moved of texts and images, in words; and every column's movement in times of its limit, the
        furthest first, none without limits.
    """
    reference = inputs.reference
    if counts is None or summary is None or rows < policy.minimum_rows:
        detail = f"drift was not measured: {rows} rows, at least {policy.minimum_rows} are needed"
        detail += "; if it is always so, give monitoring.window more days, or lower monitoring.minimum_rows"
        return (Signal("drift", "drift", None, 1.0, DRIFT_SOURCE, False, False, detail),), (), {}
    importance = dict(reference.importance)
    answered = [each.name for each in reference.profile.columns if is_prediction(each.name)]
    if answered and counts[-1].sum():
        # All together weigh as one: of many classes none is told apart from features by their number.
        importance |= dict.fromkeys(answered, max(importance.values(), default=1.0) / len(answered))
    measured = measure_drift(reference.profile, reference.null, counts, importance, policy.false_alarm_rate)
    # Of most training rows no answer is kept: what is missing there is no custom, and answers are checked by health.
    moved = [replace(item, missing=0.0) if is_prediction(item.name) else item for item in measured]
    moved = [
        item
        for item in sorted(moved, key=lambda item: -np.nan_to_num(item.ratio, nan=-1.0))
        if not is_prediction(item.name) or counts[_position(reference, item.name)].sum()
    ]
    ratios = [item.ratio for item in moved if not np.isnan(item.ratio)]
    told = what_moved(reference, summary, counts, moved)
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
        detail += "".join(f"; {each.told}" for each in told[:TOLD_MOVED])
        sound = max(
            (item.ratio for item in _undoubted(reference, moved, complaints) if not np.isnan(item.ratio)), default=0.0
        )
        if greatest > 1 and sound <= 1:
            detail += "; a complaint stands against what moved"
        persistent = persists(history, inputs.versions, "drift", sound > 1, sound > policy.extreme, policy)
        source = f"{DRIFT_SOURCE}; {policy.false_alarm_rate:.2%} false alarms for all columns together"
        whole = Signal("drift", "drift", round(greatest, 6), 1.0, source, greatest > 1, persistent, detail)
    words = {each.column: each.told for each in told}
    signals = (whole, *(_column_signal(item, words.get(item.name)) for item in moved[:TOLD_COLUMNS]))
    return signals, told, {item.name: round(item.ratio, 6) for item in moved if not np.isnan(item.ratio)}


def _undoubted(
    reference: Reference, moved: Sequence[ColumnDrift], complaints: Sequence[Complaint]
) -> list[ColumnDrift]:
    """Columns that no complaint refuses in this window, nor answers to such rows: the answers follow the columns."""
    standing = [item for item in complaints if item.refuses and item.firing]
    if any(item.column is None for item in standing):
        return []
    names = {str(item.column) for item in standing}
    owners = reference.owners
    moved = [item for item in moved if (owners[item.name].feature if item.name in owners else item.name) not in names]
    return [item for item in moved if not (standing and is_prediction(item.name))]


def _position(reference: Reference, name: str) -> int:
    return next(i for i, column in enumerate(reference.profile.columns) if column.name == name)


def _column_signal(item: ColumnDrift, words: str | None) -> Signal:
    """The column's worse side: its values, or the share of them that is missing; in words, where there are any."""
    fired = bool(item.ratio > 1)
    gone = bool(item.ratio > item.distance / item.limit)
    name = f"drift of {item.name}" + (" (missing)" if gone else "")
    value, limit = (abs(item.missing), item.missing_limit) if gone else (item.distance, item.limit)
    detail = f"{item.name}: distance {item.distance:.3f}, missing {item.missing:+.1%}, importance {item.importance:.1%}"
    detail = f"{words}; {detail}" if words else detail
    return Signal(name, "drift", finite(value), finite(limit), DRIFT_SOURCE, fired, False, detail)


def label_shift_signals(reference: Reference, joined: pd.DataFrame) -> tuple[Signal, ...]:
    truth = joined["truth"].to_numpy(dtype=np.float64)
    truth = truth[np.isfinite(truth)]
    if not len(truth) or len(reference.target_runs) < 2:
        return ()
    usual = np.asarray(reference.target_runs)
    if usual.ndim == 2:
        return (_class_shift(reference.classes, usual, truth),)
    reach = float(np.abs(usual - usual.mean()).max())
    moved = float(truth.mean() - usual.mean())
    detail = f"the mean truth is {truth.mean():.4g}; in training windows {usual.min():.4g} to {usual.max():.4g}"
    source = "the furthest of the training data's windows"
    return (Signal("truth", "label", abs(moved), reach, source, abs(moved) > reach, False, detail),)


def _class_shift(classes: Sequence[str], usual: Floats, truth: Floats) -> Signal:
    """Of many classes the one whose share has moved furthest beyond what training windows had."""
    reach = np.abs(usual - usual.mean(axis=0)).max(axis=0)
    now = shares(truth, len(classes))
    moved = np.abs(now - usual.mean(axis=0))
    furthest = int(np.argmax(moved - reach))
    detail = (
        f"{classes[furthest]} is {now[furthest]:.1%} of the truth; in training windows {usual[:, furthest].min():.1%} "
        f"to {usual[:, furthest].max():.1%}; {int((moved > reach).sum())} of {len(classes)} classes are beyond theirs"
    )
    source = "the furthest of the training data's windows, of the class that moved most"
    value, limit = float(moved[furthest]), float(reach[furthest])
    return Signal("truth", "label", value, limit, source, value > limit, False, detail)
