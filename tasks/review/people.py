"""Who answered how: speed, gold, agreement with each other and with what was settled; who confuses what. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from perennial.review.events import Answer
from perennial.review.items import Item, Rules, votes
from tasks.review.agreement import cohens_kappa, krippendorffs_alpha, percent

CANNOT_TELL = "can't tell"


@dataclass(frozen=True)
class Person:
    """One person's record.

    Attributes:
        answers: Rows that they said something to, "can't tell" among them.
        changed: Answers that they changed or took back.
        seconds: The median over answers with a time; None without one.
        gold: Gold rows they said a truth or "can't tell" to; `gold_right` of them truly.
        gold_interval: Of the share that is right, at 95 % (Wilson, 1927); None without gold.
        settled: Rows of several people that were settled; `with_settled` of them as this person said.
    """

    name: str
    answers: int
    cannot_tell: int
    skipped: int
    changed: int
    seconds: float | None
    gold: int
    gold_right: int
    gold_interval: tuple[float, float] | None
    settled: int
    with_settled: int


@dataclass(frozen=True)
class Pair:
    """Two people on the rows that both answered.

    Attributes:
        confusion: How often the one said this and the other that: (first's word, second's word, rows), most first.
    """

    first: str
    second: str
    rows: int
    percent: float
    kappa: float | None
    confusion: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Record:
    """All people, each pair that shares rows, and alpha over all rows of several people."""

    people: tuple[Person, ...]
    pairs: tuple[Pair, ...]
    alpha: float | None
    shared: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def record(items: Mapping[str, Item], rules: Rules) -> Record:
    """What can be said of the people who answered these items. Of somebody's several answers the last counts."""
    given = {name: votes(item.answers) for name, item in items.items()}
    authors = sorted({answer.author for item in items.values() for answer in item.answers})
    people = tuple(_person(author, items, given, rules) for author in authors)
    pairs = tuple(pair for first, second in combinations(authors, 2) if (pair := _pair(first, second, given, rules)))
    shared = [[_word(answer) for answer in said.values()] for said in given.values() if len(said) > 1]
    if rules.tolerance is None:
        alpha = krippendorffs_alpha(shared)
    else:
        numbers = [[float(a.truth) for a in said.values() if a.truth is not None] for said in given.values()]
        alpha = krippendorffs_alpha(numbers, "interval")
    return Record(people, pairs, alpha, len(shared))


def _person(author: str, items: Mapping[str, Item], given: Mapping[str, Mapping[str, Answer]], rules: Rules) -> Person:
    mine = {name: said[author] for name, said in given.items() if author in said}
    spoken = [answer for item in items.values() for answer in item.answers if answer.author == author]
    heard = [answer for answer in spoken if answer.says in ("truth", "cannot_tell")]
    seconds = [answer.seconds for answer in heard if answer.seconds is not None]
    # Nobody is judged by a truth of their own.
    gold = [name for name in mine if items[name].gold is not None and items[name].gold_by != author]
    right = sum(_same(mine[name].truth, items[name].gold, rules) for name in gold)
    several = [
        name for name in mine
        if items[name].gold is None and len(given[name]) > 1 and items[name].outcome.state == "settled"
    ]  # fmt: skip
    return Person(
        name=author,
        answers=len(mine),
        cannot_tell=sum(answer.says == "cannot_tell" for answer in mine.values()),
        skipped=sum(answer.says == "skip" for answer in spoken),
        changed=len(heard) - len({answer.id for answer in heard}) + sum(answer.says == "undo" for answer in spoken),
        seconds=float(np.median(seconds)) if seconds else None,
        gold=len(gold),
        gold_right=right,
        gold_interval=_wilson(right, len(gold)),
        settled=len(several),
        with_settled=sum(author in items[name].outcome.supporters for name in several),
    )


def _pair(first: str, second: str, given: Mapping[str, Mapping[str, Answer]], rules: Rules) -> Pair | None:
    both = [(said[first], said[second]) for said in given.values() if first in said and second in said]
    if not both:
        return None
    words = [(_word(a), _word(b)) for a, b in both]
    ours, theirs = [a for a, _ in words], [b for _, b in words]
    if rules.tolerance is None:
        confusion = tuple((a, b, count) for (a, b), count in Counter(words).most_common() if a != b)
        return Pair(first, second, len(both), percent(ours, theirs) or 0.0, cohens_kappa(ours, theirs), confusion)
    alike = [_same(a.truth, b.truth, rules) for a, b in both]
    return Pair(first, second, len(both), float(np.mean(alike)), None, ())


def _same(first: str | None, second: str | None, rules: Rules) -> bool:
    if first is None or second is None or rules.tolerance is None:
        return first == second
    return abs(float(first) - float(second)) <= rules.tolerance


def _word(answer: Answer) -> str:
    return CANNOT_TELL if answer.truth is None else answer.truth


def _wilson(right: int, rows: int) -> tuple[float, float] | None:
    if not rows:
        return None
    interval = stats.binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return (round(float(interval.low), 4), round(float(interval.high), 4))


def told(found: Record) -> Sequence[str]:
    """The agreement in sentences."""
    lines = []
    if found.alpha is not None:
        lines.append(f"Krippendorff's alpha is {found.alpha:.3f} over {found.shared} rows that several people answered")
    for pair in found.pairs:
        kappa = "" if pair.kappa is None else f", Cohen's kappa {pair.kappa:.3f}"
        most = f"; most often {pair.confusion[0][0]!r} beside {pair.confusion[0][1]!r}" if pair.confusion else ""
        lines.append(f"{pair.first} and {pair.second} agree on {pair.percent:.0%} of {pair.rows} rows{kappa}{most}")
    return lines
