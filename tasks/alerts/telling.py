"""The edge of alerts: what was said is read from and written to the table `alerts`. What is said is `message`'s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from perennial.definition import Alerts
from perennial.state.store import Store
from tasks.alerts.item import Item, Source
from tasks.alerts.message import Message, Told, compose, from_json, render_subject, render_text, to_json


@dataclass(frozen=True)
class Look:
    """One look at a model, and what came of it; sent first, then recorded.

    Attributes:
        key: Names the look: repeated, it says nothing.
        message: None for silence.
        after: What counts as said once the message is sent.
    """

    key: str
    model: str
    at: datetime
    source: Source
    decision_id: str
    message: Message | None
    after: dict[str, Told]
    changed: bool

    def payload(self, footer: Sequence[str], link: str) -> dict[str, Any]:
        """What goes out: a subject and a text for people, the rest for machines.

        Raises:
            ValueError: There is nothing to say.
        """
        if self.message is None:
            raise ValueError("silence has no payload")
        new = (*self.message.new, *self.message.reminded)
        return {
            "model": self.model,
            "at": self.at.isoformat(),
            "source": self.source,
            "decision_id": self.decision_id,
            "link": link,
            "subject": render_subject(self.model, self.message),
            "text": render_text(self.message, footer),
            "items": [
                {"key": item.key, "kind": item.kind, "grave": item.grave, "title": item.title, "detail": item.detail,
                 "to_do": item.to_do, "marks": list(item.marks)} for item in new
            ],
            "standing": [title for title, _ in self.message.standing],
            "over": list(self.message.over),
        }  # fmt: skip


def look(
    store: Store,
    model: str,
    items: Sequence[Item],
    policy: Alerts,
    *,
    source: Source,
    at: datetime,
    decision_id: str = "",
) -> Look:
    """What is to be said of a model now. The same look again has nothing to say."""
    key = f"alert:{source}:{decision_id or at.isoformat()}"
    rows = store.frame(model, "alerts", where=pc.field("at") < at)
    said = from_json(json.loads(rows.sort_values("at")["body"].iloc[-1])["said"]) if len(rows) else {}
    message, after = compose(items, said, policy, source=source, at=at)
    if store.committed(model, "alerts", key) is not None:
        message = None
    return Look(key, model, at, source, decision_id, message, after, changed=after != said)


def record(store: Store, done: Look, payload: dict[str, Any] | None) -> bool:
    """Write down what counts as said; where nothing changed, nothing is written."""
    if not done.changed and payload is None:
        return False
    body = {"said": to_json(done.after), "message": payload}
    row = pd.DataFrame(
        {
            "at": [pd.Timestamp(done.at)],
            "source": [done.source],
            "decision_id": [done.decision_id],
            "body": [json.dumps(body)],
        }
    )
    return store.append(done.model, "alerts", row, key=done.key).written
