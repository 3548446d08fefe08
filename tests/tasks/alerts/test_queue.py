"""A review queue is full when people do not keep up with it, by their own pace; a weekend is no alarm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perennial.definition import Alerts
from perennial.definition.review import Review
from perennial.review.desk import Desk
from perennial.review.events import Answer, Offer, Reviews, write_events
from perennial.review.items import Rules, items_of
from perennial.workspace import Workspace
from tasks.alerts.item import Item
from tasks.alerts.queue import queue_items, review_queue

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = Review(per_day=20)


def offered(day: int, count: int = 20) -> list[Offer]:
    at = START + day * DAY
    return [
        Offer(
            id=f"d{day}-{number}", at=at, reason="random", propensity=0.1, share=0.1, drawn=True, wanted=1,
            expires_at=at + POLICY.expires, time=at,
        )
        for number in range(count)
    ]  # fmt: skip


def answers(offer: Offer, after_hours: float = 5) -> Answer:
    return Answer(offer.id, offer.at + timedelta(hours=after_hours), "anna", "truth", "yes")


def look(offers: list[Offer], said: list[Answer], day: float, known: set[str] = frozenset()) -> tuple[Item, ...]:  # type: ignore[assignment]
    at = START + day * DAY
    reviews = Reviews({item.id: item for item in offers}, {item.id: [item] for item in said}, {})
    return queue_items(items_of(reviews, Rules(), at), known, "digits", POLICY, at=at)


def test_people_who_keep_up_are_not_told() -> None:
    offers = [item for day in range(12) for item in offered(day)]
    assert look(offers, [answers(item) for item in offers], 12) == ()
    assert look(offers, [answers(item) for item in offers[:180]], 12) == (), "three days away, and nine answered"


def test_more_that_waits_than_is_answered_is_told_with_the_numbers() -> None:
    offers = [item for day in range(12) for item in offered(day)]
    (found,) = look(offers, [answers(item) for item in offers[:60]], 12)
    assert (found.key, found.kind, found.marks, found.grave) == ("reviews", "reviews", ("waiting",), False)
    assert found.detail == (
        "180 rows wait for a person, the oldest since 2026-03-05; within 14d 60 were answered, and 0 expired with no "
        "answer"
    )
    assert "perennial reviews digits" in found.to_do


def test_the_first_days_are_not_full() -> None:
    assert look(offered(0) + offered(1), [], 2) == ()
    assert len(look(offered(0) + offered(1) + offered(2), [], 3)) == 1


def test_rows_that_expire_unanswered_are_told_and_are_over_after_another_expiry() -> None:
    offers = offered(0) + offered(1)
    (found,) = look(offers, [], 15.5)
    assert found.marks == ("expired",)
    assert found.detail.startswith("0 rows wait for a person; within 14d 0 were answered, and 40 expired")
    assert look(offers, [], 29.5) == ()
    assert look(offers, [answers(item) for item in offers[5:]], 15.5) == (), "a handful is no queue"


def test_a_row_whose_truth_came_by_itself_waits_for_nobody() -> None:
    offers = [item for day in range(4) for item in offered(day)]
    assert len(look(offers, [], 4)) == 1
    assert look(offers, [], 4, {item.id for item in offers[:40]}) == ()


def test_what_is_old_is_no_pace() -> None:
    """Who answered a month ago and stopped does not keep up."""
    old, new = offered(0, 20), [item for day in range(20, 24) for item in offered(day)]
    (found,) = look(old + new, [answers(item) for item in old], 24)
    assert "80 rows wait" in found.detail
    assert "within 14d 0 were answered" in found.detail


@pytest.mark.parametrize("about", [None, ("quality",), ("reviews",)])
def test_the_tables_are_asked_only_where_people_want_to_know(
    workspace: Workspace, about: tuple[Any, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from small_model import define

    alerts = {} if about is None else {"alerts": {"about": list(about)}}
    definition = define(workspace, review={"per_day": 20}, **alerts)
    assert definition.alerts is None or isinstance(definition.alerts, Alerts)
    write_events(workspace.store, "digits", [item for day in range(4) for item in offered(day)])
    if about != ("reviews",):
        monkeypatch.setattr(Desk, "recent", None)
        assert review_queue(workspace.store, definition, at=START + 4 * DAY) == ()
        return
    (found,) = review_queue(workspace.store, definition, at=START + 4 * DAY)
    assert found.detail.startswith("80 rows wait")
