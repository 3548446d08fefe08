"""What is said, for any course of what stands: each news once, silence while nothing changes, one message a look."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.definition import Alerts
from tasks.alerts.item import Item
from tasks.alerts.message import Told, compose, from_json, render_subject, render_text, to_json

START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("data", "quality", "drift", "labels", "watch")


def item(key: str, marks: tuple[str, ...] = (), detail: str = "", grave: bool = False) -> Item:
    kind = KINDS[sum(map(ord, key)) % len(KINDS)]
    return Item(key, kind, f"title of {key}", detail or f"{key} is 3", f"Look at {key}", marks, grave)


items = st.lists(
    st.builds(
        item, st.sampled_from("abcdef"), st.lists(st.sampled_from("xyz"), unique=True).map(tuple), st.text(max_size=5),
        st.booleans(),
    ),
    unique_by=lambda found: found.key, max_size=5,
).map(tuple)  # fmt: skip
policies = st.builds(
    Alerts, about=st.sets(st.sampled_from(KINDS), min_size=1).map(tuple), recovered=st.booleans(),
    quiet_checks=st.integers(1, 3), remind=st.one_of(st.none(), st.just(timedelta(days=3))),
)  # fmt: skip


def at(look: int) -> datetime:
    return START + timedelta(days=look)


@given(st.lists(items, max_size=8), policies)
def test_each_news_is_told_at_once_and_only_then(course: list[tuple[Item, ...]], policy: Alerts) -> None:
    said: dict[str, Told] = {}
    stands: dict[str, set[str]] = {}  # a plain model of what people know
    gone: dict[str, int] = {}
    for number, found in enumerate(course):
        message, said = compose(found, said, policy, source="check", at=at(number))
        wanted = {one.key: set(one.marks) for one in found if one.kind in policy.about}
        news = {key for key, marks in wanted.items() if key not in stands or marks - stands[key]}
        for key in list(stands):
            gone[key] = 0 if key in wanted else gone.get(key, 0) + 1
        over = {key for key in stands if gone[key] >= policy.quiet_checks}
        assert {one.key for one in message.new} == news if message else not news
        assert bool(message) >= bool(news or (over and policy.recovered))
        if policy.remind is None:
            assert bool(message) == bool(news or (over and policy.recovered))
        stands = {key: marks for key, marks in stands.items() if key not in over}
        for key, marks in wanted.items():
            gone[key] = 0
            stands[key] = stands.get(key, set()) | marks
        assert {key: set(told.marks) for key, told in said.items()} == stands


@given(items, policies, st.integers(1, 2))
def test_what_does_not_change_is_silent_whatever_its_figures(
    found: tuple[Item, ...], policy: Alerts, days: int
) -> None:
    _, said = compose(found, {}, policy, source="check", at=START)
    others = [Item(one.key, one.kind, one.title, "other figures", one.to_do, one.marks, one.grave) for one in found]
    message, again = compose(others, said, policy, source="check", at=START + timedelta(days=days))
    assert message is None
    assert again == said


@given(items, items, policies)
def test_a_source_leaves_what_another_said(mine: tuple[Item, ...], theirs: tuple[Item, ...], policy: Alerts) -> None:
    other = [Item(f"w{one.key}", one.kind, one.title, one.detail, one.to_do, one.marks) for one in theirs]
    _, said = compose(other, {}, policy, source="watch", at=START)
    message, after = compose(mine, said, policy, source="check", at=at(1))
    assert {key: told for key, told in after.items() if told.source == "watch"} == said
    if message:
        assert {title for title, _ in message.standing} >= {told.title for told in said.values()}
        assert not message.over


@given(st.lists(items, min_size=1, max_size=4), policies)
def test_what_was_said_survives_its_keeping(course: list[tuple[Item, ...]], policy: Alerts) -> None:
    said: dict[str, Told] = {}
    for number, found in enumerate(course):
        _, said = compose(found, said, policy, source="watch", at=at(number))
    assert from_json(json.loads(json.dumps(to_json(said)))) == said


@settings(max_examples=50)
@given(items, st.text(max_size=5000), policies)
def test_a_message_is_bounded_and_keeps_its_end(found: tuple[Item, ...], long: str, policy: Alerts) -> None:
    told = [Item(one.key, one.kind, one.title, long, one.to_do, one.marks, one.grave) for one in found]
    message, _ = compose(told, {}, policy, source="check", at=START)
    if message is None:
        return
    text = render_text(message, ["Decision 1", "http://link"])
    assert len(text) <= 3500
    assert text.endswith("\n\nDecision 1\nhttp://link")
    assert "\n" not in render_subject("digits", message)
    assert len(render_subject("digits", message)) <= 120


def test_the_message_as_people_read_it() -> None:
    first = (item("b"), item("a", ("x",), "a is 7", grave=True))
    message, said = compose(first, {}, Alerts(), source="check", at=START)
    assert message is not None
    assert render_subject("digits", message) == "digits: title of a, and 1 more"
    assert render_text(message, ["Decision 1"]) == (
        "!! title of a: a is 7\n   Look at a.\n! title of b: b is 3\n   Look at b.\n\nDecision 1"
    )
    message, said = compose((item("a", ("x", "y")),), said, Alerts(quiet_checks=1), source="check", at=at(1))
    assert message is not None
    assert render_text(message, []) == "! title of a: a is 3\n   Look at a.\n✓ over: title of b"
    message, said = compose((), said, Alerts(quiet_checks=1), source="check", at=at(2))
    assert message is not None
    assert (render_subject("digits", message), said) == ("digits: over: title of a", {})


def test_a_reminder_comes_when_it_is_due() -> None:
    policy, said = Alerts(remind=timedelta(days=3)), {}
    heard = []
    for number in range(8):
        message, said = compose((item("a"),), said, policy, source="check", at=at(number))
        heard.append(None if message is None else (len(message.new), len(message.reminded)))
    assert heard == [(1, 0), None, None, (0, 1), None, None, (0, 1), None]


def test_what_flickers_is_told_once() -> None:
    said: dict[str, Told] = {}
    heard = []
    for number in range(9):
        found = (item("a"),) if number % 2 == 0 else ()
        message, said = compose(found, said, Alerts(quiet_checks=2), source="check", at=at(number))
        heard.append(message is not None)
    assert heard == [True] + [False] * 8


@pytest.mark.parametrize("wrong", [{"about": []}, {"about": ["weather"]}, {"quiet_checks": 0}, {"tell": "me"}])
def test_a_wrong_policy_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"about|quiet_checks|tell"):
        Alerts.model_validate(wrong)
