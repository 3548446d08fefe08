"""From a check's inputs to its signals: every measurement beside its limit, with persistence counted. No verdict."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from perennial.definition import Monitoring
from tasks.check.complaints.complaint import is_judgeable
from tasks.check.history import History
from tasks.check.inputs import CheckInputs, join_with_past, with_facts
from tasks.check.signal import Signal
from tasks.check.signals.columns import drift_signals, label_shift_signals, look
from tasks.check.signals.intervals import interval_signals
from tasks.check.signals.intervention import beside_naive
from tasks.check.signals.maps import map_signals, map_test
from tasks.check.signals.quality import (
    age_signals,
    alike_signals,
    await_truth,
    estimate_signal,
    explained,
    growth_signals,
    in_flight,
    is_blind,
    loss_dict,
    newest_mature,
    quality_signals,
)
from tasks.check.window import WindowFacts
from tasks.review.basis import facts


def gather(
    inputs: CheckInputs, policy: Monitoring, history: History, as_of: datetime, decision_id: str
) -> tuple[tuple[Signal, ...], dict[str, Any]]:
    """All signals, the strongest kind first, and the evidence for the record."""
    inputs = with_facts(inputs)
    joined, past = join_with_past(inputs, policy, as_of)
    window = inputs.window
    assert isinstance(window, WindowFacts)
    seen = look(inputs, window, policy, history, as_of, decision_id)
    data, summary, counts = seen.signals, seen.summary, seen.counts
    loss, covered, judged, since_mature = newest_mature(inputs, policy, joined, as_of)
    drift, moved, ratios = drift_signals(inputs, window.rows, policy, history, counts, seen.complaints, summary)
    since = in_flight(inputs, policy, history, as_of)
    drifting = any(signal.name == "drift" and signal.persistent for signal in drift)
    test, refusal = map_test(inputs, policy, joined, past)
    maps = map_signals(test, refusal, policy, history, as_of)
    mends = test.gain if policy.recalibrate and maps[0].persistent else 0.0
    windows = round((as_of - inputs.label_delay - since_mature.to_pydatetime()) / policy.window)
    quality = quality_signals(inputs, policy, history, loss, covered, judged, drifting, mends, windows)
    quality = explained(quality, joined, seen.complaints, since_mature)
    blind = is_blind(inputs, policy, history, covered, judged, as_of)
    estimated = estimate_signal(inputs, policy, history, joined, past, loss.mean if judged else None, as_of)
    signals = (
        *data,
        *quality,
        *alike_signals(inputs, joined),
        *interval_signals(inputs, policy, joined),
        *await_truth((estimated.signal, *drift, *growth_signals(inputs, policy, history)), inputs, history, since),
        *label_shift_signals(inputs.reference, joined),
        *age_signals(inputs, policy, as_of),
        *maps,
    )
    reviews = facts(inputs.review, joined)
    acted_on = beside_naive(inputs, policy, joined, as_of, judged=judged)
    evidence: dict[str, Any] = {
        "rows": window.rows,
        "window": summary.to_dict() if summary else None,
        "drift": ratios,
        "window_start": (as_of - policy.window).isoformat(),
        "mature_predictions": covered.predictions,
        "mature_labels": covered.labelled,
        "coverage": round(covered.share, 6),
        "mature_windows": windows,
        "coverage_by_age": [list(part) for part in covered.by_age],
        "judged": judged,
        "blind": blind,
        "loss": loss_dict(loss, inputs.reference),
        "estimate": estimated.evidence,
        "recalibration": {"method": test.method, "gain": test.gain, "rows": test.rows, "note": test.note},
        "complaints": [complaint.to_dict() for complaint in seen.complaints],
        "facts": [s.name for s in data if s.kind == "health" and s.persistent and not is_judgeable(s.name)],
        "labelled_rows": inputs.labelled_rows,
        "trained_rows": inputs.reference.trained_rows,
        "trained_until": inputs.reference.trained_until.isoformat(),
        **({} if reviews is None else {"review": reviews}),
        **({"moved": [item.to_dict() for item in moved]} if moved else {}),
        **({} if acted_on is None else {"intervention": acted_on}),
    }
    return signals, evidence
