"""The decision ledger: decisions, who claimed them, and what came of them. It records; it decides nothing.

Five kinds of rows, only ever appended: a `decision` (once per id), a `claim` (the run that acts on it; at
most one living holder), an `outcome` (what the run ended with), an `acceptance` (a person's) and an `act` (what a
person did or was refused, by whom and why). Appends are compare-and-set, so two runs that race for a decision can't
both get it, on a folder or an object store.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import pandas as pd
import pyarrow.compute as pc

from perennial.errors import ClaimedError, NotFoundError
from perennial.state.store import Store

# Under which key of a decision's entry a later row of that kind stands.
_FACETS = {"outcome": "outcome", "recalibration": "outcome", "acceptance": "acceptance", "rollback": "rollback",
           "settlement": "settlement", "realised": "realised"}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """The right of one run to act on a decision; `attempt` counts holders from 1."""

    decision_id: str
    by: str
    attempt: int


class _Head(msgspec.Struct):
    """What is asked of every row, while of most the signals and the evidence are never looked at."""

    decision_id: str | msgspec.UnsetType | None = msgspec.UNSET
    as_of: str | msgspec.UnsetType = msgspec.UNSET
    verdict: str | msgspec.UnsetType = msgspec.UNSET
    champion_version: str | msgspec.UnsetType = msgspec.UNSET


class LedgerRow(Mapping[str, Any]):
    """A row's body with its `kind`; read whole only when something is asked for that is not in its head."""

    __slots__ = ("_body", "_head", "_kind", "_text")

    def __init__(self, kind: str, text: str) -> None:
        self._kind, self._text = kind, text
        self._body: dict[str, Any] | None = None
        head = msgspec.json.decode(text, type=_Head)
        given = {name: getattr(head, name) for name in head.__struct_fields__}
        self._head = {name: value for name, value in given.items() if value is not msgspec.UNSET} | {"kind": kind}

    @property
    def body(self) -> dict[str, Any]:
        if self._body is None:
            self._body = msgspec.json.decode(self._text) | {"kind": self._kind}
        return self._body

    def __getitem__(self, name: str) -> Any:
        return self._head[name] if name in self._head else self.body[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.body)

    def __len__(self) -> int:
        return len(self.body)


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
            ClaimedError: A living run holds it, or it has its outcome already.
        """
        claims = self.require_open(decision_id, by, is_alive=is_alive)
        if claims and claims[-1] == by:
            return Claim(decision_id, by, len(claims))
        attempt = len(claims) + 1
        won = self._append(
            "claim", decision_id, {"attempt": attempt}, as_of, recorded_at, by=by,
            key=f"claim:{decision_id}", sequence=attempt,
        )  # fmt: skip
        if not won:
            raise ClaimedError(f"decision {decision_id} was claimed by another run", "Nothing is to do")
        return Claim(decision_id, by, attempt)

    def require_open(self, decision_id: str, by: str, *, is_alive: Callable[[str], bool]) -> list[str]:
        """Who has claimed the decision so far, oldest first, if the run `by` may claim it; nothing is written.

        Raises:
            NotFoundError, ClaimedError: As of `claim`.
        """
        entry = self.entry(decision_id)
        if entry["outcome"] is not None:
            raise ClaimedError(f"decision {decision_id} was carried out by {entry['claimed_by']}", "Nothing is to do")
        claims: list[str] = entry["claims"]
        if claims and claims[-1] != by and is_alive(claims[-1]):
            raise ClaimedError(f"decision {decision_id} is claimed by {claims[-1]}", "Nothing is to do")
        return claims

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
        self.entry(decision_id)
        return self._append(
            "acceptance", decision_id, acceptance, acceptance["as_of"], recorded_at, by=acceptance["by"],
            key=f"acceptance:{decision_id}",
        )  # fmt: skip

    def note(self, act: dict[str, Any], *, by: str, at: datetime) -> None:
        """Write down what a person did: `act`, `reason`, `told`, whether it was `done`. No decision reads it."""
        self._append("act", "", act | {"as_of": at.isoformat(), "by": by}, at, at, by=by, key=f"act:{uuid.uuid4()}")

    def rows(self, *, as_of: datetime | None = None) -> list[LedgerRow]:
        """Every row but claims and acts, oldest first; up to `as_of` where it is given."""
        frame = self._frame(as_of)
        told = frame[~frame["kind"].isin(["claim", "act"])]
        return [LedgerRow(str(row.kind), str(row.body)) for row in told.itertuples()]

    def acts(self) -> list[dict[str, Any]]:
        """What people did, oldest first."""
        frame = self._store.frame(self._model, "decisions", where=pc.field("kind") == "act")
        return [msgspec.json.decode(body) for body in frame.sort_values("recorded_at", kind="stable")["body"]]

    def entry(self, decision_id: str, *, as_of: datetime | None = None) -> dict[str, Any]:
        """One of `entries`.

        Raises:
            NotFoundError: There is no such decision.
        """
        found = _entries(self._frame(as_of, decision_id))
        if not found:
            raise NotFoundError(f"{self._model} has no decision {decision_id}", f"See `perennial ledger {self._model}`")
        return found[0]

    def newest(self, *verdicts: str, as_of: datetime | None = None) -> dict[str, Any] | None:
        """The newest of `entries` with one of the verdicts, or with any; None where there is none."""
        frame = self._frame(as_of)
        decisions = frame[frame["kind"] == "decision"]
        for body in reversed(decisions["body"].tolist()):
            row = LedgerRow("decision", body)
            if not verdicts or row["verdict"] in verdicts:
                return _entries(frame[frame["decision_id"] == row["decision_id"]])[0]
        return None

    def entries(self, *, as_of: datetime | None = None) -> list[dict[str, Any]]:
        """The decisions, oldest first, each with `claims` (runs), `claimed_by` (the last one) and `outcome`.

        Args:
            as_of: Only what had happened by then: later decisions, claims and outcomes are left out.
        """
        return _entries(self._frame(as_of))

    def _frame(self, as_of: datetime | None, decision_id: str | None = None) -> pd.DataFrame:
        where = None if decision_id is None else pc.field("decision_id") == decision_id
        frame = self._store.frame(self._model, "decisions", where=where)
        if as_of is not None:
            frame = frame[frame["as_of"] <= pd.Timestamp(as_of)]
        ranks = {"decision": 0, "claim": 1, "outcome": 2, "recalibration": 2, "acceptance": 3}
        rank = frame["kind"].map(ranks | {"settlement": 4, "rollback": 5, "realised": 6, "act": 7})
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


def _entries(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Decisions with what belongs to each, from rows in order."""
    entries: dict[str, dict[str, Any]] = {}
    holders: dict[str, dict[int, str]] = {}
    # By kind first: a claim may carry an earlier moment than its decision.
    for row in frame.sort_values("rank", kind="stable").itertuples():
        body, decision_id = msgspec.json.decode(str(row.body)), str(row.decision_id)
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
