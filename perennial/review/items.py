"""What follows from what happened: which rows are open, settled or disputed, whom to ask, what is a label. Pure.

An item is settled by a vote: when as many people have said something as are wanted, and more than half of them say the
same. "Can't be told" is a vote; a skip is none. Who disagrees is asked again, as are others; nobody sees another's
answer before.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from perennial.review.events import Answer, Known, Offer, Reviews

State = Literal["open", "disputed", "settled", "expired", "gold"]
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Rules:
    """By what answers agree: `tolerance` is None for classes, else how much two numbers may differ."""

    tolerance: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What the votes come to.

    Attributes:
        state: open, disputed or settled.
        truth: In the user's words; None where it is not settled, or settled that it can't be told.
        supporters: Who says so.
    """

    state: Literal["open", "disputed", "settled"]
    truth: str | None = None
    supporters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One row that was put up, with all that was said of it.

    Attributes:
        gold: The truth that is known for sure, by which people are judged; None of other rows.
        gold_by: Who declared it; None where it came with the data.
    """

    offer: Offer
    answers: tuple[Answer, ...]
    state: State
    outcome: Outcome
    expires_at: datetime
    disputed_since: datetime | None = None
    gold: str | None = None
    gold_by: str | None = None

    @property
    def waits(self) -> bool:
        """Whether a person is still asked. Of a gold row nothing is to be learned but about people."""
        return self.state in ("open", "disputed")

    def asks(self, author: str, now: datetime) -> bool:
        """Whether this person is asked about it."""
        if now >= self.expires_at or self.state in ("settled", "expired"):
            return False
        mine = [answer for answer in self.answers if answer.author == author]
        if not mine or mine[-1].says == "undo":
            return True
        # Who skipped is not asked again; who disagreed is, once for each dispute.
        again = self.state == "disputed" and self.disputed_since is not None and mine[-1].at <= self.disputed_since
        return again and mine[-1].says != "skip"


@dataclass(frozen=True)
class LabelStep:
    """A truth that became known by people at a moment; None takes back what they said."""

    id: str
    truth: str | None
    at: datetime
    author: str


def votes(answers: Sequence[Answer]) -> dict[str, Answer]:
    """What each person says at last, skips and what was undone left out: truths and "can't be told"."""
    last: dict[str, Answer] = {}
    for answer in answers:
        if answer.says == "undo":
            last.pop(answer.author, None)
        elif answer.says != "skip":
            last[answer.author] = answer
    return last


def outcome(answers: Sequence[Answer], wanted: int, rules: Rules) -> Outcome:
    """What the answers so far come to, where so many people are wanted."""
    given = votes(answers)
    if not given or len(given) < wanted:
        return Outcome("open")
    truth, supporters = _largest(given, rules)
    if 2 * len(supporters) <= len(given):
        return Outcome("disputed")
    return Outcome("settled", truth, tuple(sorted(supporters)))


def _largest(given: Mapping[str, Answer], rules: Rules) -> tuple[str | None, list[str]]:
    """The largest group that says the same: its truth and who is in it."""
    words = {author: answer.truth for author, answer in given.items()}
    if rules.tolerance is None:
        word, _ = Counter(words.values()).most_common(1)[0]
        return word, [author for author, told in words.items() if told == word]
    numbers = {author: float(word) for author, word in words.items() if word is not None}
    silent = [author for author, word in words.items() if word is None]
    groups = [
        [author for author, number in numbers.items() if low <= number <= low + rules.tolerance]
        for low in sorted(set(numbers.values()))
    ]
    best = max(groups, key=len, default=[])
    if len(silent) > len(best):
        return None, silent
    return repr(statistics.median(numbers[author] for author in best)), best


def course(
    offer: Offer, answers: Sequence[Answer], rules: Rules, now: datetime
) -> Iterator[tuple[datetime, str | None, Outcome]]:
    """Each moment at which something changed: who spoke, and what all so far comes to.

    Where a second person was wanted and none came in time, what was said counts alone; that moment is nobody's.
    """
    for count, answer in enumerate(answers, 1):
        wanted = max(1, offer.wanted) if answer.at < offer.expires_at else 1
        yield answer.at, answer.author, outcome(answers[:count], wanted, rules)
    if answers and answers[-1].at < offer.expires_at <= now:
        yield offer.expires_at, None, outcome(answers, 1, rules)


def item_of(offer: Offer, answers: Sequence[Answer], rules: Rules, now: datetime, known: Known | None = None) -> Item:
    """The item at a moment; one whose truth somebody declared to be known is a gold row from then on."""
    expires_at, since, last = offer.expires_at, None, Outcome("open")
    for moment, _, last in course(offer, answers, rules, now):
        if last.state != "disputed":
            since = None
        elif since is None:
            since = moment
            expires_at = max(expires_at, since + (offer.expires_at - offer.at))
    gold = known.truth if known else offer.truth if offer.is_gold else None
    if known is not None:
        expires_at = max(expires_at, known.at + (offer.expires_at - offer.at))
    state: State = "gold" if gold is not None else last.state
    if state in ("open", "disputed", "gold") and now >= expires_at:
        state = "expired"
    return Item(
        offer, tuple(answers), state, last, expires_at, since if state == "disputed" else None, gold,
        known.author if known else None,
    )  # fmt: skip


def items_of(reviews: Reviews, rules: Rules, now: datetime) -> dict[str, Item]:
    """All items by id."""
    return {
        name: item_of(offer, reviews.answers.get(name, ()), rules, now, reviews.known.get(name))
        for name, offer in reviews.offers.items()
    }


def asked(items: Mapping[str, Item], author: str, now: datetime) -> list[Item]:
    """What this person is asked: disputed rows first, the others in an order of their own, in which gold is hidden."""
    mine = [item for item in items.values() if item.asks(author, now)]
    return sorted(mine, key=lambda item: (item.state != "disputed", _shuffled(author, item.offer.id)))


def label_steps(
    offer: Offer, answers: Sequence[Answer], rules: Rules, now: datetime, known: Known | None = None
) -> list[LabelStep]:
    """What became a label by these answers, and when: each supporter's word once it is settled, in order of time.

    A dispute about what was settled takes it back until it is settled again. Answers to gold rows are no labels; what
    somebody declared to be known is the last.
    """
    if offer.is_gold:
        return []
    if known is not None:
        before_it = [answer for answer in answers if answer.at < known.at]
        steps = label_steps(offer, before_it, rules, min(now, known.at))
        return [*steps, LabelStep(offer.id, known.truth, known.at, known.author)]
    steps = []
    before = Outcome("open")
    for moment, author, came in course(offer, answers, rules, now):
        if came.truth is None and before.truth is not None:
            steps.append(LabelStep(offer.id, None, moment, author or before.supporters[0]))
        elif came.truth is not None and (came.truth != before.truth or author in came.supporters):
            new = came.supporters if came.truth != before.truth or author is None else (author,)
            # Who settled it comes last.
            for place, name in enumerate(sorted(new, key=lambda name: name == author)):
                steps.append(LabelStep(offer.id, came.truth, moment + place * _TICK, name))
        before = came
    return steps


def _shuffled(author: str, name: str) -> bytes:
    return hashlib.sha256(f"{author}\n{name}".encode()).digest()
