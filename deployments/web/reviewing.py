"""Reviewing on the page: the row that a person is asked next, and their answer. Who may, and forms, are the app's.

An answer is written here and not by a command in a process of its own: a person gives one every few seconds. It takes
the same steps as `perennial reviews … answer`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from perennial.definition import ModelDefinition
from perennial.errors import DataError, NotFoundError
from perennial.review.desk import Asked, Desk
from perennial.review.items import Item, votes
from perennial.state.store import among
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace

_DIGITS = 10
_IMAGES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


@dataclass(frozen=True)
class Progress:
    """How far a person has come: rows answered today; of lately settled rows of several people, those as they said."""

    answered: int
    settled: int
    as_settled: int


def desk_of(workspace: Workspace, model: str) -> Desk:
    """The model's desk.

    Raises:
        NotFoundError: There is no such model, or it has no reviews.
    """
    from tasks.steps.review.answers import desk_of as desk

    definition = workspace.definition(model)
    if not definition.review.per_day:
        raise NotFoundError(f"{model} has no reviews", "Set review.per_day in its definition")
    return desk(workspace.store, definition)


def page(workspace: Workspace, model: str, who: str, now: datetime, reference: bytes | None) -> dict[str, Any]:
    """What the page shows: the next row of this person, features that matter first; nothing of a row for nobody.

    Args:
        who: Empty where it is not known yet.
        reference: The champion's reference.json, by which features are put in order; None where it can't be had.
    """
    desk = desk_of(workspace, model)
    shown, waiting = desk.ask(who, now, 1) if who else ([], 0)
    item = shown[0] if shown else None
    return {
        "model": model, "who": who, "waiting": waiting, "item": item, "target": desk.definition.data.target,
        "features": [] if item is None else _in_order(item, desk.definition, reference),
        "texts": [] if item is None else [(name, item.features.get(name)) for name in desk.definition.features.text],
        "images": desk.definition.features.image if item else (),
        "keys": _keys(desk.classes.names) if desk.classes else [],
        "progress": progress(desk.recent(now), who, now) if who else None, "shown_at": now.isoformat(),
        "description": desk.definition.description,
    }  # fmt: skip


def _keys(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each class with its digit; from the eleventh on there is none."""
    return [(str(place) if place < _DIGITS else "", word) for place, word in enumerate(words)]


def _in_order(item: Asked, definition: ModelDefinition, reference: bytes | None) -> list[tuple[str, Any]]:
    """The numbers and categories, the most important to the model first."""
    known = {} if reference is None else json.loads(reference).get("importance") or {}
    names = [name for name in item.features if name not in definition.features.text]
    names.sort(key=lambda name: -float(known.get(name) or 0.0))
    return [(name, item.features[name]) for name in names]


def progress(items: Mapping[str, Item], who: str, now: datetime) -> Progress:
    """What one person has done so far."""
    given = [(item, votes(item.answers)) for item in items.values()]
    mine = [(item, said[who]) for item, said in given if who in said]
    today = sum(said.at.date() == now.date() for _, said in mine)
    several = [item for item, _ in mine if item.outcome.state == "settled" and len(votes(item.answers)) > 1]
    agreeing = sum(who in item.outcome.supporters for item in several if item.gold is None)
    return Progress(today, sum(item.gold is None for item in several), agreeing)


def answer(workspace: Workspace, model: str, form: Mapping[str, str], *, who: str, now: datetime) -> str:
    """Take an answer; what is told of it, with what the model had said.

    Raises:
        NotFoundError, DataError: As of the command.
    """
    from tasks.steps.review.answers import answer as take

    desk, says = desk_of(workspace, model), form.get("says", "")
    raw: dict[str, Any] = {"id": form.get("id", ""), "note": form.get("note", "")}
    if says in ("skip", "cannot_tell", "undo"):
        raw[says] = True
    elif says == "truth":
        raw["truth"] = form.get("truth", "")
    else:
        raise DataError("the form says nothing", "Choose an answer")
    if says != "undo":
        raw["seconds"] = _seconds(form.get("shown_at", ""), now)
    read = desk.read(raw, at=now, author=who)
    done = take(desk, [read])
    item = desk.items(now + timedelta(seconds=1), [read.id])[read.id]
    return _told(read.id, says, read.truth, item, done.written > 0)


def _told(name: str, says: str, truth: str | None, item: Item, written: bool) -> str:
    words = {"skip": "left to others", "cannot_tell": "can't be told", "undo": "taken back"}
    told = f"{name}: {words.get(says, truth)}" + ("" if written else ", as you said before")
    score = item.offer.score
    if says in ("truth", "cannot_tell") and score is not None:
        meant = "" if item.offer.predicted is None else f"{item.offer.predicted}, "
        told += f". The model had said {meant}{score:.3g}"
    return told + (". Others say otherwise: it comes back" if item.state == "disputed" and says == "truth" else "")


def _seconds(shown_at: str, now: datetime) -> float | None:
    """How long the row was looked at; None where the form does not tell, or tells nonsense."""
    try:
        seconds = (now - datetime.fromisoformat(shown_at)).total_seconds()
    except (TypeError, ValueError):
        return None
    return seconds if 0 <= seconds <= 86_400 else None


def image(workspace: Workspace, model: str, column: str, name: str) -> tuple[bytes, str]:
    """An image of a row that was put up, and its media type.

    Raises:
        NotFoundError: There is none, or it is not kept as bytes.
    """
    desk = desk_of(workspace, model)
    if column in desk.definition.features.image:
        rows = workspace.store.read(model, "batches", columns=[ROW_ID, column], where=among(ROW_ID, [name]))
        for value in rows[column].to_pylist() if column in rows.column_names else []:
            for start, kind in _IMAGES.items():
                if isinstance(value, bytes) and value.startswith(start):
                    return value, kind
    raise NotFoundError(f"there is no image {column[:80]!r} of {name[:80]!r}", "See its row")
