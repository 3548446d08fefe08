"""A decision's first lines, in words for those who own the product and not the statistics. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tasks.check.complaints.complaint import Complaint, read_complaints
from tasks.check.decision import Decision
from tasks.check.signal import Signal

TOLD_MOVED = 3
NOTICED = 0.005  # a change of less is told as none
_SHARES = ((0.9, "all"), (0.6, "most"), (0.35, "about half"), (0.0, "a part"))
_FAULTS = {
    "missing": "{} is often missing",
    "unseen": "{} holds values never seen before",
    "constant": "{} is always the same",
    "unit of": "{} looks as if its unit had changed",
    "range of": "{} holds impossible values",
    "type of": "{} holds another kind of value",
    "empty": "{} is often empty",
    "unreadable": "the pictures of {} often can't be read",
    "repeated": "{} often repeats itself",
}


def summary(decision: Decision) -> tuple[str, ...]:
    """How the predictions do, what is wrong or has moved, and what follows: a sentence each."""
    signals = {signal.name: signal for signal in decision.signals}
    lines = [_quality(decision)]
    lines += _doubts(decision)
    lines += [f"{_sentence(str(item['told']))}." for item in decision.evidence.get("moved", ())[:TOLD_MOVED]]
    if decision.verdict == "recalibrate":
        lines.append(_correction(decision))
    if decision.verdict == "retrain":
        lines.append(f"{_why_trained(decision)}: a new model is trained, and goes in only if it proves better.")
    if decision.verdict == "hold":
        lines.append(_why_nothing(decision, signals))
    return tuple(lines)


def _quality(decision: Decision) -> str:
    loss, signal = decision.evidence.get("loss") or {}, _first(decision, "quality", "loss")
    if not decision.evidence.get("judged") or not loss.get("mean") or not loss.get("at_promotion"):
        why = signal.detail.removeprefix("quality: ") if signal else "no loss was measured"
        return f"Whether the predictions are still good can't be told yet: {why}."
    change = loss["mean"] / loss["at_promotion"] - 1
    since = f"when the model was made ({datetime.fromisoformat(decision.evidence['trained_until']):%B %Y})"
    if abs(change) < NOTICED:
        return f"Predictions are as good as {since}."
    if change < 0:
        return f"Predictions are {_percent(-change)} better than {since}."
    if signal is None or not signal.fired:
        return f"Predictions are {_percent(change)} worse than {since}, which chance alone would explain."
    return f"Predictions have become {_percent(change)} worse than {since}."


def _correction(decision: Decision) -> str:
    loss, found = (decision.evidence.get(name) or {} for name in ("loss", "recalibration"))
    what = "the probabilities" if loss.get("name") in ("log_loss", "brier") else "the predictions"
    if found.get("note"):
        return f"Corrections of {what} have not lasted here: the one in force is taken off; no new model is needed."
    gain, mean, before = found.get("gain") or 0.0, loss.get("mean"), loss.get("at_promotion")
    if mean and before and mean / before - 1 >= NOTICED and gain > 0:
        share = gain / (mean - before)
        word = next(word for least, word in _SHARES if share >= least)
        return f"A small correction of {what} takes back {word} of it; no new model is needed."
    better = f" makes them {_percent(gain / mean)} better" if mean and gain > 0 else " helps"
    return f"A small correction of {what}{better}; no new model is needed."


def _doubts(decision: Decision) -> list[str]:
    """What is said against the data: what is new asks a person; what is known is waited for."""
    new = [s for s in decision.signals if s.kind == "health" and s.persistent]
    lines = []
    if new:
        told = "; ".join(_fault(signal) for signal in new[:3]) + ("; and more" if len(new) > 3 else "")
        lines.append(f"The data looks broken: {told}. Please look; nothing is learned from it until then.")
    named = {signal.name for signal in new}
    standing = [item for item in read_complaints([_raw(decision)]) if item.firing and item.name not in named]
    lines += [_standing(item) for item in standing if item.refuses]
    return lines


def _standing(item: Complaint) -> str:
    said = "its truth is waited for"
    if item.state == "confirmed":
        said = "its truth says that it is broken" if item.numbers else "too little truth has come to judge it"
    return f"{_sentence(_named(item.name))} since {item.opened:%d %B}: {said}, and nothing is learned from it."


def _why_trained(decision: Decision) -> str:
    asking = [s for s in decision.signals if s.persistent and s.kind not in ("health", "recalibration")]
    kinds = {signal.kind for signal in asking}
    if "quality" in kinds:
        return "No small correction mends that"
    if "growth" in kinds:
        known, learned = decision.evidence["labelled_rows"], decision.evidence["trained_rows"]
        return (
            f"There are {_percent(known / max(1, learned) - 1)} more examples with known truth than the model has seen"
        )
    if "schedule" in kinds:
        return "The model is older than it may be"
    return "The data looks different, and its truth comes too late to wait for"


def _why_nothing(decision: Decision, signals: Mapping[str, Signal]) -> str:
    wanted = [reason for reason in decision.reasons if reason.startswith("retraining is called for")]
    if wanted:
        return "A new model would be trained by now, were it not too soon after the last one."
    drift = signals.get("drift")
    if drift is not None and drift.persistent and decision.evidence.get("judged"):
        return "The data looks different from before; by the known truth that does no harm so far. Nothing needs doing."
    return "Nothing needs doing."


def _fault(signal: Signal) -> str:
    return _named(signal.name) if signal.name.startswith(tuple(_FAULTS)) else signal.detail


def _named(name: str) -> str:
    prefix = next((prefix for prefix in _FAULTS if name.startswith(f"{prefix} ")), None)
    return name if prefix is None else _FAULTS[prefix].format(name.removeprefix(f"{prefix} "))


def _first(decision: Decision, kind: str, name: str) -> Signal | None:
    return next((signal for signal in decision.signals if (signal.kind, signal.name) == (kind, name)), None)


def _raw(decision: Decision) -> dict[str, Any]:
    return {"evidence": decision.evidence}


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 else f"{share:.1%}".replace(".0%", "%")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
