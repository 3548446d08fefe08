"""A complaint: what data health says against a stretch of rows, and what became of it. Nothing is measured here.

The whole list is in the evidence of each decision, so the newest one in the ledger says how things stand; what a
complaint was based on is read in the decision of its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

State = Literal["open", "dissolved", "confirmed", "accepted"]
COLUMN_KINDS = ("missing ", "unseen ", "constant ", "unit of ", "range of ", "empty ", "unreadable ", "repeated ")
# Of whole texts and images, and not of a column that stands for one.
VALUE_KINDS = ("empty", "unreadable", "repeated")
# Values that are not there, or say nothing, teach nothing wrong.
GONE = ("missing", "empty")
ROW_KINDS = ("duplicated rows", "clock shifted", "thin feed")


@dataclass(frozen=True)
class Complaint:
    """One complaint, from the first check that made it.

    Attributes:
        name: The health signal's.
        column: The feature that it concerns; None where it concerns the rows.
        decision_id, opened: The check that made it first.
        since, until: The rows in question: since ≤ time < until, the moment of the last check that said it.
        state: `open`: the rows' truth is waited for. `dissolved`: the truth says that the world moved. `confirmed`: it
            says that the data is broken, or it never came. `accepted`: a person said that it is as it should be.
        firing: The newest check says it still.
        value: The furthest that was measured.
        reason: Why it is in this state, with the numbers.
        judged_until: Rows before it have been looked at with their truth.
        numbers: What the ruling rests on.
        settled: The check at which it came into this state; None while it is open.
    """

    name: str
    column: str | None
    decision_id: str
    opened: datetime
    since: datetime
    until: datetime
    state: State = "open"
    firing: bool = True
    value: float = 0.0
    reason: str = ""
    judged_until: datetime | None = None
    numbers: Mapping[str, float] | None = None
    settled: datetime | None = None

    @property
    def kind(self) -> str:
        """One of `COLUMN_KINDS`, or the name of what concerns rows."""
        return next((kind.strip() for kind in COLUMN_KINDS if self.name.startswith(kind)), self.name)

    @property
    def refuses(self) -> bool:
        """Nothing is learned from what it concerns."""
        return self.state == "open" or (self.state == "confirmed" and self.kind not in GONE)

    def covers(self, start: datetime, end: datetime) -> bool:
        """Whether any of its rows may lie in [start, end)."""
        return self.since < end and start < self.until

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Complaint:
        moments = {name: datetime.fromisoformat(raw[name]) for name in ("opened", "since", "until")}
        later = {name: raw[name] and datetime.fromisoformat(raw[name]) for name in ("judged_until", "settled")}
        return cls(**{**raw, **moments, **later})


def is_judgeable(name: str) -> bool:
    """Whether truth can say something to it. That a column is absent, or a feed dead, is a fact and no hypothesis."""
    return name in ROW_KINDS or name.startswith(COLUMN_KINDS)


def column_of(name: str, owners: Mapping[str, str]) -> str | None:
    """The feature that a signal of this name concerns.

    Args:
        owners: By column that stands for a part of a feature, such as a text's length, the feature.
    """
    prefix = next((kind for kind in COLUMN_KINDS if name.startswith(kind)), None)
    if prefix is None:
        return None
    column = name.removeprefix(prefix)
    return owners.get(column, column)


def read_complaints(decisions: Sequence[Mapping[str, Any]]) -> tuple[Complaint, ...]:
    """How things stood after the newest of the decisions, oldest complaint first."""
    if not decisions:
        return ()
    return tuple(Complaint.from_dict(raw) for raw in (decisions[-1].get("evidence") or {}).get("complaints", ()))


def doubted_span(complaints: Sequence[Complaint], mature_until: datetime) -> tuple[datetime, datetime] | None:
    """From when to when rows are wanted with their features, to judge complaints by; None where none are."""
    spans = []
    for item in complaints:
        end = min(item.until, mature_until)
        heard = item.judged_until is not None and item.judged_until >= end
        if item.refuses and item.since < end and not heard:
            spans.append((item.since, end))
    return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None
