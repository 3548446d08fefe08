"""A complaint is judged by the truth of its rows: a moved world is learned, what is broken is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from decision_world import CATEGORICAL, NUMERIC, START, WEEK, make_frame, make_inputs, make_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.definition import Monitoring
from tasks.check.complaints.complaint import Complaint, doubted_span, is_judgeable, read_complaints
from tasks.check.complaints.course import follow
from tasks.check.complaints.masks import is_refused, sound_rows, without_refused
from tasks.check.complaints.trial import HARM_SIGMAS, Effect, Findings, Ruling, hold_trial, rule
from tasks.check.decision import Decision, check, is_news
from tasks.check.history import acceptance_row
from tasks.check.signal import Signal
from tasks.check.text import render_text

FRAME = make_frame(30)
REFERENCE = make_reference(FRAME[FRAME["time"] < pd.Timestamp(START + 13 * WEEK)])
FEATURES = [*NUMERIC, *CATEGORICAL]
FIRST = 15


def _walk(frame: pd.DataFrame, weeks: int = 5, **given: Any) -> list[Decision]:
    """The checks at the end of the weeks from FIRST on, each with what the ones before left."""
    ledger: list[dict[str, Any]] = []
    made = []
    for week in range(FIRST, FIRST + weeks):
        as_of = START + week * WEEK
        holdout = FRAME[(FRAME["time"] >= START + 12 * WEEK) & (FRAME["time"] < START + 13 * WEEK)]
        span = doubted_span(read_complaints(ledger), as_of - WEEK)
        suspects = None
        if span is not None:
            rows = frame[(frame["time"] >= span[0]) & (frame["time"] < span[1])]
            suspects = rows[["time", *FEATURES]].assign(_id=rows["id"], _score=rows["chance"])
        held = holdout[FEATURES].assign(_score=holdout["chance"], _truth=holdout["truth"])
        inputs = make_inputs(REFERENCE, frame, as_of, ledger=tuple(ledger), suspects=suspects, holdout=held, **given)
        made.append(check(inputs, Monitoring(), as_of=as_of))
        ledger.append(made[-1].to_dict())
    return made


def _from(week: int, until: int = 30) -> pd.Series:
    return (FRAME["time"] >= START + (week - 1) * WEEK) & (FRAME["time"] < START + (until - 1) * WEEK)


def _words(decision: Decision) -> str:
    return " ".join(render_text(decision).split())


def _state(decision: Decision, name: str) -> str:
    return {raw["name"]: raw["state"] for raw in decision.evidence["complaints"]}.get(name, "")


def test_a_world_that_moved_holds_learning_for_one_check_only() -> None:
    renamed = FRAME["carrier"].mask(_from(FIRST), FRAME["carrier"] + " Ltd")
    decisions = _walk(FRAME.assign(carrier=renamed))
    assert [decision.verdict == "repair" for decision in decisions] == [True, False, False, False, False]
    assert _state(decisions[1], "unseen carrier") == "dissolved"
    told = next(raw for raw in decisions[1].evidence["complaints"])
    assert "changes the loss on the later ones by" in told["reason"]
    assert told["numbers"]["later_rows"] >= 100
    assert "(unseen carrier): from 2024-04-08 on its rows teach nothing until" in _words(decisions[0])
    assert "complaint of 2024-04-15 00:00 (unseen carrier): dissolved. The world moved" in _words(decisions[1])
    assert "dissolved" not in _words(decisions[2])


def test_a_scrambled_unit_is_refused_by_column_and_the_model_goes_on() -> None:
    rng = np.random.default_rng(0)
    noise = pd.Series(rng.permutation(FRAME["speed"].to_numpy()) * 1000, index=FRAME.index)
    decisions = _walk(FRAME.assign(speed=FRAME["speed"].mask(_from(FIRST, FIRST + 3), noise)))
    assert decisions[0].verdict == "repair"
    assert all(decision.verdict != "repair" for decision in decisions[1:])
    assert "confirmed" in {raw["state"] for raw in decisions[1].evidence["complaints"]}
    refused = [c for c in read_complaints([decisions[-1].to_dict()]) if c.refuses]
    rows = without_refused(FRAME, "time", refused)
    assert rows["speed"].isna()[_from(FIRST, FIRST + 3)].all()
    assert rows["speed"].notna()[~_from(FIRST, FIRST + 3)].all()
    assert any("accept world" in reason for reason in decisions[1].reasons)


def test_without_truth_the_model_goes_on_when_the_time_is_up_and_nothing_is_learned() -> None:
    decisions = _walk(FRAME.assign(carrier=FRAME["carrier"].mask(_from(FIRST), "??")), labels=_no_labels())
    assert [decision.verdict == "repair" for decision in decisions[:4]] == [True, False, False, False]
    assert [_state(decision, "unseen carrier") for decision in decisions[:3]] == ["open", "open", "confirmed"]
    for decision in decisions:
        refused = [item for item in read_complaints([decision.to_dict()]) if item.refuses]
        learned = without_refused(FRAME, "time", refused)["carrier"]
        assert learned[_from(FIRST) & (FRAME["time"] < pd.Timestamp(decision.as_of))].isna().all()


def _no_labels() -> pd.DataFrame:
    return pd.DataFrame({"id": pd.Series(dtype="str"), "truth": [], "labelled_at": pd.to_datetime([], utc=True)})


def test_what_is_told_again_says_still_and_is_no_news() -> None:
    decisions = _walk(FRAME.assign(carrier=FRAME["carrier"].mask(_from(FIRST), "??")), weeks=2, labels=_no_labels())
    assert is_news(decisions[0], None)
    assert not is_news(decisions[1], decisions[0].to_dict())
    assert decisions[1].reasons[0].startswith("still, since 2024-04-15")
    assert decisions[0].decision_id[:8] in decisions[1].reasons[0]
    assert f"perennial accept world {decisions[0].decision_id[:8]}" in decisions[0].next_step


def test_missing_values_are_learned_as_missing() -> None:
    decisions = _walk(FRAME.assign(speed=FRAME["speed"].mask(_from(FIRST) & (FRAME.index % 2 == 0))), weeks=3)
    assert [decision.verdict == "repair" for decision in decisions] == [True, False, False]
    assert not any(c.refuses for c in read_complaints([decisions[-1].to_dict()]))


def test_few_missing_values_are_told_and_hold_nothing_up() -> None:
    some = _from(FIRST) & (FRAME.index % 10 < 3)
    (decision,) = _walk(FRAME.assign(speed=FRAME["speed"].mask(some)), weeks=1)
    assert decision.verdict != "repair"
    assert any(reason.startswith("speed is missing in") for reason in decision.reasons)
    assert is_news(decision, None)


def test_values_that_go_missing_again_are_told_to_a_person_and_hold_nothing_up() -> None:
    gone = _from(FIRST, FIRST + 1) | _from(FIRST + 2, FIRST + 3)
    decisions = _walk(FRAME.assign(speed=FRAME["speed"].mask(gone)), weeks=4)
    assert [decision.verdict == "repair" for decision in decisions] == [True, False, False, False]
    news = [
        is_news(now, before and before.to_dict()) for before, now in zip([None, *decisions], decisions, strict=False)
    ]
    assert news == [True, False, True, False]
    assert any("it has come and gone before" in reason for reason in decisions[2].reasons)


def test_where_one_column_has_come_and_gone_another_that_goes_is_told_only() -> None:
    frame = FRAME.assign(speed=FRAME["speed"].mask(_from(FIRST, FIRST + 1)))
    frame = frame.assign(carrier=frame["carrier"].mask(_from(FIRST + 2)))
    decisions = _walk(frame, weeks=3)
    assert [decision.verdict == "repair" for decision in decisions] == [True, False, False]
    assert any("other columns of this feed have come and gone" in reason for reason in decisions[2].reasons)
    assert is_news(decisions[2], decisions[1].to_dict())


def test_an_acceptance_ends_it() -> None:
    frame = FRAME.assign(carrier=FRAME["carrier"].mask(_from(FIRST), "??"))
    first = check(make_inputs(REFERENCE, frame, START + FIRST * WEEK), Monitoring(), as_of=START + FIRST * WEEK)
    at = START + FIRST * WEEK + timedelta(hours=1)
    ledger = (first.to_dict(), acceptance_row(first.decision_id, at, by="Ada", reason="a merger"))
    later = START + (FIRST + 1) * WEEK
    second = check(make_inputs(REFERENCE, frame, later, ledger=ledger), Monitoring(), as_of=later)
    assert second.verdict != "repair"
    assert not any(c.refuses for c in read_complaints([second.to_dict()]))


# The rules, on whatever they are given.

MOMENT = datetime.fromisoformat("2024-06-01T00:00:00+00:00")
effects = st.none() | st.builds(Effect, st.floats(-1, 1), st.floats(0.001, 1), st.integers(1, 5000))
findings = st.builds(Findings, effects, effects, effects, effects, st.floats(0.1, 20))
kinds = st.sampled_from(["unseen", "constant", "unit of", "range of", "duplicated rows", "clock shifted"])


@settings(max_examples=300, deadline=None)
@given(kinds, findings)
def test_laws_of_the_rule(kind: str, found: Findings) -> None:
    said = rule(kind, found)
    if found.later is None:
        assert said is None
        return
    if said is None:
        assert kind == "constant"
        return
    assert said[1]
    if found.later.sigmas < -HARM_SIGMAS:
        assert said[0] == "confirmed"  # whatever else is found, what hurts the later rows is not learned
    better = Effect(abs(found.later.gain), found.later.error, found.later.rows)
    kinder = rule(kind, replace(found, later=better))
    assert kinder is not None
    if said[0] == "dissolved":
        assert kinder[0] == "dissolved"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["dissolved", "confirmed", None])), min_size=1, max_size=20))
def test_no_complaint_is_open_for_longer_than_its_patience(course: list[tuple[bool, str | None]]) -> None:
    complaints: tuple[Complaint, ...] = ()
    for number, (fires, says) in enumerate(course):
        as_of = MOMENT + number * WEEK
        signal = Signal("unseen month", "health", 0.9, 0.4, "", fires, fires, "")
        ruling = Ruling(says, "because", as_of, {}) if says else None  # type: ignore[arg-type]
        complaints = follow(
            complaints, [signal], as_of=as_of, decision_id=str(number), news_since=as_of - WEEK, window=WEEK,
            patience=2 * WEEK, accepted=(), acceptances=(), owners={}, judge=lambda _, said=ruling: said,  # type: ignore[misc]
        )  # fmt: skip
        assert all(item.since < item.until for item in complaints)
        assert all(item.state != "open" or as_of - item.opened < 2 * WEEK for item in complaints)
        assert sum(item.firing for item in complaints) == fires
        assert complaints == tuple(Complaint.from_dict(item.to_dict()) for item in complaints)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 20), st.integers(1, 20), st.sampled_from(["open", "confirmed", "dissolved", "accepted"]))
def test_only_what_is_refused_is_left_out(first: int, length: int, state: Any) -> None:
    rows = pd.DataFrame({"time": [pd.Timestamp(MOMENT) + day * pd.Timedelta(days=1) for day in range(30)], "x": 1.0})
    since = MOMENT + timedelta(days=first)
    complaint = Complaint("range of x", "x", "id", since, since, since + timedelta(days=length), state=state)
    inside = is_refused(rows["time"], [complaint])
    assert inside.sum() == (min(30, first + length) - first if complaint.refuses else 0)
    assert without_refused(rows, "time", [complaint])["x"].isna().to_numpy().tolist() == inside.tolist()
    whole = replace(complaint, name="clock shifted", column=None)
    assert sound_rows(rows, "time", [whole]).tolist() == (~inside).tolist()


def test_of_repeated_rows_the_first_is_sound() -> None:
    rows = pd.DataFrame({"_id": list("abcd"), "_time": [pd.Timestamp(MOMENT)] * 4, "x": [1.0, 1.0, 2.0, 1.0]})
    complaint = Complaint("duplicated rows", None, "id", MOMENT, MOMENT, MOMENT + WEEK)
    assert sound_rows(rows, "_time", [complaint]).tolist() == [True, False, True, False]


@pytest.mark.parametrize(("name", "judgeable"), [("unseen month", True), ("stale feed", False), ("schema", False)])
def test_facts_are_no_hypotheses(name: str, judgeable: bool) -> None:
    assert is_judgeable(name) == judgeable


def test_the_trial_tells_a_scrambled_column_from_a_new_meaning() -> None:
    rng = np.random.default_rng(1)
    x, other = rng.normal(size=(2, 2400))
    y = x + 0.3 * other + 0.3 * rng.normal(size=2400)
    rows = pd.DataFrame({"x": x, "other": other, "_truth": y})
    sound, later = rows[:1200], rows[1200:].reset_index(drop=True)
    moved = hold_trial(later.assign(x=later["x"] + 9), sound, "x", undo=None)
    broken = hold_trial(later.assign(x=rng.permutation(later["x"])), sound, "x", undo=None)
    assert rule("range of", moved)[0] == "dissolved"  # type: ignore[index]
    assert rule("range of", broken)[0] == "confirmed"  # type: ignore[index]
    thousandfold = hold_trial(later.assign(x=later["x"] * 1000), sound, "x", undo=(1000.0, 0.0))
    assert rule("unit of", thousandfold)[0] == "confirmed"  # type: ignore[index]
