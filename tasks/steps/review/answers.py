"""What people said, on its way to the labels: the one that all truths take. Nothing is decided here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.review.desk import Desk
from perennial.review.events import Answer, Known, read_reviews
from perennial.review.items import LabelStep, items_of
from perennial.state.store import Store
from tasks.rows.classes import known_coding
from tasks.rows.frames import label_steps
from tasks.rows.labels import add_labels

if TYPE_CHECKING:
    from tasks.review.people import Record


@dataclass(frozen=True)
class Answered:
    """What became of answers.

    Attributes:
        written: Answers written down.
        unchanged: Answers that were known.
        labels: Labels that they made, corrected or took back.
    """

    written: int
    unchanged: int
    labels: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def desk_of(store: Store, definition: ModelDefinition) -> Desk:
    """The model's desk, with the classes as its labels are coded."""
    return Desk(store, definition, known_coding(store, definition).classes)


def answer(desk: Desk, answers: Iterable[Answer], known: Sequence[Known] = ()) -> Answered:
    """Write answers down, and what is declared to be known, and what follows from them as labels.

    Raises:
        NotFoundError, DataError: As of `Desk.take`; nothing was written.
    """
    taken = desk.take(answers, known)
    return Answered(taken.written, taken.unchanged, write_labels(desk, taken.steps))


def write_labels(desk: Desk, steps: Sequence[LabelStep]) -> int:
    """Add what is new of the steps to the labels, each with its author and moment; how many that was."""
    known = label_steps(desk.store, desk.definition.name, ids=pd.Series(sorted({s.id for s in steps}), dtype="str"))
    there = {_name(row.id, row.truth, row.labelled_at, row.author) for row in known.itertuples()}
    new = [step for step in steps if _name(step.id, _coded(desk, step), step.at, step.author) not in there]
    written = 0
    # Of one row in order of time: a step that takes back must come after what it takes back. Of many rows at once.
    for (_, author), of_author in sorted(_waves(new).items()):
        truth = np.array([_coded(desk, step) for step in of_author])
        receipt = add_labels(
            desk.store, desk.definition, pd.Series([step.id for step in of_author], dtype="str"), truth,
            labelled_at=pd.Series(pd.to_datetime([step.at for step in of_author], utc=True)).dt.as_unit("us"),
            author=author, witness=True, taken_back=np.isnan(truth),
        )  # fmt: skip
        written += receipt.new + receipt.corrected + receipt.taken_back
    return written


def _waves(steps: Sequence[LabelStep]) -> dict[tuple[int, str], list[LabelStep]]:
    """Steps by their place in their own row's order, and author: what one append may hold."""
    places: Counter[str] = Counter()
    found: dict[tuple[int, str], list[LabelStep]] = {}
    for step in sorted(steps, key=lambda step: step.at):
        found.setdefault((places[step.id], step.author), []).append(step)
        places[step.id] += 1
    return found


def _coded(desk: Desk, step: LabelStep) -> float:
    return np.nan if step.truth is None else desk.code(step.truth)


def _name(row: Any, truth: Any, at: Any, author: Any) -> tuple[str, str, int, str]:
    """Tells label steps apart, missing truths included."""
    return (str(row), repr(float(truth)), int(pd.Timestamp(at).as_unit("us").value), str(author))


def people(store: Store, definition: ModelDefinition, *, as_of: datetime) -> Record:
    """How people answered, and how far they agree, up to a moment."""
    from tasks.review.people import record  # SciPy and scikit-learn: who only answers has no need of them

    desk = desk_of(store, definition)
    reviews = read_reviews(store, definition.name, as_of=as_of)
    return record(items_of(reviews, desk.rules, as_of), desk.rules)
