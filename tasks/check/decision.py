"""The check: from data, clock, policy and ledger to a verdict with its reasons. Pure: no I/O, no clock, no chance.

`check` measures (`tasks.check.evidence`), then decides (`decide`). The cheapest remedy that the evidence asks for wins:
broken data asks for repair before anything else; a fallen quality, grown data, an old champion, or drift where quality
can't be judged ask for retraining, as far as cooldown and budget allow; a proven gain from refitting the score's map
asks for recalibration; otherwise the champion holds.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from perennial.definition import Monitoring, duration_text
from perennial.errors import DataError
from tasks.check.complaints.complaint import GONE, read_complaints
from tasks.check.evidence import gather
from tasks.check.history import BUDGET_PERIOD, History, read_history
from tasks.check.inputs import CheckInputs, with_facts
from tasks.check.signal import Signal
from tasks.check.told.beside import tell_beside, window_statistics
from tasks.measures.statistics import ColumnStatistics

__all__ = ["CheckInputs", "Decision", "Verdict", "Verdicts", "check", "decide", "policy_digest"]

Verdict = Literal["hold", "recalibrate", "retrain", "repair"]
NAMESPACE = uuid.UUID("6f1c1c0e-7f0f-5a3e-9a4e-3d8f5d1f7c11")
NEXT_STEPS: dict[str, str] = {
    "hold": "Nothing: the champion goes on answering; the next check looks again.",
    "recalibrate": "The score's map is refitted on the matured labels and goes through the gate; no model is trained.",
    "retrain": "A challenger is trained and goes through the gate; the champion answers until it is beaten.",
    "repair": "Mend the feed, or accept the data: `perennial accept {model} {decision} --reason WHY`. Nothing is "
    "learned from these rows; their truth, when it has come, says whether they are broken or the world moved.",
}


@dataclass(frozen=True)
class Decision:
    """A verdict and what it rests on; one row of the ledger.

    Attributes:
        decision_id: A digest of model, moment, version and policy: the same check has the same id.
        model, as_of, champion_version: What was judged, when.
        policy: The policy's digest.
        verdict: hold, recalibrate, retrain or repair.
        reasons: Sentences, the strongest first.
        signals: Every measurement.
        would_change: What would have changed the verdict.
        evidence: rows, window, mature, loss, coverage, growth, cooldown, budget: JSON-ready.
        next_step: What happens now.
        statistics: Of each column of the window, for the table of them; no part of the record.
    """

    decision_id: str
    model: str
    as_of: datetime
    champion_version: str
    policy: str
    verdict: Verdict
    reasons: tuple[str, ...]
    signals: tuple[Signal, ...]
    would_change: tuple[str, ...]
    evidence: Mapping[str, Any]
    next_step: str
    statistics: Mapping[str, ColumnStatistics] = field(default_factory=dict, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with `kind: decision`."""
        return {
            "kind": "decision",
            "decision_id": self.decision_id,
            "model": self.model,
            "as_of": self.as_of.isoformat(),
            "champion_version": self.champion_version,
            "policy": self.policy,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "signals": [signal.to_dict() for signal in self.signals],
            "would_change": list(self.would_change),
            "evidence": dict(self.evidence),
            "next_step": self.next_step,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Decision:
        """The inverse of `to_dict`; keys that others added (such as `claimed_by`) are ignored."""
        return cls(
            decision_id=raw["decision_id"],
            model=raw["model"],
            as_of=datetime.fromisoformat(raw["as_of"]),
            champion_version=raw["champion_version"],
            policy=raw["policy"],
            verdict=raw["verdict"],
            reasons=tuple(raw["reasons"]),
            signals=tuple(Signal.from_dict(signal) for signal in raw["signals"]),
            would_change=tuple(raw["would_change"]),
            evidence=raw["evidence"],
            next_step=raw["next_step"],
        )


@dataclass(frozen=True)
class Verdicts:
    """What `decide` says: the verdict, why, and what would have changed it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    would_change: tuple[str, ...]


def check(inputs: CheckInputs, policy: Monitoring, *, as_of: datetime) -> Decision:
    """Judge the champion at one moment.

    The same inputs, policy and moment give the same decision, id included.

    Raises:
        DataError: `as_of` has no time zone, or a frame lacks a column named in `CheckInputs`.
    """
    if as_of.tzinfo is None:
        raise DataError(f"as_of {as_of.isoformat()} has no time zone", "Give it in UTC")
    history = read_history(inputs.ledger, as_of)
    digest = policy_digest(policy)
    identity = "\n".join([inputs.model, as_of.isoformat(), inputs.champion_version, digest])
    decision_id = str(uuid.uuid5(NAMESPACE, identity))
    inputs = with_facts(inputs)
    signals, evidence = gather(inputs, policy, history, as_of, decision_id)
    found = decide(signals, policy, history, as_of, blind=bool(evidence["blind"]))
    return Decision(
        decision_id=decision_id,
        model=inputs.model,
        as_of=as_of,
        champion_version=inputs.champion_version,
        policy=digest,
        verdict=found.verdict,
        reasons=found.reasons,
        signals=signals,
        would_change=found.would_change,
        evidence={**evidence, **_allowance(policy, history, as_of), **tell_beside(inputs, policy, evidence, as_of)},
        next_step=NEXT_STEPS[found.verdict].format(model=inputs.model, decision=decision_id[:8]),
        statistics=window_statistics(inputs),
    )


def decide(
    signals: tuple[Signal, ...], policy: Monitoring, history: History, as_of: datetime, *, blind: bool
) -> Verdicts:
    """From signals to a verdict.

    Args:
        signals: Every measurement, persistence already counted.
        policy: Which triggers count, cooldown and budget.
        history: The ledger before the check.
        as_of: The moment.
        blind: Quality can't be judged on what the drift concerns, so drift may act by itself.
    """
    broken = [signal for signal in signals if signal.kind == "health" and signal.persistent]
    if broken:
        reasons = tuple(signal.detail for signal in broken)
        change = ("hold or better, once these are mended or accepted: " + ", ".join(s.name for s in broken),)
        return Verdicts("repair", reasons, change)
    asking = [signal for signal in signals if signal.persistent and _may_ask(signal, policy, blind)]
    obstacles = _obstacles(policy, history, as_of)
    maps = [signal for signal in signals if signal.kind == "recalibration" and signal.persistent and policy.recalibrate]
    if asking and not obstacles:
        told = tuple(s.detail for s in (*asking, *maps))
        return Verdicts("retrain", _with_context(told, signals), _unless(asking, "recalibrate" if maps else "hold"))
    wanted = tuple(f"retraining is called for ({s.detail}), but {o}" for s in asking[:1] for o in obstacles)
    if maps:
        reasons = (*(s.detail for s in maps), *wanted)
        return Verdicts(
            "recalibrate", _with_context(reasons, signals), _until(signals, policy, blind, obstacles if asking else ())
        )
    return Verdicts("hold", _with_context(wanted, signals), _until(signals, policy, blind, obstacles if asking else ()))


def policy_digest(policy: Monitoring) -> str:
    """16 hex digits of the policy's canonical JSON."""
    return hashlib.sha256(policy.model_dump_json().encode()).hexdigest()[:16]


def _may_ask(signal: Signal, policy: Monitoring, blind: bool) -> bool:
    triggers = policy.triggers
    if signal.kind == "drift":
        return signal.name == "drift" and triggers.drift and (blind or policy.drift_alone == "always")
    if signal.kind == "estimate":
        return triggers.estimate and blind
    return (
        (signal.kind == "quality" and triggers.quality)
        or (signal.kind == "growth" and triggers.growth)
        or (signal.kind == "schedule" and triggers.schedule)
    )


def _obstacles(policy: Monitoring, history: History, as_of: datetime) -> tuple[str, ...]:
    found = []
    if history.attempts and as_of - history.attempts[-1] < policy.cooldown:
        until = history.attempts[-1] + policy.cooldown
        found.append(f"the cooldown of {duration_text(policy.cooldown)} lasts until {until:%Y-%m-%d %H:%M}")
    used = history.attempts_since(as_of - BUDGET_PERIOD)
    if used >= policy.retrains_per_month:
        found.append(f"the budget of {policy.retrains_per_month} in 30 days is used up ({used})")
    return tuple(found)


def _allowance(policy: Monitoring, history: History, as_of: datetime) -> dict[str, Any]:
    last = history.attempts[-1] if history.attempts else None
    return {
        "cooldown_until": (last + policy.cooldown).isoformat() if last else None,
        "budget_used": history.attempts_since(as_of - BUDGET_PERIOD),
        "budget": policy.retrains_per_month,
        "fruitless_retrainings": history.fruitless,
    }


def _unless(asking: list[Signal], instead: str) -> tuple[str, ...]:
    return (f"{instead}, if " + " and ".join(_bound(signal, "at most") for signal in asking),)


def _until(signals: tuple[Signal, ...], policy: Monitoring, blind: bool, obstacles: tuple[str, ...]) -> tuple[str, ...]:
    if obstacles:
        return tuple(f"retrain, were it not that {obstacle}" for obstacle in obstacles)
    listed = []
    for signal in signals:
        if signal.threshold is None or signal.value is None or signal.kind in ("health", "label"):
            continue
        if signal.kind == "recalibration":
            if policy.recalibrate and not signal.fired:
                listed.append(f"recalibrate, if {_bound(signal, 'above')}")
        elif _may_ask(signal, policy, blind):
            lasting = signal.kind in ("quality", "drift", "estimate")
            often = " in {} of {} checks".format(*policy.persistence) if lasting else ""
            listed.append(f"retrain, if {_bound(signal, 'above')}{often}")
        elif signal.name == "drift" and policy.triggers.drift:
            listed.append("retrain on drift by itself, if labels were too late or too few to judge quality")
    return tuple(listed)


def _bound(signal: Signal, word: str) -> str:
    return f"{signal.name} were {word} {signal.threshold:.4g} (it is {signal.value:.4g})"


def is_news(decision: Decision, before: Mapping[str, Any] | None) -> bool:
    """Whether the decision asks for a person because of something that the check before it did not.

    Values that go missing hold nothing up when they are few, or have come and gone before: they are told all the same.
    """
    told = set() if before is None or before["verdict"] != "repair" else _blocking(before["signals"])
    raw = decision.to_dict()
    opened = (item for item in read_complaints([raw]) if item.decision_id == decision.decision_id)
    gone = {item.name for item in opened if item.kind in GONE}
    return bool((_blocking(raw["signals"]) | gone) - told)


def _blocking(signals: Sequence[Mapping[str, Any]]) -> set[str]:
    return {signal["name"] for signal in signals if signal["kind"] == "health" and signal["persistent"]}


def _with_context(reasons: tuple[str, ...], signals: tuple[Signal, ...]) -> tuple[str, ...]:
    """The reasons, then what the other main signals say: quality, drift, growth, recalibration, age."""
    order = {"quality": 0, "drift": 1, "growth": 2, "recalibration": 3, "schedule": 4, "estimate": 5}
    known = tuple(s.detail for s in signals if s.kind == "health" and s.fired and s.detail not in reasons)
    told = [signal for signal in signals if signal.kind in order and (signal.kind != "drift" or signal.name == "drift")]
    rest = (signal.detail for signal in sorted(told, key=lambda s: order[s.kind]))
    return (*reasons, *known, *(detail for detail in rest if detail not in reasons)) or ("nothing could be measured",)
