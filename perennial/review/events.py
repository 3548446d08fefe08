"""What happened to reviews, as the table `reviews` keeps it: offers, known truths, answers. What follows is in `items`.

Nothing is ever overwritten: who changes an answer gives another one. Truths are in the user's words here, so that what
was said stays readable whatever 0 and 1 mean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import pandas as pd
import pyarrow.compute as pc

from perennial.errors import DataError
from perennial.model.truth import Classes, code_one, why_not_class
from perennial.state.store import Store, among
from perennial.state.tables import LAYOUT

Reason = Literal["margin", "unfamiliar", "random", "gold"]
Says = Literal["truth", "cannot_tell", "skip", "undo"]
SAYS: tuple[Says, ...] = get_args(Says)
LONGEST_NOTE, LONGEST_NAME, MOST_SECONDS = 2000, 256, 86_400.0
# Labels of one millisecond are taken for one moment where they are written: see tasks.rows.labels.
_APART = timedelta(milliseconds=2)


@dataclass(frozen=True)
class Offer:
    """A prediction that was put up for people.

    Attributes:
        time: When the row happened, by which it is found.
        propensity: The chance with which its row had to be put up; 1 where it was chosen for what it is.
        share: The chance of any row of its day to be drawn at random.
        drawn: Whether it was drawn at random, whatever else it is.
        wanted: From how many people an answer is wanted; 0 from each.
        score: What the model said: P(positive), a value, or of more than two classes the probability of the likeliest.
        predicted: The class that it meant by that, in the user's word; None of a regression.
        truth: Of a gold row: what is known, in the user's words.
    """

    id: str
    at: datetime
    reason: Reason
    propensity: float
    share: float
    drawn: bool
    wanted: int
    expires_at: datetime
    time: datetime
    score: float | None = None
    version: int | None = None
    truth: str | None = None
    predicted: str | None = None

    @property
    def is_gold(self) -> bool:
        return self.reason == "gold"


@dataclass(frozen=True)
class Answer:
    """What somebody said to a row: a truth in the user's words, that it can't be told, a skip, or an answer undone."""

    id: str
    at: datetime
    author: str
    says: Says
    truth: str | None = None
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Known:
    """A truth that somebody declared to be known for sure: people may be judged by it."""

    id: str
    at: datetime
    author: str
    truth: str


@dataclass
class Reviews:
    """All that happened up to a moment; answers by id, oldest first."""

    offers: dict[str, Offer] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)


def said(value: object, task: str, classes: Classes | None, target: str) -> str:
    """A truth as it is kept: the class in the user's word, a number as Python writes it.

    Raises:
        DataError: It is no truth of this model; what it would have to be is named.
    """
    if task == "classification" and classes is None:
        raise DataError(f"what the classes of {target} are is not known yet", "Ingest rows with truths first")
    code = code_one(value, task, classes)
    if code is None:
        why = f"{value!r} is not a finite number" if classes is None else why_not_class(value, classes)
        raise DataError(f"{target}: {why}", "Say it in the words of the data, or that it can't be told")
    return classes.label(code) if classes is not None else repr(code)


def read_answer(
    raw: Mapping[str, Any], *, at: datetime, task: str, classes: Classes | None, target: str, author: str | None = None
) -> Answer:
    """An answer from `id`, `author`, one of `truth`, `cannot_tell`, `skip` and `undo`, and perhaps `seconds`, `note`.

    Args:
        author: Whose it is, where that is known otherwise.

    Raises:
        DataError: Something is missing, unknown, or no such answer.
    """
    known = ("id", "author", "truth", "cannot_tell", "skip", "undo", "seconds", "note")
    if strangers := sorted(set(raw) - set(known)):
        raise DataError(f"an answer has {strangers[0]!r}, which nobody reads", f"Give {', '.join(known)}")
    name = raw.get("id")
    if not isinstance(name, str) or not name:
        raise DataError(f"an answer's id is {name!r}", "Give the id of the row as the queue gives it")
    who = author if author is not None else raw.get("author")
    if not isinstance(who, str) or not who.strip() or len(who) > LONGEST_NAME:
        raise DataError(f"the answer to {name} has no author", f"Give one of at most {LONGEST_NAME} characters")
    flags: list[Says] = [says for says in SAYS[1:] if raw.get(says) is True]
    if wrong := [says for says in SAYS[1:] if raw.get(says) not in (None, True, False)]:
        raise DataError(f"the answer to {name}: {wrong[0]} is {raw[wrong[0]]!r}", "Give true, or leave it out")
    if len(flags) + (raw.get("truth") is not None) != 1:
        raise DataError(
            f"the answer to {name} says {len(flags) + (raw.get('truth') is not None)} things",
            "Give exactly one of truth, cannot_tell: true, skip: true, undo: true",
        )
    truth = None if flags else said(raw["truth"], task, classes, target)
    return Answer(name, at, who.strip(), flags[0] if flags else "truth", truth, _seconds(raw, name), _note(raw, name))


def _seconds(raw: Mapping[str, Any], name: str) -> float | None:
    seconds = raw.get("seconds")
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_SECONDS:
        raise DataError(f"the answer to {name}: seconds is {seconds!r}", f"Give a number from 0 to {MOST_SECONDS:g}")
    return float(seconds)


def _note(raw: Mapping[str, Any], name: str) -> str:
    note = raw.get("note") or ""
    if not isinstance(note, str) or len(note) > LONGEST_NOTE:
        raise DataError(f"the answer to {name}: its note is no text of {LONGEST_NOTE} characters", "Make it shorter")
    return note.strip()


def read_reviews(
    store: Store, model: str, *, ids: Collection[str] | None = None, as_of: datetime | None = None
) -> Reviews:
    """What happened up to a moment, of these ids or of all. A model that was never reviewed costs one look."""
    where = None if ids is None else among("id", list(ids))
    rows = store.read(model, "reviews", where=where)
    found = Reviews()
    for row in sorted(rows.to_pylist(), key=lambda item: item["at"]):
        if as_of is not None and row["at"] > as_of:
            continue
        if row["kind"] == "offer":
            found.offers.setdefault(row["id"], _offer(row))
        elif row["kind"] == "known":
            found.known[row["id"]] = Known(row["id"], row["at"], row["author"], row["truth"])
        else:
            found.answers.setdefault(row["id"], []).append(_answer(row))
    return found


def read_recent(store: Store, model: str, *, since: datetime, as_of: datetime) -> Reviews:
    """All that happened to the rows to which anything has happened since a moment: what each answer needs to read."""
    recent = store.read(model, "reviews", columns=["id"], where=pc.field("at") >= since)["id"]
    return read_reviews(store, model, ids=recent.unique().to_pylist(), as_of=as_of)


def write_events(store: Store, model: str, events: Sequence[Offer | Answer | Known], *, key: str | None = None) -> bool:
    """Append in one commit; with a key, once. Whether it was written."""
    if not events:
        return False
    names = LAYOUT["reviews"].names
    rows = pd.DataFrame([dict.fromkeys(names) | _row(event) for event in events], columns=names)
    return store.append(model, "reviews", rows, key=key).written


def in_order(before: Iterable[Answer], answer: Answer) -> Answer:
    """The answer just after all that was said of its row: clocks differ, and two may come within one tick."""
    last = max((item.at for item in before), default=None)
    if last is None or answer.at >= last + _APART:
        return answer
    return Answer(answer.id, last + _APART, answer.author, answer.says, answer.truth, answer.seconds, answer.note)


def _row(event: Offer | Answer | Known) -> dict[str, Any]:
    kinds = {Offer: "offer", Answer: "answer", Known: "known"}
    row = {"kind": kinds[type(event)]} | event.__dict__
    moments = {name: pd.Timestamp(row[name]) for name in ("at", "expires_at", "time") if name in row}
    return row | moments


def _offer(row: Mapping[str, Any]) -> Offer:
    score = None if row["score"] is None or math.isnan(row["score"]) else row["score"]
    return Offer(
        row["id"], row["at"], row["reason"], row["propensity"], row["share"], bool(row["drawn"]), row["wanted"],
        row["expires_at"], row["time"], score, row["version"], row["truth"],
        row["predicted"],
    )  # fmt: skip


def _answer(row: Mapping[str, Any]) -> Answer:
    seconds = row["seconds"]
    seconds = None if seconds is None or math.isnan(seconds) else seconds
    return Answer(row["id"], row["at"], row["author"], row["says"], row["truth"], seconds, row["note"] or "")
