"""The decision ledger: decisions, who claimed them, and what came of them. It records; it decides nothing.

Four kinds of rows, only ever appended: a `decision` (once per id), a `claim` (the run that acts on it; at
most one living holder), an `outcome` (what the run ended with) and an `acceptance` (a person's). Appends
are compare-and-set, so two runs that race for a decision can't both get it, on a folder or an object store.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from perennial.errors import ConflictError, NotFoundError
from perennial.store import Store

# Under which key of a decision's entry a later row of that kind stands.
_FACETS = {"outcome": "outcome", "recalibration": "outcome", "acceptance": "acceptance", "rollback": "rollback"}


@dataclass(frozen=True)
class Claim:
    """The right of one run to act on a decision; `attempt` counts holders from 1."""

    decision_id: str
    by: str
    attempt: int


class Ledger:
    """One model's ledger in the table `decisions`."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._model = model

    def record(self, decision: dict[str, Any], *, recorded_at: datetime) -> bool:
        """Write a decision (a mapping with `decision_id` and `as_of`); False if it is there already."""
        decision_id = decision["decision_id"]
        return self._append(
            "decision", decision_id, decision, decision["as_of"], recorded_at, key=f"decision:{decision_id}"
        )

    def claim(
        self, decision_id: str, by: str, *, as_of: datetime, recorded_at: datetime, is_alive: Callable[[str], bool]
    ) -> Claim:
        """Take a decision for the run `by`; a run that holds it already gets the same claim again.

        Args:
            is_alive: Says of a holder whether it may still be at work; a dead one is replaced.

        Raises:
            NotFoundError: There is no such decision.
            ConflictError: A living run holds it, or it has its outcome already.
        """
        entry = next((entry for entry in self.entries() if entry["decision_id"] == decision_id), None)
        if entry is None:
            raise NotFoundError(f"{self._model} has no decision {decision_id}", f"See `perennial ledger {self._model}`")
        if entry["outcome"] is not None:
            raise ConflictError(f"decision {decision_id} was carried out by {entry['claimed_by']}", "Nothing is to do")
        claims = entry["claims"]
        if claims and claims[-1] == by:
            return Claim(decision_id, by, len(claims))
        if claims and is_alive(claims[-1]):
            raise ConflictError(f"decision {decision_id} is claimed by {claims[-1]}", "Nothing is to do")
        attempt = len(claims) + 1
        won = self._append(
            "claim", decision_id, {"attempt": attempt}, as_of, recorded_at, by=by,
            key=f"claim:{decision_id}", sequence=attempt,
        )  # fmt: skip
        if not won:
            raise ConflictError(f"decision {decision_id} was claimed by another run", "Nothing is to do")
        return Claim(decision_id, by, attempt)

    def close(
        self, outcome: dict[str, Any], by: str, *, key: str, recorded_at: datetime, kind: str = "outcome"
    ) -> bool:
        """Write what came of a run: of the decision it names, or of none where it was started by hand.

        Args:
            outcome: A mapping with `decision_id` (or None) and `as_of`.
            by: The run.
            key: Names what was done, such as the training's key: written once.
            kind: `outcome` of a retraining, or `recalibration`, which counts against no budget.
        """
        decision_id = outcome["decision_id"] or ""
        return self._append(kind, decision_id, outcome, outcome["as_of"], recorded_at, by=by, key=f"outcome:{key}")

    def accept(self, acceptance: dict[str, Any], *, recorded_at: datetime) -> bool:
        """Write that a person accepted what a decision complained of; once for a decision.

        Raises:
            NotFoundError: There is no such decision.
        """
        decision_id = acceptance["decision_id"]
        if not any(entry["decision_id"] == decision_id for entry in self.entries()):
            raise NotFoundError(f"{self._model} has no decision {decision_id}", f"See `perennial ledger {self._model}`")
        return self._append(
            "acceptance", decision_id, acceptance, acceptance["as_of"], recorded_at, by=acceptance["by"],
            key=f"acceptance:{decision_id}",
        )  # fmt: skip

    def rows(self, *, as_of: datetime | None = None) -> list[dict[str, Any]]:
        """Every row's body but claims, with its `kind`, oldest first; up to `as_of` where it is given."""
        frame = self._frame(as_of)
        return [
            json.loads(str(row.body)) | {"kind": str(row.kind)} for row in frame[frame["kind"] != "claim"].itertuples()
        ]

    def entries(self, *, as_of: datetime | None = None) -> list[dict[str, Any]]:
        """The decisions, oldest first, each with `claims` (runs), `claimed_by` (the last one) and `outcome`.

        Args:
            as_of: Only what had happened by then: later decisions, claims and outcomes are left out.
        """
        entries: dict[str, dict[str, Any]] = {}
        holders: dict[str, dict[int, str]] = {}
        # By kind first: a claim may carry an earlier moment than its decision.
        for row in self._frame(as_of).sort_values("rank", kind="stable").itertuples():
            body, decision_id = json.loads(str(row.body)), str(row.decision_id)
            if row.kind == "decision":
                entries[decision_id] = body | {"claims": [], "claimed_by": None, "outcome": None}
            elif row.kind == "claim":
                holders.setdefault(decision_id, {})[body["attempt"]] = str(row.by)
            elif entry := entries.get(decision_id):
                entry[_FACETS[str(row.kind)]] = body
        for decision_id, attempts in holders.items():
            if entry := entries.get(decision_id):
                # By attempt: machines' clocks differ.
                entry["claims"] = [attempts[number] for number in sorted(attempts)]
                entry["claimed_by"] = entry["claims"][-1]
        return list(entries.values())

    def _frame(self, as_of: datetime | None) -> pd.DataFrame:
        frame = self._store.frame(self._model, "decisions")
        if as_of is not None:
            frame = frame[frame["as_of"] <= pd.Timestamp(as_of)]
        rank = frame["kind"].map(
            {"decision": 0, "claim": 1, "outcome": 2, "recalibration": 2, "acceptance": 3, "rollback": 4}
        )
        return frame.assign(rank=rank).sort_values(["as_of", "rank", "recorded_at"], kind="stable")

    def _append(
        self, kind: str, decision_id: str, body: dict[str, Any], as_of: datetime | str, recorded_at: datetime,
        *, key: str, by: str | None = None, sequence: int = 1,
    ) -> bool:  # fmt: skip
        row = pd.DataFrame(
            {
                "kind": [kind],
                "decision_id": [decision_id],
                "as_of": [pd.Timestamp(as_of)],
                "recorded_at": [pd.Timestamp(recorded_at)],
                "by": [by],
                "body": [json.dumps(body, allow_nan=False)],
            }
        )
        return self._store.append(self._model, "decisions", row, key=key, sequence=sequence).written
