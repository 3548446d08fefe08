"""The desk where people are asked and answer: reads and writes the table `reviews`, and says what became a label.

Labels are not written here: they take the way of all labels, which differs between a command and the API.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import DataError, NotFoundError
from perennial.model.truth import Classes, standing
from perennial.review.events import (
    Answer,
    Known,
    Offer,
    Reviews,
    in_order,
    read_answer,
    read_recent,
    read_reviews,
    write_events,
)
from perennial.review.items import Item, LabelStep, Rules, asked, items_of, label_steps, votes
from perennial.state.store import Store, among, between
from perennial.state.tables import ROW_ID, ROW_TIME

_INSTANT = timedelta(microseconds=1)
# A dispute lasts as long as an offer, and begins before that is over, or by an answer that is lately itself.
_LATELY = 3


@dataclass(frozen=True)
class Asked:
    """A row as a person sees it: nothing says why it was chosen, or whether its truth is known.

    Attributes:
        features: By name, in the definition's order; one that was not kept is absent, as images are.
        score: What the model said, see `Offer`; None where the definition hides it, as `predicted` is then.
        choices: The words that can be answered; empty for a number.
        again: Whether people disagreed about it.
    """

    id: str
    time: datetime
    features: dict[str, Any]
    score: float | None
    predicted: str | None
    choices: tuple[str, ...]
    again: bool
    expires_at: datetime


@dataclass(frozen=True)
class Taken:
    """What became of answers.

    Attributes:
        written: Answers written down.
        unchanged: Those that said nothing new.
        steps: All labels that follow from what was said of these rows, those of earlier answers too.
        since: From which moment on they are new; None where nothing was written.
    """

    written: int
    unchanged: int
    steps: tuple[LabelStep, ...]
    since: datetime | None = None


@dataclass(frozen=True)
class Desk:
    """One model's desk.

    Args:
        classes: What its truths may be; None for a regression.
    """

    store: Store
    definition: ModelDefinition
    classes: Classes | None

    @property
    def rules(self) -> Rules:
        return rules_of(self.definition)

    def items(self, now: datetime, ids: Collection[str] | None = None) -> dict[str, Item]:
        """All that was put up, as it stands at a moment."""
        return items_of(read_reviews(self.store, self.definition.name, ids=ids, as_of=now), self.rules, now)

    def recent(self, now: datetime) -> dict[str, Item]:
        """What was put up or answered lately: all that anybody may still be asked about."""
        since = now - _LATELY * self.definition.review.expires
        return items_of(read_recent(self.store, self.definition.name, since=since, as_of=now), self.rules, now)

    def ask(self, author: str, now: datetime, limit: int) -> tuple[list[Asked], int]:
        """What this person is asked next, and how many rows wait for them in all.

        A row whose truth has come in the meantime, from the data or from others, is not asked about.
        """
        waiting = asked(self.recent(now), author, now)
        known = self._labelled_otherwise([item for item in waiting if item.gold is None])
        waiting = [item for item in waiting if item.offer.id not in known]
        return self.shown(waiting[:limit]), len(waiting)

    def shown(self, items: Sequence[Item]) -> list[Asked]:
        """Items as people see them."""
        rows = self.rows([item.offer for item in items])
        hidden = self.definition.review.hide_score
        return [
            Asked(
                id=item.offer.id,
                time=item.offer.time,
                features=rows.get(item.offer.id, {}),
                score=None if hidden else item.offer.score,
                predicted=None if hidden else item.offer.predicted,
                choices=self.classes.names if self.classes else (),
                again=item.state == "disputed",
                expires_at=item.expires_at,
            )
            for item in items
        ]

    def take(self, answers: Iterable[Answer], known: Sequence[Known] = ()) -> Taken:
        """Write answers down, all or none, and what is declared to be known.

        Raises:
            NotFoundError: A row was never put up.
            DataError: There is nothing to undo.
        """
        given = list(answers)
        ids = sorted({answer.id for answer in given} | {item.id for item in known})
        before = read_reviews(self.store, self.definition.name, ids=ids)
        if strangers := [name for name in ids if name not in before.offers]:
            raise NotFoundError(
                f"{strangers[0]!r} was never put up for review in {self.definition.name}"
                + (f", and {len(strangers) - 1} more" if len(strangers) > 1 else ""),
                f"See `perennial reviews {self.definition.name}`; truth of any row goes in by `perennial label`",
            )
        said = {name: list(known) for name, known in before.answers.items()}
        new = []
        for answer in given:
            so_far = said.setdefault(answer.id, [])
            if _says_nothing_new(so_far, answer):
                continue
            ordered = in_order(so_far, answer)
            so_far.append(ordered)
            new.append(ordered)
        fresh = [item for item in known if (b := before.known.get(item.id)) is None or b.truth != item.truth]
        write_events(self.store, self.definition.name, [*new, *fresh])
        # Read again: somebody else may have answered in the meantime.
        after = read_reviews(self.store, self.definition.name, ids=ids)
        now = max([*(answer.at for answer in (*new, *given)), *(item.at for item in known)], default=None)
        since = min([*(answer.at for answer in new), *(item.at for item in fresh)], default=None)
        return Taken(len(new), len(given) - len(new), tuple(self.steps(after, now)) if now else (), since)

    def steps(self, reviews: Reviews, now: datetime) -> list[LabelStep]:
        """Every label that follows from what happened, in order of time; those that stand already included."""
        found = [
            step
            for name, offer in reviews.offers.items()
            for step in label_steps(offer, reviews.answers.get(name, ()), self.rules, now, reviews.known.get(name))
        ]
        return self._without_foreign_take_backs(sorted(found, key=lambda step: step.at), reviews)

    def read(self, raw: dict[str, Any], *, at: datetime, author: str | None = None) -> Answer:
        """See `perennial.review.events.read_answer`."""
        task, target = self.definition.task, self.definition.data.target
        return read_answer(raw, at=at, task=task, classes=self.classes, target=target, author=author)

    def code(self, truth: str) -> float:
        """A kept truth as labels have it.

        Raises:
            DataError: It is no class any more.
        """
        if self.classes is None:
            return float(truth)
        code = self.classes.code(truth)
        if code is None:
            names = " and ".join(self.classes.names)
            raise DataError(f"{truth!r} was said, but the classes are {names} now", "Set the classes back")
        return code

    def rows(self, offers: Sequence[Offer]) -> dict[str, dict[str, Any]]:
        """The features of rows by id, from what was ingested, else from what was logged with the prediction."""
        model, images = self.definition.name, set(self.definition.features.image)
        shown = [name for name in self.definition.features.columns if name not in images]
        found: dict[str, dict[str, Any]] = {}
        if not offers:
            return found
        ids = [offer.id for offer in offers]
        # Tables are large and have their rows in order of time: by it, most of them need not be read.
        span = min(offer.time for offer in offers), max(offer.time for offer in offers) + _INSTANT
        where = among("id", ids) & between("time", *span)
        for row in self.store.read(model, "predictions", columns=["id", "inputs"], where=where).to_pylist():
            inputs = json.loads(row.get("inputs") or "{}")
            found.setdefault(row["id"], {name: inputs[name] for name in shown if name in inputs})
        where = among(ROW_ID, ids) & between(ROW_TIME, *span)
        for row in self.store.read(model, "batches", columns=[ROW_ID, *shown], where=where).to_pylist():
            found[row[ROW_ID]] = {name: _plain(row[name]) for name in shown if name in row}
        return found

    def _labelled_otherwise(self, items: Sequence[Item]) -> set[str]:
        """The rows that have a truth which nobody of those who reviewed them has said."""
        ids = [item.offer.id for item in items]
        if not ids:
            return set()
        labels = self.store.read(
            self.definition.name, "labels", columns=["id", "truth", "labelled_at", "author"],
            where=among("id", ids) & (pc.field("labelled_at") >= min(item.offer.time for item in items)),
        )  # fmt: skip
        authors = {item.offer.id: set(votes(item.answers)) for item in items}
        others = [row["author"] not in authors.get(row["id"], ()) for row in labels.to_pylist()]
        return set(standing(labels.filter(pa.array(others, type=pa.bool_()))).to_pylist())

    def _without_foreign_take_backs(self, steps: list[LabelStep], reviews: Reviews) -> list[LabelStep]:
        """People take back what people said; a truth that came from elsewhere since stays."""
        backs = [step for step in steps if step.truth is None]
        if not backs:
            return steps
        labels = self.store.read(
            self.definition.name, "labels", columns=["id", "labelled_at", "author"],
            where=among("id", sorted({step.id for step in backs})),
        ).to_pylist()  # fmt: skip

        def is_foreign(step: LabelStep) -> bool:
            before = [row for row in labels if row["id"] == step.id and row["labelled_at"] < step.at]
            newest = max(before, key=lambda row: row["labelled_at"], default=None)
            people = {answer.author for answer in reviews.answers.get(step.id, ())}
            return newest is not None and newest["author"] not in people

        return [step for step in steps if step.truth is not None or not is_foreign(step)]


def rules_of(definition: ModelDefinition) -> Rules:
    """By what a model's answers agree."""
    return Rules(None if definition.task == "classification" else definition.review.tolerance)


def _says_nothing_new(known: Sequence[Answer], answer: Answer) -> bool:
    mine = [item for item in known if item.author == answer.author]
    last = mine[-1] if mine else None
    if answer.says == "undo":
        if last is None or last.says == "undo":
            raise DataError(f"{answer.author} has said nothing to {answer.id} that could be undone", "Answer first")
        return False
    return last is not None and (last.says, last.truth) == (answer.says, answer.truth)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value
