"""Complaints in a check: which stand, what their rows' truth says, and how their signals tell it. No verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd

from perennial.definition import Monitoring
from perennial.model.scores import known_scores, score_array
from perennial.state.tables import ROW_ID
from tasks.check import health
from tasks.check.complaints.complaint import GONE, VALUE_KINDS, Complaint, read_complaints
from tasks.check.complaints.course import follow
from tasks.check.complaints.trial import TRIED_COLUMNS, Effect, Findings, Ruling, hold_trial, rule
from tasks.check.history import RECENT_WINDOWS, History, moment
from tasks.check.inputs import CheckInputs, Floats, newest_truth
from tasks.check.reference import QUANTILES
from tasks.check.signal import Signal
from tasks.measures.quality import mean_loss, row_losses


def follow_complaints(
    inputs: CheckInputs,
    policy: Monitoring,
    history: History,
    signals: Sequence[Signal],
    as_of: datetime,
    decision_id: str,
) -> tuple[Complaint, ...]:
    """All complaints after this check, with what the truth that is known by now says of them."""
    before = read_complaints(history.decisions)
    start = as_of - policy.window
    looked = moment(history.decisions[-1]) if history.decisions else start
    suspects = _with_truth(inputs, as_of)
    return follow(
        before,
        signals,
        as_of=as_of,
        decision_id=decision_id,
        news_since=max(start, looked) if looked < as_of else start,
        window=policy.window,
        patience=inputs.label_delay + policy.window,
        accepted=history.accepted(inputs.versions),
        acceptances=history.acceptances,
        owners={name: owned.feature for name, owned in inputs.reference.owners.items()},
        judge=lambda complaint: _judge(complaint, inputs, policy, history, suspects, as_of),
    )


def _with_truth(inputs: CheckInputs, as_of: datetime) -> pd.DataFrame:
    """The suspects whose truth is known, in order of time, with `_truth`."""
    if inputs.suspects is None or not len(inputs.suspects):
        return pd.DataFrame({inputs.time: pd.Series(dtype="datetime64[us, UTC]"), "_truth": pd.Series(dtype=float)})
    known = inputs.labels[inputs.labels["labelled_at"] <= pd.Timestamp(as_of)]
    known = known.sort_values("labelled_at", kind="stable")
    truth = newest_truth(inputs.suspects[ROW_ID], known["id"], known["truth"].to_numpy(dtype=np.float64))
    rows = inputs.suspects.assign(_truth=truth)
    rows = rows[np.isfinite(truth)].sort_values(inputs.time, kind="stable", ignore_index=True)
    return inputs.reference.described(rows)


def _judge(
    complaint: Complaint,
    inputs: CheckInputs,
    policy: Monitoring,
    history: History,
    suspects: pd.DataFrame,
    as_of: datetime,
) -> Ruling | None:
    end = min(complaint.until, as_of - inputs.label_delay)
    if end <= complaint.since or (complaint.judged_until is not None and complaint.judged_until >= end):
        return None
    rows = suspects[(suspects[inputs.time] >= complaint.since) & (suspects[inputs.time] < end)]
    found = Findings()
    if complaint.kind not in (*GONE, "unreadable"):
        if len(rows) < policy.minimum_rows:
            return None
        found = _findings(complaint, inputs, history, rows, (end - complaint.since) / policy.window)
    said = rule(complaint.kind, found)
    if said is None:
        return None
    effects = {"later": found.later, "sound": found.sound, "undone": found.undone, "champion": found.champion}
    numbers = {
        f"{name}_{what}": round(float(getattr(effect, what)), 6)
        for name, effect in effects.items()
        if effect is not None
        for what in ("gain", "error", "rows")
    }
    return Ruling(said[0], said[1], end, numbers)


def _findings(
    complaint: Complaint, inputs: CheckInputs, history: History, rows: pd.DataFrame, windows: float
) -> Findings:
    columns = _doubted_columns(complaint, inputs)
    if complaint.column is not None and not columns:
        return Findings()  # the champion of now does not read it
    features = _tried_columns(inputs, columns)
    sound = rows[:0] if inputs.holdout is None else inputs.reference.described(inputs.holdout)
    sound = sound[[*features, "_truth"]].dropna(subset="_truth")
    undo = None
    if complaint.kind == "unit of" and columns and len(sound):
        undo = _conversion(rows[columns[0]], sound[columns[0]])
    found = hold_trial(rows[[*features, "_truth"]], sound, columns, undo=undo, classes=len(inputs.reference.classes))
    champion = _champion(complaint, inputs, history, rows)
    decimal = undo is not None and undo[1] == 0 and (undo[0] >= 10 or 0 < undo[0] <= 0.1)
    return replace(found, champion=champion, decimal=decimal, windows=windows)


def _doubted_columns(complaint: Complaint, inputs: CheckInputs) -> list[str]:
    """The column in question, or all that stand for a text or an image whose values are; none where rows are."""
    if complaint.column is None:
        return []
    named = complaint.name.removeprefix(f"{complaint.kind} ")
    known = [column.name for column in inputs.reference.row_columns]
    if complaint.kind not in VALUE_KINDS and named in known:
        return [named]
    owners = inputs.reference.owners
    return [name for name in known if name in owners and owners[name].feature == complaint.column]


def _tried_columns(inputs: CheckInputs, doubted: Sequence[str]) -> list[str]:
    """The features that matter most, and those in question."""
    importance = inputs.reference.importance
    names = [item.name for item in inputs.reference.row_columns]
    chosen = sorted(names, key=lambda name: -importance.get(name, 0.0))[:TRIED_COLUMNS]
    return [*chosen, *(name for name in doubted if name not in chosen)]


def _conversion(now: pd.Series[float], before: pd.Series[float]) -> tuple[float, float] | None:
    """Factor and shift of the conversion that explains best how the values moved."""
    quantiles: list[Floats] = [
        np.asarray(np.nanquantile(part.to_numpy(dtype=np.float64), QUANTILES), dtype=np.float64)
        for part in (now, before)
    ]
    scale = float(quantiles[1][-1] - quantiles[1][0])
    if not all(np.isfinite(part).all() for part in quantiles) or not scale > 0:
        return None
    name, _ = health.best_conversion(quantiles[0], [quantiles[1]], scale)
    return next(((factor, shift) for known, factor, shift in health.CONVERSIONS if known == name), None)


def _champion(complaint: Complaint, inputs: CheckInputs, history: History, rows: pd.DataFrame) -> Effect | None:
    """How the answers to the rows in question did, beside windows that were realised before them, or the promotion."""
    reference = inputs.reference
    answered = rows[known_scores(score_array(rows["_score"]))]
    if len(answered) < 2:
        return None
    truth, score = answered["_truth"].to_numpy(dtype=np.float64), score_array(answered["_score"])
    here = mean_loss(row_losses(truth, score, reference.loss))
    losses = _losses_before(complaint, inputs, history)
    level = float(losses.mean()) if len(losses) else reference.holdout_loss
    spread = float(losses.std(ddof=1)) if len(losses) > 1 else np.nan_to_num(reference.holdout_error)
    if not level > 0:
        return None
    return Effect((level - here.mean) / level, float(np.hypot(here.standard_error, spread)) / level, here.rows)


def _losses_before(complaint: Complaint, inputs: CheckInputs, history: History) -> Floats:
    """Of the newest windows whose truth was known and that lie before the rows in question."""
    found: list[float] = []
    for row in reversed(history.decisions):
        loss = row["evidence"].get("loss") or {}
        if moment(row) - inputs.label_delay > complaint.since or loss.get("name") != inputs.reference.loss:
            continue
        if row["evidence"].get("judged") and loss.get("mean") is not None:
            found.append(float(loss["mean"]))
        if len(found) == RECENT_WINDOWS:
            break
    return np.array(found)
