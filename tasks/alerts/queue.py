"""Whether people keep up with what is put up for them, as what stands against the model. It puts up nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import pandas as pd

from perennial.definition import ModelDefinition, duration_text
from perennial.definition.review import Review
from perennial.review.desk import Desk
from perennial.review.items import Item as ReviewItem
from perennial.review.items import votes
from perennial.state.store import Store
from tasks.alerts.item import Item
from tasks.rows.frames import known_labels

FULL_DAYS = 3
_LEAST_WAITING = 10


def review_queue(store: Store, definition: ModelDefinition, *, at: datetime) -> tuple[Item, ...]:
    """What stands against the queue at a moment; nothing is read of a model without reviews, or whose alerts aren't
    about them.
    """
    alerts = definition.alerts
    if alerts is None or "reviews" not in alerts.about or not definition.review.per_day:
        return ()
    found = Desk(store, definition, None).recent(at)
    asked = [name for name, item in found.items() if item.waits or item.state == "expired"]
    known: set[str] = set()
    if asked:
        known = set(known_labels(store, definition.name, as_of=at, ids=pd.Series(asked, dtype="str"))["id"])
    return queue_items(found, known, definition.name, definition.review, at=at)


def queue_items(
    found: Mapping[str, ReviewItem], known: Collection[str], model: str, review: Review, *, at: datetime
) -> tuple[Item, ...]:
    """Full is a queue of some days' rows that people, as fast as they answered lately, would not answer before it
    expires; or one of which rows expire without an answer.

    Args:
        found: What was put up, or answered, within two expiries at least.
        known: Rows whose truth has come from elsewhere: nobody has to answer them.
        review: How many a day, and how long they wait.
        at: The moment.
    """
    since = at - review.expires
    rows = [item for name, item in found.items() if item.gold is None and name not in known]
    waiting = [item for item in rows if item.waits and item.expires_at > at]
    gone = [item for item in rows if item.state == "expired" and item.expires_at > since and not votes(item.answers)]
    answered = sum(any(answer.at > since for answer in votes(item.answers).values()) for item in found.values())
    behind = len(waiting) > answered and len(waiting) >= max(_LEAST_WAITING, FULL_DAYS * review.per_day)
    if not behind and len(gone) < max(1, review.per_day):
        return ()
    period = duration_text(review.expires)
    detail = f"{len(waiting)} rows wait for a person"
    if waiting:
        detail += f", the oldest since {min(item.offer.at for item in waiting):%Y-%m-%d}"
    detail += f"; within {period} {answered} were answered, and {len(gone)} expired with no answer"
    to_do = f"Answer some, `perennial reviews {model}`, find more people, or ask less (review.per_day)"
    marks = [*(["waiting"] if behind else []), *(["expired"] if gone else [])]
    return (Item("reviews", "reviews", "the review queue is full", detail, to_do, tuple(marks)),)
