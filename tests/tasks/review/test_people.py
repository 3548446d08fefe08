"""Two people of known skill on real digits: what is told of them is what they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from small_model import rows

from perennial.review.events import Answer, Known, Offer, Reviews
from perennial.review.items import Rules, items_of
from tasks.review.people import Record, record, told

T = datetime(2026, 1, 1, tzinfo=UTC)
SKILL = {"anna": 0.95, "ben": 0.75}


def asked_of_both(seed: int) -> tuple[Reviews, int]:
    """Every digit put to both, who err at random as often as their skill says; a fifth of them gold."""
    digits = rows(0, 25)
    rng = np.random.default_rng(seed)
    found = Reviews()
    for place, (name, truth) in enumerate(zip(digits["row"], digits["even"], strict=True)):
        gold = place % 5 == 0
        found.offers[name] = Offer(
            name, T, "gold" if gold else "random", 1.0, 1.0, not gold, 0 if gold else 2, T + timedelta(days=14), T,
            truth=str(truth) if gold else None,
        )  # fmt: skip
        for author, skill in SKILL.items():
            says = truth if rng.random() < skill else 1 - truth
            seconds = rng.lognormal(np.log(2 if author == "anna" else 5), 0.3)
            at = T + timedelta(seconds=place, microseconds=len(found.answers.get(name, ())))
            found.answers.setdefault(name, []).append(Answer(name, at, author, "truth", str(says), seconds))
    return found, len(digits)


@pytest.fixture(scope="module")
def found() -> Record:
    reviews, _ = asked_of_both(0)
    return record(items_of(reviews, Rules(), T + timedelta(days=1)), Rules())


def test_gold_tells_each_persons_skill(found: Record) -> None:
    for person in found.people:
        assert person.gold_interval is not None
        low, high = person.gold_interval
        assert low < SKILL[person.name] < high
        assert person.gold == 360
        assert high - low < 0.1
    anna, ben = found.people
    assert anna.seconds == pytest.approx(2, rel=0.1)
    assert ben.seconds == pytest.approx(5, rel=0.1)


def test_they_agree_as_often_as_their_skills_say(found: Record) -> None:
    """Both right or both wrong: 0.95 × 0.75 + 0.05 × 0.25 = 0.725; by chance half, so kappa is 0.45 and so is alpha."""
    (pair,) = found.pairs
    assert pair.rows == 1797
    assert pair.percent == pytest.approx(0.725, abs=0.04)
    assert pair.kappa == pytest.approx(0.45, abs=0.08)
    assert found.alpha == pytest.approx(0.45, abs=0.08)
    assert sum(count for _, _, count in pair.confusion) == round(pair.rows * (1 - pair.percent))
    assert {word for a, b, _ in pair.confusion for word in (a, b)} == {"0", "1"}
    assert any("Cohen's kappa 0.4" in line for line in told(found))


def test_what_both_say_is_truer_than_either_and_what_they_dispute_comes_back() -> None:
    reviews, count = asked_of_both(1)
    items = items_of(reviews, Rules(), T + timedelta(days=1))
    truth = dict(zip(rows(0, 25)["row"], rows(0, 25)["even"].astype("str"), strict=True))
    settled = [name for name, item in items.items() if item.state == "settled"]
    disputed = [item for item in items.values() if item.state == "disputed"]
    assert len(settled) + len(disputed) == count - 360
    assert np.mean([items[name].outcome.truth == truth[name] for name in settled]) > 0.96
    assert all(item.asks("cleo", T + timedelta(days=1)) for item in disputed)


def test_what_was_changed_and_who_declared_it() -> None:
    offer = Offer("r", T, "margin", 1.0, 0.1, False, 2, T + timedelta(days=14), T)
    answers = [
        Answer("r", T + timedelta(minutes=1), "anna", "truth", "yes", 2.0),
        Answer("r", T + timedelta(minutes=2), "anna", "truth", "no", 1.0),
        Answer("r", T + timedelta(minutes=3), "ben", "cannot_tell"),
        Answer("r", T + timedelta(minutes=4), "cleo", "skip"),
    ]
    reviews = Reviews({"r": offer}, {"r": answers}, {"r": Known("r", T + timedelta(minutes=5), "anna", "no")})
    anna, ben, cleo = record(items_of(reviews, Rules(), T + timedelta(hours=1)), Rules()).people
    assert (anna.answers, anna.changed, anna.seconds, anna.gold) == (1, 1, 1.5, 0)  # not judged by her own word
    assert (ben.cannot_tell, ben.gold, ben.gold_right) == (1, 1, 0)
    assert (cleo.answers, cleo.skipped) == (0, 1)


def test_numbers_are_compared_within_the_tolerance() -> None:
    offers = {f"r{n}": Offer(f"r{n}", T, "random", 1.0, 1.0, True, 2, T + timedelta(days=14), T) for n in range(4)}
    said = {"anna": [1.0, 2.0, 3.0, 4.0], "ben": [1.1, 2.0, 3.0, 9.0]}
    answers = {
        name: [Answer(name, T, who, "truth", repr(values[place])) for who, values in said.items()]
        for place, name in enumerate(offers)
    }
    rules = Rules(tolerance=0.2)
    found = record(items_of(Reviews(offers, answers), rules, T + timedelta(days=1)), rules)
    (pair,) = found.pairs
    assert (pair.percent, pair.kappa) == (0.75, None)
    assert found.alpha is not None
    assert found.alpha < 1
