"""Reviews over the API: what a person is asked, and answers, which become labels by the way of all labels. No HTTP.

What follows from answers is in `perennial.review`; here it is turned into the API's words and its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from perennial.definition import ModelDefinition
from perennial.errors import DataError, NotFoundError, PerennialError
from perennial.model.truth import Classes
from perennial.review.desk import Desk
from perennial.review.items import LabelStep
from perennial.serving.log.waiting import Label
from perennial.serving.protocol.codec import parse_json, refuse_strangers
from perennial.serving.protocol.problems import Problem
from perennial.state.store import Store

_MOST_ASKED, _MOST_ANSWERED = 100, 500
_LONGEST = 256
EXAMPLE = {"answers": [{"id": "an-id-from-the-queue", "author": "anna", "truth": 1, "seconds": 4}]}


@dataclass(frozen=True)
class Query:
    """Who asks, and for how many rows."""

    author: str
    limit: int


def require_reviews(definition: ModelDefinition) -> None:
    """Refuse where the definition asks for none.

    Raises:
        Problem: 404.
    """
    if not definition.review.per_day:
        raise Problem(404, f"{definition.name} has no reviews", rule="review.per_day in its definition")


def parse_query(query: bytes) -> Query:
    """`author=anna&limit=10`.

    Raises:
        Problem: 422 with what is wrong.
    """
    given = parse_qs(query.decode("latin-1"))
    refuse_strangers(given, ("author", "limit"), "the query")
    author, limit = given.get("author", [""])[-1].strip(), given.get("limit", ["10"])[-1]
    if not 0 < len(author) <= _LONGEST:
        raise Problem(422, "say who asks: ?author=NAME", column="author", rule=f"a text of at most {_LONGEST}")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= _MOST_ASKED:
        raise Problem(422, f"limit is not from 1 to {_MOST_ASKED}", column="limit", value=limit[:20])
    return Query(author, int(limit))


def parse_answers(body: bytes) -> list[dict[str, Any]]:
    """One answer, a list of them, or `{"answers": [...]}`; what each says is read by the desk.

    Raises:
        Problem: 400 or 413.
    """
    document = parse_json(body)
    items = document.get("answers", [document]) if isinstance(document, dict) else document
    if isinstance(document, dict) and "answers" in document:
        refuse_strangers(document, ("answers",), "the body")
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise Problem(400, "there is no answer in the body", rule="answers: a list of objects", example=EXAMPLE)
    if len(items) > _MOST_ANSWERED:
        raise Problem(413, f"{len(items):,} answers are more than {_MOST_ANSWERED}", rule=f"at most {_MOST_ANSWERED}")
    return items


def ask(store: Store, definition: ModelDefinition, classes: Classes | None, query: Query) -> dict[str, Any]:
    """What this person is asked next. Nothing in it tells why a row was chosen, or that its truth is known."""
    items, waiting = Desk(store, definition, classes).ask(query.author, datetime.now(UTC), query.limit)
    told = [
        {
            "id": item.id, "time": item.time.isoformat(), "features": item.features,
            **({} if item.score is None else {"score": item.score, "predicted": item.predicted}),
            "choices": list(item.choices),
            "again": item.again, "expires_at": item.expires_at.isoformat(),
        }
        for item in items
    ]  # fmt: skip
    return {"model": definition.name, "author": query.author, "waiting": waiting, "items": told}


def take(
    store: Store, definition: ModelDefinition, classes: Classes | None, raw: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], list[Label]] | Problem:
    """Write answers down, all or none; what is answered, and the labels that follow. A refusal is given back."""
    desk, now, row = Desk(store, definition, classes), datetime.now(UTC), 0
    try:
        answers = []
        for row, item in enumerate(raw):  # noqa: B007 - a refusal names it
            answers.append(desk.read(item, at=now))
        taken = desk.take(answers)
    except NotFoundError as error:
        return Problem(404, error.problem, rule=error.remedy)
    except DataError as error:
        return Problem(422, f"answer {row} (counted from 0): {error}", row=row, rule=error.remedy, example=EXAMPLE)
    labels = [_label(desk, step) for step in taken.steps if taken.since is not None and step.at >= taken.since]
    told = {"model": definition.name, "written": taken.written, "unchanged": taken.unchanged, "labels": len(labels)}
    return told, labels


def _label(desk: Desk, step: LabelStep) -> Label:
    truth = None if step.truth is None else desk.code(step.truth)
    return Label(step.id, truth, round(step.at.timestamp() * 1e6), step.author)


def away(error: PerennialError | None) -> Problem:
    """Where the tables don't answer."""
    why = "they take too long" if error is None else error.problem
    return Problem(503, f"the tables can't be reached: {why}", {"retry-after": "10"}, rule="ask again")
