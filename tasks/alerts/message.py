"""What is to be said, given what stands and what was said before: one message, or silence. Pure: it sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from perennial.definition import Alerts
from tasks.alerts.item import Item, Source

_SUBJECT_LENGTH, _TEXT_LENGTH = 120, 3500


@dataclass(frozen=True)
class Told:
    """Something that was said and may stand still.

    Attributes:
        marks: All that it has consisted of while it stood.
        absent: From how many checks in a row it has been missing.
        since: When it was first told.
        told_at: When it was told last.
    """

    source: Source
    kind: str
    title: str
    marks: tuple[str, ...]
    since: datetime
    told_at: datetime
    absent: int = 0


Said = Mapping[str, Told]


@dataclass(frozen=True)
class Message:
    """One message about a model.

    Attributes:
        new: What is new, or has grown; and what people are reminded of.
        standing: What was told before and stands still, with the moment since when.
        over: What is over, by its title.
    """

    new: tuple[Item, ...]
    reminded: tuple[Item, ...]
    standing: tuple[tuple[str, datetime], ...]
    over: tuple[str, ...]


def compose(
    items: Sequence[Item], said: Said, policy: Alerts, *, source: Source, at: datetime
) -> tuple[Message | None, dict[str, Told]]:
    """The message, or None for silence; and what counts as said once it is sent.

    Args:
        items: All that this source finds now.
        said: What was said before, by whatever source: of another one everything stands as it is.
        source: Who looked.
        at: The moment of the look.
    """
    found = {item.key: item for item in items if item.kind in policy.about}
    kept = {key: told for key, told in said.items() if told.kind in policy.about}
    new = [item for key, item in found.items() if key not in kept or set(item.marks) - set(kept[key].marks)]
    due = [item for key, item in found.items() if item not in new and _is_due(kept[key], policy.remind, at)]
    missing = {key: told for key, told in kept.items() if told.source == source and key not in found}
    over = {key for key, told in missing.items() if told.absent + 1 >= policy.quiet_checks}
    after = {key: told for key, told in kept.items() if key not in over}
    after |= {key: replace(told, absent=told.absent + 1) for key, told in missing.items() if key not in over}
    speaks = bool(new or due or (over and policy.recovered))
    for key, item in found.items():
        before = kept.get(key)
        marks = tuple(sorted({*item.marks, *(before.marks if before else ())}))
        last = at if before is None or speaks else before.told_at
        after[key] = Told(source, item.kind, item.title, marks, before.since if before else at, last)
    if not speaks:
        return None, after
    told = {item.key for item in (*new, *due)}
    standing = tuple((told_item.title, told_item.since) for key, told_item in after.items() if key not in told)
    gone = tuple(kept[key].title for key in sorted(over)) if policy.recovered else ()
    return Message(tuple(_graver_first(new)), tuple(_graver_first(due)), standing, gone), after


def render_subject(model: str, message: Message) -> str:
    """`flights: quality fell, and 2 more`."""
    titles = [item.title for item in (*message.new, *message.reminded)]
    more = len(titles) - 1 + len(message.over)
    if titles:
        text = f"{model}: {titles[0]}" + (f", and {more} more" if more else "")
    else:
        text = f"{model}: over: {message.over[0]}" + (f", and {more} more" if more > 0 else "")
    return " ".join(text.split())[:_SUBJECT_LENGTH]


def render_text(message: Message, footer: Sequence[str]) -> str:
    """Plain text, which Slack, mail and consoles show alike; the footer's lines are never cut off."""
    lines = []
    marked = [("!!" if item.grave else "!", item) for item in message.new]
    for mark, item in [*marked, *(("= still:", item) for item in message.reminded)]:
        lines += [f"{mark} {_line(item.title)}: {_line(item.detail)}", f"   {_line(item.to_do)}."]
    lines += [f"= {_line(title)}, since {since:%Y-%m-%d %H:%M} UTC" for title, since in message.standing]
    lines += [f"✓ over: {_line(title)}" for title in message.over]
    body, end = "\n".join(lines), "\n".join(footer)
    most = _TEXT_LENGTH - len(end) - 2
    return (body if len(body) <= most else body[: most - 1] + "…") + ("\n\n" + end if end else "")


def to_json(said: Said) -> dict[str, Any]:
    """JSON's own types; the inverse is `from_json`."""
    return {
        key: {
            "source": told.source, "kind": told.kind, "title": told.title, "marks": list(told.marks),
            "since": told.since.isoformat(), "told_at": told.told_at.isoformat(), "absent": told.absent,
        }
        for key, told in said.items()
    }  # fmt: skip


def from_json(raw: Mapping[str, Any]) -> dict[str, Told]:
    return {
        key: Told(
            item["source"], item["kind"], item["title"], tuple(item["marks"]),
            datetime.fromisoformat(item["since"]), datetime.fromisoformat(item["told_at"]), item["absent"],
        )
        for key, item in raw.items()
    }  # fmt: skip


def _is_due(told: Told, remind: timedelta | None, at: datetime) -> bool:
    return remind is not None and at - told.told_at >= remind


def _graver_first(items: Sequence[Item]) -> list[Item]:
    return sorted(items, key=lambda item: not item.grave)


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
