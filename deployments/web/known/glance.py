"""A model at a glance: from its ledger, history and definition to one small frozen value. It reads no table.

Of each decision only what pages show is decoded; a ledger of two years is a few megabytes of text, its points are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from perennial.state.registry import Reign


class LossFacts(msgspec.Struct):
    name: str | None = None
    mean: float | None = None
    interval: tuple[float | None, float | None] | None = None
    at_promotion: float | None = None
    rows: int = 0


class SignalFacts(msgspec.Struct):
    name: str
    kind: str
    value: float | None = None
    threshold: float | None = None
    fired: bool = False
    persistent: bool = False
    detail: str = ""


class EvidenceFacts(msgspec.Struct):
    rows: int = 0
    coverage: float = 0.0
    mature_predictions: int = 0
    mature_labels: int = 0
    judged: bool = False
    loss: LossFacts | None = None


class DecisionFacts(msgspec.Struct):
    """What pages show of a decision's row."""

    decision_id: str
    as_of: str
    verdict: str
    champion_version: str
    reasons: list[str] = []
    signals: list[SignalFacts] = []
    evidence: EvidenceFacts = msgspec.field(default_factory=EvidenceFacts)


class OutcomeFacts(msgspec.Struct):
    """What pages show of any later row about a decision."""

    decision_id: str | None = None
    gate_verdict: str | None = None
    version: int | None = None
    by: str | None = None
    reason: str | None = None
    attempt: int | None = None


@dataclass(frozen=True)
class Point:
    """One check: verdict, quality with its interval, drift, data health, labels, and what came of it."""

    decision_id: str
    as_of: datetime
    verdict: str
    version: str
    reason: str
    loss: float | None
    low: float | None
    high: float | None
    at_promotion: float | None
    judged: bool
    rows: int
    coverage: float | None
    drift: float | None
    drifting: str
    complaints: tuple[str, ...]
    outcome: str
    accepted: bool


@dataclass(frozen=True)
class Waiting:
    """Something that waits for a person: what, a sentence, and the page where it is answered."""

    kind: str
    told: str
    where: str


@dataclass(frozen=True)
class Glance:
    """All that the overview shows of a model, and the points that its own page draws.

    Attributes:
        problem: Why its definition or its tables can't be read; empty where they can.
        loss: The name of the loss; empty before the first check.
        label_delay: As the definition says it.
        quarantined: Open entries of the quarantine.
        reviews: Predictions that wait for somebody to review them; None of a model without reviews.
        next_check: By the definition's schedule; None where there is none.
    """

    model: str
    description: str = ""
    task: str = ""
    problem: str = ""
    reigns: tuple[Reign, ...] = ()
    points: tuple[Point, ...] = ()
    loss: str = ""
    label_delay: timedelta = timedelta()
    window: timedelta = timedelta()
    quarantined: int = 0
    reviews: int | None = None
    schedule: str | None = None

    @property
    def reign(self) -> Reign | None:
        return self.reigns[-1] if self.reigns else None

    @property
    def last(self) -> Point | None:
        return self.points[-1] if self.points else None

    @property
    def repair(self) -> Point | None:
        """The newest check, if it asks for repair and nobody has accepted the data."""
        return self.last if self.last and self.last.verdict == "repair" and not self.last.accepted else None

    def next_check(self, now: datetime) -> datetime | None:
        """When the schedule checks next; None where there is no schedule, or one that never comes."""
        return next_run(self.schedule, now)


def next_run(schedule: str | None, now: datetime) -> datetime | None:
    if not schedule:
        return None
    from cronsim import CronSim, CronSimError

    try:
        return next(CronSim(schedule, now.astimezone(UTC)))
    except (CronSimError, StopIteration):
        return None


def read_points(rows: Iterable[tuple[str, str]]) -> tuple[tuple[Point, ...], str]:
    """The points of a ledger's rows (kind and body, in any order), oldest first; and the loss's name."""
    decisions: list[DecisionFacts] = []
    outcomes: dict[str, str] = {}
    accepted: set[str] = set()
    later: list[tuple[str, OutcomeFacts]] = []
    for kind, body in rows:
        if kind == "decision":
            decisions.append(msgspec.json.decode(body, type=DecisionFacts))
        elif kind != "act":
            later.append((kind, msgspec.json.decode(body, type=OutcomeFacts)))
    for kind, facts in later:
        if kind == "acceptance" and facts.decision_id:
            accepted.add(facts.decision_id)
        elif kind in ("outcome", "recalibration", "settlement") and facts.decision_id:
            known = outcomes.get(facts.decision_id)
            if known is None or kind == "settlement":
                outcomes[facts.decision_id] = facts.gate_verdict or ""
        elif kind == "rollback" and facts.decision_id:
            outcomes[facts.decision_id] = "rolled back"
    decisions.sort(key=lambda item: datetime.fromisoformat(item.as_of))
    points = tuple(_point(item, outcomes.get(item.decision_id, ""), accepted) for item in decisions)
    names = [item.evidence.loss.name for item in decisions if item.evidence.loss and item.evidence.loss.name]
    return points, names[-1] if names else ""


def _point(item: DecisionFacts, outcome: str, accepted: set[str]) -> Point:
    loss = item.evidence.loss or LossFacts()
    low, high = loss.interval or (None, None)
    drift = next((signal for signal in item.signals if signal.name == "drift"), None)
    health = tuple(signal.name for signal in item.signals if signal.kind == "health" and signal.fired)
    return Point(
        decision_id=item.decision_id,
        as_of=datetime.fromisoformat(item.as_of),
        verdict=item.verdict,
        version=item.champion_version,
        reason=item.reasons[0] if item.reasons else "",
        loss=loss.mean,
        low=low,
        high=high,
        at_promotion=loss.at_promotion,
        judged=item.evidence.judged,
        rows=item.evidence.rows,
        coverage=item.evidence.coverage if item.evidence.mature_predictions else None,
        drift=drift.value if drift else None,
        drifting="fired" if drift and drift.fired else "",
        complaints=health,
        outcome=outcome,
        accepted=item.decision_id in accepted,
    )


def waiting_for(glance: Glance, approvals: Sequence[dict[str, Any]]) -> list[Waiting]:
    """What of a model waits for a person, the most pressing first.

    Args:
        approvals: The model's versions that wait, as `neighbours.waiting_versions` gives them.
    """
    base, found = f"/models/{glance.model}", []
    if glance.problem:
        found.append(Waiting("broken", glance.problem, base))
    if glance.repair:
        found.append(Waiting("repair", "its data needs repair", f"{base}/decisions/{glance.repair.decision_id}"))
    for version in approvals:
        found.append(
            Waiting(
                "approval", f"version {version['version']} waits for a yes", f"{base}/versions/{version['version']}"
            )
        )
    if glance.reviews:
        rows = f"{glance.reviews:,} prediction{'s' if glance.reviews != 1 else ''} to review"
        found.append(Waiting("review", rows, f"{base}/review"))
    if glance.quarantined:
        rows = f"{glance.quarantined:,} row{'s' if glance.quarantined != 1 else ''} in quarantine"
        found.append(Waiting("quarantine", rows, f"{base}/quarantine"))
    if not glance.problem and glance.reign is None:
        found.append(Waiting("first", "it has no champion yet", base))
    return found


_PRESSING = ("broken", "repair", "approval", "review", "quarantine", "first")


def urgency(waiting: Sequence[Waiting], glance: Glance) -> tuple[int, float, str]:
    """By which models are sorted: what waits for a person first, then the worst fall of quality, then the name."""
    kinds = [_PRESSING.index(item.kind) for item in waiting if item.kind in _PRESSING]
    last, fall = glance.last, 0.0
    if last and last.loss is not None and last.at_promotion:
        fall = (last.loss - last.at_promotion) / abs(last.at_promotion)
    return min(kinds, default=len(_PRESSING)), -fall, glance.model
