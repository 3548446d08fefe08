"""What follows from answers: who is asked, when a row is settled, what becomes a label and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.errors import DataError
from perennial.model.truth import Classes
from perennial.review.events import Answer, Known, Offer, Reviews, in_order, read_answer
from perennial.review.items import Item, Rules, asked, item_of, items_of, label_steps, outcome

T = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = Rules()


def offer(wanted: int = 1, **changes: Any) -> Offer:
    given: dict[str, Any] = {
        "id": "r", "at": T, "reason": "margin", "propensity": 1.0, "share": 0.1, "drawn": False, "wanted": wanted,
        "expires_at": T + timedelta(days=14), "time": T,
    }  # fmt: skip
    return Offer(**given | changes)


def at(minute: float) -> datetime:
    return T + timedelta(minutes=minute)


def say(minute: float, author: str, word: str) -> Answer:
    """An answer; the words skip, undo and cannot_tell are no truths."""
    if word in ("skip", "undo", "cannot_tell"):
        return Answer("r", at(minute), author, word)  # type: ignore[arg-type]
    return Answer("r", at(minute), author, "truth", word)


def after(*answers: Answer, wanted: int = 1, now: float = 1000, known: Known | None = None) -> Item:
    return item_of(offer(wanted), answers, CLASSES, at(now), known)


def steps(*answers: Answer, wanted: int = 1, now: float = 1000, **changes: Any) -> list[tuple[str | None, float, str]]:
    found = label_steps(offer(wanted, **changes), answers, CLASSES, at(now))
    return [(step.truth, round((step.at - T).total_seconds() / 60), step.author) for step in found]


def test_one_answer_settles_a_row_and_is_its_label_at_once() -> None:
    item = after(say(1, "anna", "yes"))
    assert (item.state, item.outcome.truth, item.waits) == ("settled", "yes", False)
    assert steps(say(1, "anna", "yes")) == [("yes", 1, "anna")]
    assert not item.asks("ben", at(2))


def test_a_skip_leaves_the_row_to_others() -> None:
    item = after(say(1, "anna", "skip"))
    assert item.state == "open"
    assert not item.asks("anna", at(2))
    assert item.asks("ben", at(2))


def test_that_it_cannot_be_told_is_an_answer_and_no_label() -> None:
    item = after(say(1, "anna", "cannot_tell"))
    assert (item.state, item.outcome.truth) == ("settled", None)
    assert steps(say(1, "anna", "cannot_tell")) == []


def test_two_who_agree_both_stand_for_the_label_from_when_the_second_came() -> None:
    one = after(say(1, "anna", "yes"), wanted=2)
    assert (one.state, one.asks("anna", at(2)), one.asks("ben", at(2))) == ("open", False, True)
    assert steps(say(1, "anna", "yes"), wanted=2) == []
    both = (say(1, "anna", "yes"), say(2, "ben", "yes"))
    assert after(*both, wanted=2).state == "settled"
    assert steps(*both, wanted=2) == [("yes", 2, "anna"), ("yes", 2, "ben")]


def test_a_disputed_row_comes_back_to_everybody_once_and_is_decided_by_most() -> None:
    both = (say(1, "anna", "yes"), say(2, "ben", "no"))
    item = after(*both, wanted=2)
    assert item.state == "disputed"
    assert all(item.asks(name, at(3)) for name in ("anna", "ben", "cleo"))
    assert steps(*both, wanted=2) == []
    again = (*both, say(3, "anna", "yes"))
    assert not after(*again, wanted=2).asks("anna", at(4))  # she was asked once more
    assert after(*again, wanted=2).asks("ben", at(4))
    third = (*both, say(3, "cleo", "no"))
    assert after(*third, wanted=2).state == "settled"
    assert steps(*third, wanted=2) == [("no", 3, "ben"), ("no", 3, "cleo")]
    changed = (*both, say(3, "ben", "yes"))
    assert steps(*changed, wanted=2) == [("yes", 3, "anna"), ("yes", 3, "ben")]


def test_who_contradicts_what_was_settled_takes_the_label_back_until_it_is_settled_again() -> None:
    told = (say(1, "anna", "yes"), say(2, "ben", "no"))
    assert steps(*told) == [("yes", 1, "anna"), (None, 2, "ben")]
    assert steps(*told, say(3, "anna", "no")) == [
        ("yes", 1, "anna"),
        (None, 2, "ben"),
        ("no", 3, "ben"),
        ("no", 3, "anna"),
    ]


def test_a_change_of_mind_corrects_and_an_undone_answer_takes_back() -> None:
    assert steps(say(1, "anna", "yes"), say(2, "anna", "no")) == [("yes", 1, "anna"), ("no", 2, "anna")]
    undone = (say(1, "anna", "yes"), say(2, "anna", "undo"))
    assert steps(*undone) == [("yes", 1, "anna"), (None, 2, "anna")]
    assert after(*undone).asks("anna", at(3))


def test_where_no_second_person_comes_the_first_counts_when_the_time_is_over() -> None:
    day = 24 * 60
    one = say(1, "anna", "yes")
    assert steps(one, wanted=2, now=13 * day) == []
    assert steps(one, wanted=2, now=15 * day) == [("yes", 14 * day, "anna")]
    assert after(one, wanted=2, now=15 * day).state == "settled"
    assert after(wanted=2, now=15 * day).state == "expired"
    late = (one, say(15 * day, "ben", "yes"))
    assert steps(*late, wanted=2, now=16 * day) == [("yes", 15 * day, "anna"), ("yes", 15 * day, "ben")]


def test_a_dispute_lasts_as_long_as_an_offer() -> None:
    day = 24 * 60
    told = (say(1, "anna", "yes"), say(13 * day, "ben", "no"))
    assert after(*told, wanted=2, now=20 * day).asks("cleo", at(20 * day))
    assert after(*told, wanted=2, now=28 * day).state == "expired"


def test_gold_is_asked_of_each_person_and_teaches_nothing() -> None:
    gold = offer(0, reason="gold", truth="yes")
    item = item_of(gold, [say(1, "anna", "no")], CLASSES, at(2))
    assert (item.state, item.gold, item.waits) == ("gold", "yes", False)
    assert item.asks("ben", at(2))
    assert not item.asks("anna", at(2))
    assert label_steps(gold, [say(1, "anna", "no")], CLASSES, at(2)) == []


def test_what_is_declared_to_be_known_is_gold_from_then_on() -> None:
    known = Known("r", at(5), "anna", "yes")
    answers = [say(1, "anna", "yes"), say(6, "ben", "no")]
    item = item_of(offer(), answers, CLASSES, at(7), known)
    assert (item.state, item.gold, item.gold_by) == ("gold", "yes", "anna")
    found = label_steps(offer(), answers, CLASSES, at(7), known)
    assert [(step.truth, step.at, step.author) for step in found] == [("yes", at(1), "anna"), ("yes", at(5), "anna")]


def test_numbers_agree_within_the_tolerance() -> None:
    rules = Rules(tolerance=0.5)
    told = [say(1, "anna", "3.0"), say(2, "ben", "3.4"), say(3, "cleo", "9.0")]
    assert outcome(told[:2], 2, rules).truth == repr(3.2)
    assert outcome([told[0], told[2]], 2, rules).state == "disputed"
    assert outcome(told, 2, rules).supporters == ("anna", "ben")
    assert outcome([say(1, "anna", "cannot_tell"), say(2, "ben", "cannot_tell"), told[2]], 2, rules).truth is None


def test_disputes_come_first_and_each_person_has_an_order_of_their_own() -> None:
    offers = {f"r{number}": offer(2, id=f"r{number}") for number in range(30)}
    answers = {"r7": [Answer("r7", at(1), "ben", "truth", "yes"), Answer("r7", at(2), "cleo", "truth", "no")]}
    items = items_of(Reviews(offers, answers), CLASSES, at(3))
    orders = [[item.offer.id for item in asked(items, name, at(3))] for name in ("anna", "dora")]
    assert [order[0] for order in orders] == ["r7", "r7"]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(offers)


_answers = st.lists(
    st.tuples(st.sampled_from(["anna", "ben", "cleo"]), st.sampled_from(["yes", "no", "cannot_tell", "skip", "undo"])),
    max_size=8,
)


@given(_answers, st.integers(1, 3))
def test_the_last_label_is_what_is_settled(told: list[tuple[str, str]], wanted: int) -> None:
    answers = [say(number, author, word) for number, (author, word) in enumerate(told, 1)]
    found = label_steps(offer(wanted), answers, CLASSES, at(100))
    item = item_of(offer(wanted), answers, CLASSES, at(100))
    assert (found[-1].truth if found else None) == item.outcome.truth
    assert [step.at for step in found] == sorted(step.at for step in found)


@given(_answers, st.integers(1, 3))
def test_labels_that_were_given_are_never_rewritten_by_later_answers(told: list[tuple[str, str]], wanted: int) -> None:
    """So that a check of the past sees what it saw."""
    answers = [say(number, author, word) for number, (author, word) in enumerate(told, 1)]
    whole = label_steps(offer(wanted), answers, CLASSES, at(100))
    for count in range(len(answers)):
        part = label_steps(offer(wanted), answers[:count], CLASSES, at(count))
        assert whole[: len(part)] == part


@given(_answers, st.integers(1, 3))
def test_nobody_is_asked_for_ever(told: list[tuple[str, str]], wanted: int) -> None:
    """Who answers whenever asked is asked about a row at most twice more."""
    answers = [say(number, author, word) for number, (author, word) in enumerate(told, 1)]
    times = 0
    while item_of(offer(wanted), answers, CLASSES, at(100)).asks("anna", at(100)):
        times += 1
        answers.append(say(50 + times, "anna", "yes"))
        assert times <= 2


def test_two_answers_of_one_moment_both_stay_in_order() -> None:
    first = say(1, "anna", "yes")
    second = in_order([first], say(1, "ben", "no"))
    assert second.at == first.at + timedelta(milliseconds=2)
    assert in_order([second], say(5, "anna", "no")).at == at(5)


READING: dict[str, Any] = {"at": T, "task": "classification", "classes": Classes("no", "yes"), "target": "late"}


def test_answers_are_read_in_the_users_words() -> None:
    read = read_answer({"id": "r", "author": " anna ", "truth": 1, "seconds": 2, "note": " odd "}, **READING)
    assert read == Answer("r", T, "anna", "truth", "yes", 2.0, "odd")
    assert read_answer({"id": "r", "skip": True, "truth": None}, author="ben", **READING).says == "skip"
    number = READING | {"task": "regression", "classes": None}
    assert read_answer({"id": "r", "author": "a", "truth": " 3.50 "}, **number).truth == "3.5"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"truth": "maybe"}, "late: 'maybe' is neither 'no' nor 'yes' (positive)"),
        ({"truth": "yess"}, "did you mean 'yes'"),
        ({"skip": True}, "the answer to r says 2 things"),
        ({"truth": None}, "the answer to r says 0 things"),
        ({"truth": None, "undo": "no"}, "undo is 'no'"),
        ({"author": "  "}, "has no author"),
        ({"id": 7}, "an answer's id is 7"),
        ({"seconds": -1}, "seconds is -1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"note": "x" * 2001}, "its note is no text of 2000 characters"),
        ({"label": "yes"}, "has 'label', which nobody reads"),
    ],
)
def test_what_is_no_answer_is_refused_by_name(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read_answer({"id": "r", "author": "anna", "truth": "yes"} | changes, **READING)
    assert problem in str(caught.value)
