"""What earlier checks, trainings and people left in the ledger, as far as the next decision needs it. Reads rows only.

Rows are plain dictionaries, oldest first, told apart by `kind`:
  `decision` (the default): `Decision.to_dict()`.
  `outcome`: what a retraining brought, see `outcome_row`.
  `recalibration`: what became of a new map for the champion's score, see `recalibration_row`.
  `rollback`: what a retraining brought was undone: probation showed that it was worse, see `rollback_row`.
  `realised`: what a promotion has brought by later rows, see `realised_row`.
  `settlement`: what became of a challenger that the gate had left in doubt, see `settlement_row`.
  `acceptance`: a person accepted what a `repair` complained of, see `acceptance_row`.
Rows of other kinds are ignored. So are rows that are not strictly older than the check: one of the past sees what it
saw then.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

Row = Mapping[str, Any]
BUDGET_PERIOD = timedelta(days=30)
RECENT_WINDOWS = 4  # the windows that count as the last ones


def outcome_row(
    decision_id: str | None,
    as_of: datetime,
    gate_verdict: Literal["promote", "keep", "wait", "insufficient evidence"],
    *,
    gain: float | None,
    champion_loss: float | None,
    trained_rows: int,
) -> dict[str, Any]:
    """What a retraining that ran has brought; append it to the ledger when the gate has spoken.

    Args:
        decision_id: The decision that asked for it; None for one started by hand or by a schedule.
        as_of: The moment of the training's data.
        gate_verdict: The gate's.
        gain: The champion's mean loss less the challenger's on the gate's rows; None when it was not measured.
        champion_loss: The champion's mean loss there.
        trained_rows: Labelled rows that the challenger was trained on.
    """
    return {
        "kind": "outcome",
        "decision_id": decision_id,
        "as_of": as_of.isoformat(),
        "gate_verdict": gate_verdict,
        "gain": gain,
        "champion_loss": champion_loss,
        "trained_rows": trained_rows,
    }


def recalibration_row(
    decision_id: str | None,
    as_of: datetime,
    gate_verdict: Literal["promote", "keep", "wait", "insufficient evidence"],
    *,
    champion_version: str,
) -> dict[str, Any]:
    """What the gate said of a new map; it counts against no budget.

    Args:
        decision_id: The decision that asked for it; None for one started by hand.
        as_of: The moment of the map's labels.
        gate_verdict: The gate's.
        champion_version: The version that the map was for.
    """
    return {
        "kind": "recalibration",
        "decision_id": decision_id,
        "as_of": as_of.isoformat(),
        "gate_verdict": gate_verdict,
        "champion_version": champion_version,
    }


def rollback_row(decision_id: str | None, as_of: datetime, *, version: int, former: int, reason: str) -> dict[str, Any]:
    """A newcomer proved worse than the champion before it, which is champion again.

    Args:
        decision_id: The decision that the newcomer came from; None for one started by hand.
        as_of: The moment of the check that found it.
    """
    return {
        "kind": "rollback",
        "decision_id": decision_id,
        "as_of": as_of.isoformat(),
        "version": version,
        "former": former,
        "reasons": [reason],
    }


def realised_row(
    decision_id: str | None, as_of: datetime, *, version: int, former: int, gain: float, low: float | None,
    high: float | None, rows: int,
) -> dict[str, Any]:  # fmt: skip
    """What a newcomer has brought beside the champion before it, on rows that neither had learned from.

    Args:
        decision_id: The decision that it came from; None for one started by hand.
        as_of: The moment of the check that looked.
        gain: As a share of the former champion's loss; positive is better.
        low, high: Its interval; None where there is none.
    """
    return {
        "kind": "realised",
        "decision_id": decision_id,
        "as_of": as_of.isoformat(),
        "version": version,
        "former": former,
        "gain": gain,
        "low": low,
        "high": high,
        "rows": rows,
    }


def settlement_row(
    decision_id: str | None, as_of: datetime, gate_verdict: Literal["promote", "keep"], *, version: int, former: int,
    reason: str,
) -> dict[str, Any]:  # fmt: skip
    """A challenger that waited was let in, or given up, on rows that came after its training.

    Args:
        decision_id: The decision that the challenger came from; None for one started by hand.
        as_of: The moment of the check that settled it.
        version, former: The challenger, and the champion that it was compared with.
    """
    return {
        "kind": "settlement",
        "decision_id": decision_id,
        "as_of": as_of.isoformat(),
        "gate_verdict": gate_verdict,
        "version": version,
        "former": former,
        "reasons": [reason],
    }


def acceptance_row(decision_id: str, as_of: datetime, *, by: str, reason: str) -> dict[str, Any]:
    """A person says that what this `repair` complained of is as it should be: it then stops nothing any more."""
    return {"kind": "acceptance", "decision_id": decision_id, "as_of": as_of.isoformat(), "by": by, "reason": reason}


@dataclass(frozen=True)
class History:
    """The ledger before a check.

    Attributes:
        decisions: Earlier checks, oldest first.
        outcomes: Earlier trainings' outcomes, oldest first.
        maps: What became of earlier recalibrations, oldest first.
        undone: The decisions whose newcomers were rolled back.
        realised: What later rows said of promotions, as shares of the loss, by what `_origin` says of their training.
        settled: What became of the challengers that waited, by what `_origin` says of their training.
        acceptances: By decision id.
    """

    decisions: tuple[Row, ...]
    outcomes: tuple[Row, ...]
    maps: tuple[Row, ...]
    undone: frozenset[str]
    acceptances: Mapping[str, Row]
    settled: Mapping[str, str] = field(default_factory=dict)
    realised: Mapping[str, float] = field(default_factory=dict)

    def of_versions(self, versions: Container[str]) -> tuple[Row, ...]:
        """The checks of one champion, under all the versions that differ in the score's map only."""
        return tuple(row for row in self.decisions if row["champion_version"] in versions)

    def fired(self, versions: Container[str], signal: str, checks: int) -> list[bool]:
        """Whether a signal fired in the champion's newest checks, newest first, at most so many."""
        newest = self.of_versions(versions)[::-1][:checks]
        return [any(s["name"] == signal and s["fired"] for s in row["signals"]) for row in newest]

    def firing_since(self, versions: Container[str], signal: str) -> datetime | None:
        """The first of the checks in an unbroken row, up to the newest, in which the signal fired."""
        since = None
        for row in reversed(self.of_versions(versions)):
            if not any(s["name"] == signal and s["fired"] for s in row["signals"]):
                break
            since = moment(row)
        return since

    def first_of_row(self, signal: str) -> Row | None:
        """The first of the checks in an unbroken row, up to the newest, that asked for repair because of a signal."""
        first = None
        for row in reversed(self.decisions):
            if row["verdict"] != "repair" or not any(s["name"] == signal and s["persistent"] for s in row["signals"]):
                break
            first = row
        return first

    @property
    def attempts(self) -> tuple[datetime, ...]:
        """When retrainings were asked for or ran without being asked, oldest first."""
        asked = {row["decision_id"]: moment(row) for row in self.decisions if row["verdict"] == "retrain"}
        unasked = [moment(row) for row in self.outcomes if row.get("decision_id") not in asked]
        return tuple(sorted([*asked.values(), *unasked]))

    def attempts_since(self, start: datetime) -> int:
        return sum(at >= start for at in self.attempts)

    @property
    def fruitless(self) -> int:
        """How many of the newest retrainings in a row brought nothing: kept out, given up or rolled back.

        One that waits still has brought neither something nor nothing: it is passed over.
        """
        count = 0
        for row in reversed(self.outcomes):
            verdict = self._came_to(row)
            if verdict == "promote" and row["decision_id"] not in self.undone:
                break
            count += verdict != "wait"
        return count

    @property
    def gains(self) -> tuple[float, ...]:
        """What each training brought as a share of the champion's loss, oldest first: by later rows, or by the gate."""
        found = []
        for row in self.outcomes:
            gain, loss = row["gain"], row["champion_loss"]
            if (later := self.realised.get(_origin(row))) is not None:
                found.append(later)
            elif gain is not None and loss is not None and loss > 0:
                found.append(float(gain) / float(loss))
        return tuple(found)

    @property
    def waiting(self) -> Row | None:
        """The newest training, if its challenger is in doubt still."""
        return self.outcomes[-1] if self.outcomes and self._came_to(self.outcomes[-1]) == "wait" else None

    def _came_to(self, row: Row) -> str:
        """The gate's verdict on a training, or where it waited what later rows said."""
        verdict = str(row["gate_verdict"])
        return self.settled.get(_origin(row), verdict) if verdict == "wait" else verdict

    @property
    def tried_rows(self) -> int:
        """The labelled rows of the newest retraining that brought nothing, or waits; 0 when it brought something."""
        if not self.outcomes:
            return 0
        newest = self.outcomes[-1]
        let_in = self._came_to(newest) == "promote" and newest["decision_id"] not in self.undone
        return 0 if let_in else int(newest["trained_rows"])

    @property
    def recalibrated(self) -> datetime | None:
        """When a recalibration was last asked for."""
        return next((moment(row) for row in reversed(self.decisions) if row["verdict"] == "recalibrate"), None)

    def map_was_tried(self, versions: Container[str], signal: str, checks: int) -> bool:
        """Whether a new map has had its chance to mend what a signal complains of.

        It has if the gate refused the champion's newest one, or if one was asked for in the unbroken row of checks in
        which the signal fired, or in one of so many newest checks: let in, refused or failed, the fall is still there.
        """
        known = [row for row in self.maps if row["champion_version"] in versions]
        if known and known[-1]["gate_verdict"] != "promote":
            return True
        since, rows = self.firing_since(versions, signal), self.of_versions(versions)
        fall = [row for row in rows if since is not None and moment(row) >= since]
        return any(
            row["verdict"] == "recalibrate" and any(s["name"] == signal and s["fired"] for s in row["signals"])
            for row in (*fall, *rows[max(0, len(rows) - checks) :])
        )

    def accepted(self, versions: Container[str]) -> dict[str, Row]:
        """The health signals that people accepted for this champion, with the acceptance."""
        return {
            signal["name"]: self.acceptances[row["decision_id"]]
            for row in self.of_versions(versions)
            if row["decision_id"] in self.acceptances
            for signal in row["signals"]
            if signal["kind"] == "health" and signal["fired"]
        }


def read_history(ledger: Sequence[Row], as_of: datetime) -> History:
    """Sort a ledger's rows, and leave out what is not strictly older than `as_of`."""
    older = [row for row in ledger if moment(row) < as_of]
    named = ("decision", "outcome", "recalibration", "realised", "rollback", "settlement", "acceptance")
    kinds: dict[str, list[Row]] = {kind: [] for kind in named}
    for row in sorted(older, key=moment):
        kinds.setdefault(row.get("kind", "decision"), []).append(row)
    accepted = {str(row["decision_id"]): row for row in kinds["acceptance"]}
    undone = frozenset(str(row["decision_id"]) for row in kinds["rollback"] if row["decision_id"])
    settled = {_origin(row): str(row["gate_verdict"]) for row in kinds["settlement"]}
    realised = {_origin(row): float(row["gain"]) for row in kinds["realised"]}
    return History(
        tuple(kinds["decision"]),
        tuple(kinds["outcome"]),
        tuple(kinds["recalibration"]),
        undone,
        accepted,
        settled,
        realised,
    )


def _origin(row: Row) -> str:
    """The decision that a training came from; of one that nobody asked for, its version."""
    return str(row["decision_id"] or f"version {row.get('version')}")


def moment(row: Row) -> datetime:
    """A row's `as_of`, given as text or as a datetime."""
    value = row["as_of"]
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
