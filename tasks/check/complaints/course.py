"""The course of complaints from one check to the next: opened, going on, judged, ended. The judging is in `trial`."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from tasks.check.complaints.complaint import GONE, Complaint, column_of, is_judgeable
from tasks.check.complaints.trial import Ruling
from tasks.check.signal import Signal

WORSE = 2.0  # so many times what was dissolved is another complaint
KEPT_WINDOWS = 24
FALSE_BEFORE = 1  # after so many that the truth dissolved, another of the same name holds nothing up


def follow(
    before: Sequence[Complaint],
    signals: Iterable[Signal],
    *,
    as_of: datetime,
    decision_id: str,
    news_since: datetime,
    window: timedelta,
    patience: timedelta,
    accepted: Container[str],
    acceptances: Container[str],
    owners: Mapping[str, str],
    judge: Callable[[Complaint], Ruling | None],
) -> tuple[Complaint, ...]:
    """All complaints after this check.

    Args:
        before: As the check before left them.
        signals: The health signals of this one.
        decision_id: This check's.
        news_since: Rows before it were looked at by an earlier check.
        patience: From its first check on, how long a complaint may wait for the truth: the label delay and a window.
        accepted: Names that people accepted for this champion.
        acceptances: Decisions that people accepted, under whatever champion.
        owners: By column that stands for a part of a text or an image, the feature.
        judge: What the truth that is known by now says; None where it is too little.
    """
    fired = {signal.name: signal for signal in signals if signal.fired and is_judgeable(signal.name)}
    found = []
    for complaint in before:
        signal = fired.get(complaint.name) if complaint.firing else None
        if signal is not None and complaint.state == "dissolved" and _value(signal) > WORSE * complaint.value:
            signal = None  # it is much worse than what the truth was heard on
        if signal is None:
            complaint = replace(complaint, firing=False)
        else:
            del fired[complaint.name]
            complaint = replace(complaint, until=as_of, value=max(complaint.value, _value(signal)))
        found.append(_settled(complaint, as_of, patience, accepted, acceptances, judge))
    for name, signal in fired.items():
        if name not in accepted:
            column = column_of(name, owners)
            found.append(Complaint(name, column, decision_id, as_of, news_since, as_of, value=_value(signal)))
    return tuple(_kept(found, as_of - KEPT_WINDOWS * window))


def tell(signal: Signal, complaints: Sequence[Complaint], model: str, decision_id: str) -> Signal:
    """The signal as its complaint's state has it: it asks for repair when it is new; what is known says so.

    From then on what it concerns is refused by column or by row until its truth has come, and the rest goes on.
    """
    own = next((item for item in complaints if item.name == signal.name and item.firing), None)
    if own is None or not signal.fired:
        return signal
    if own.state == "open":
        if own.decision_id != decision_id:
            detail = f"{_since(own)}: {signal.detail}. Nothing is learned from it; {ending(model, own)}"
            return replace(signal, persistent=False, detail=detail)
        if known := _known_before(own, complaints):
            return replace(signal, persistent=False, detail=f"{signal.detail} ({known})")
        return signal
    if own.state == "confirmed":
        detail = f"{_since(own)}: {signal.detail}. {own.reason}. {ending(model, own)}"
        return replace(signal, persistent=False, detail=detail)
    return replace(signal, fired=False, persistent=False, detail=f"{signal.detail}. {own.reason}")


def ending(model: str, complaint: Complaint) -> str:
    """What ends a complaint."""
    return f"Mending the feed ends it, or `perennial accept {model} {complaint.decision_id[:8]} --reason WHY`"


def _since(complaint: Complaint) -> str:
    return f"still, since {complaint.opened:%Y-%m-%d %H:%M} (decision {complaint.decision_id[:8]})"


def _known_before(complaint: Complaint, complaints: Sequence[Complaint]) -> str:
    """Why a new complaint holds nothing up; empty where it is the first of its kind."""
    if _false_before(complaint, complaints) >= FALSE_BEFORE:
        return "the truth has dissolved the same complaint before: it is waited for"
    gone = [item for item in complaints if item.kind in GONE and item is not complaint and not item.firing]
    if complaint.kind in GONE and gone:
        who = "it has" if any(item.name == complaint.name for item in gone) else "other columns of this feed have"
        return f"{who} come and gone before; missing values teach nothing wrong"
    return ""


def _false_before(complaint: Complaint, complaints: Sequence[Complaint]) -> int:
    return sum(
        item.state == "dissolved" and item.name == complaint.name and complaint.value <= WORSE * item.value
        for item in complaints
    )


def _kept(complaints: Sequence[Complaint], old: datetime) -> list[Complaint]:
    """All but those that are over, long ago, and were not among the newest dissolved ones of their name."""
    kept: list[Complaint] = []
    for item in reversed(complaints):
        lesson = item.state == "dissolved" and _false_before(item, kept) < FALSE_BEFORE
        if item.refuses or item.firing or item.until > old or lesson:
            kept.append(item)
    return kept[::-1]


def _settled(
    complaint: Complaint,
    as_of: datetime,
    patience: timedelta,
    accepted: Container[str],
    acceptances: Container[str],
    judge: Callable[[Complaint], Ruling | None],
) -> Complaint:
    if not complaint.refuses:
        return complaint
    if complaint.name in accepted or complaint.decision_id in acceptances:
        return replace(complaint, state="accepted", reason="A person accepted it", settled=as_of)
    if complaint.opened == as_of:
        return complaint
    ruling = judge(complaint)
    if ruling is not None:
        return replace(
            complaint,
            state=ruling.state,
            reason=ruling.reason,
            judged_until=ruling.judged_until,
            numbers=dict(ruling.numbers),
            settled=complaint.settled if ruling.state == complaint.state else as_of,
        )
    if complaint.state == "open" and as_of - complaint.opened >= patience:
        reason = "The truth that has come is too little to judge it: nothing is learned from it, and the rest goes on"
        return replace(complaint, state="confirmed", reason=reason, settled=as_of)
    return complaint


def _value(signal: Signal) -> float:
    return abs(signal.value) if signal.value is not None else 0.0
