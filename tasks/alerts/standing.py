"""From a check's decision to what stands against the model. Pure; what of it is news is `message`'s."""

from __future__ import annotations

from collections.abc import Iterator

from perennial.definition import Monitoring
from tasks.alerts.item import Item
from tasks.check.decision import Decision
from tasks.check.signal import Signal

_LEAST_PREDICTIONS = 10


def standing(decision: Decision, policy: Monitoring) -> tuple[Item, ...]:
    """What a check found that lasts, the gravest first; a signal that fired once is not among it."""
    found = [*_data(decision), *_quality(decision), *_labels(decision, policy), *_drift(decision)]
    return tuple(sorted(found, key=lambda item: not item.grave))


def _data(decision: Decision) -> Iterator[Item]:
    for signal in _persistent(decision, "health"):
        accept = f"`perennial accept {decision.model} {decision.decision_id[:8]} --reason WHY`"
        to_do = f"Mend the feed, or accept the data: {accept}"
        yield Item(f"data:{signal.name}", "data", f"broken data: {signal.name}", signal.detail, to_do, grave=True)


def _quality(decision: Decision) -> Iterator[Item]:
    for signal in _persistent(decision, "quality"):
        yield Item(f"quality:{signal.name}", "quality", "quality fell", signal.detail, _course(decision), grave=True)
    for signal in _persistent(decision, "estimate"):
        title = "quality fell, by an estimate without labels"
        yield Item(f"quality:{signal.name}", "quality", title, signal.detail, _course(decision))


def _drift(decision: Decision) -> Iterator[Item]:
    whole = [signal for signal in _persistent(decision, "drift") if signal.name == "drift"]
    if not whole:
        return
    columns = [signal.name for signal in _persistent(decision, "drift") if signal.name != "drift"]
    marks = tuple(sorted(name.removeprefix("drift of ") for name in columns))
    yield Item("drift", "drift", "drift persists", whole[0].detail, _course(decision), marks)


def _labels(decision: Decision, policy: Monitoring) -> Iterator[Item]:
    known = decision.evidence
    predictions, parts = known["mature_predictions"], known["coverage_by_age"]  # oldest first
    if predictions < max(policy.minimum_rows, _LEAST_PREDICTIONS):
        return
    bare = 0
    for _, count, labelled in reversed(parts):
        if labelled:
            break
        bare += count
    to_do = f"Look why truth does not arrive, then `perennial label {decision.model} FILE`"
    counted = f"{known['mature_labels']} of {predictions} predictions whose truth is due have it"
    if bare >= max(policy.minimum_rows / len(parts), _LEAST_PREDICTIONS):
        detail = f"{counted}; the newest {bare} have none"
        yield Item("labels", "labels", "labels stopped coming", detail, to_do, ("none",), grave=True)
    elif known["coverage"] < policy.minimum_coverage:
        detail = f"{counted} ({known['coverage']:.0%}), and {policy.minimum_coverage:.0%} are needed to judge quality"
        yield Item("labels", "labels", "too few labels come", detail, to_do, ("few",))


def _persistent(decision: Decision, kind: str) -> list[Signal]:
    return [signal for signal in decision.signals if signal.kind == kind and signal.persistent]


def _course(decision: Decision) -> str:
    """What is done about it by itself, so that people know whether it is theirs to act."""
    if decision.verdict in ("retrain", "recalibrate"):
        return f"Nothing yet: {decision.next_step[0].lower()}{decision.next_step[1:].rstrip('.')}"
    held = next((reason for reason in decision.reasons if reason.startswith("retraining is called for")), None)
    if held is not None:
        return f"Retrain by hand if it can't wait, `perennial retrain {decision.model}`: {held.rpartition(', but ')[2]}"
    return f"See whether the world moved or the feed did: `perennial check {decision.model} --dry-run`"
