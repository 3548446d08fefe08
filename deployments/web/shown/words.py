"""How pages say numbers, shares, moments, spans and verdicts; the templates escape what is not marked up here."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup, escape

# A sign beside the colour: nobody has to tell colours apart.
MARKS = {"hold": "✓", "recalibrate": "↻", "retrain": "▲", "repair": "✗"}
OUTCOMES = {
    "promote": "let in by the gate",
    "keep": "kept out by the gate",
    "wait": "waits for evidence",
    "insufficient evidence": "not enough evidence",
    "rolled back": "rolled back",
}


def number(value: Any, digits: int = 4) -> str:
    """So many significant digits; a dash where nothing is known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(float(value))
    if size >= 1000:
        return f"{float(value):,.0f}"
    return f"{float(value):.{digits}g}"


def share(value: float | None) -> str:
    """A share in per cent."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.0f} %" if value == 0 or abs(value) >= 0.095 else f"{100 * value:.2g} %"


def moment(value: datetime | str | float | None) -> datetime | None:
    """A moment in UTC, however it is written; None of none."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    if hasattr(value, "to_pydatetime"):
        value = value.to_pydatetime()
    assert isinstance(value, datetime)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def utc(value: datetime | None, *, seconds: bool = False) -> str:
    """A moment for people: the date, and the time where it is not midnight."""
    if value is None:
        return "–"
    if seconds:
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:%Y-%m-%d}" if (value.hour, value.minute) == (0, 0) else f"{value:%Y-%m-%d %H:%M}"


def span(value: timedelta) -> str:
    """A length of time in its largest unit."""
    seconds = value.total_seconds()
    for size, one, many in ((86400, "day", "days"), (3600, "hour", "hours"), (60, "minute", "minutes")):
        if seconds >= size:
            count = seconds / size
            text = f"{count:.1f}".removesuffix(".0")
            return f"{text} {one if text == '1' else many}"
    return "none" if not seconds else f"{seconds:.0f} seconds"


def change(now: float | None, before: float | None) -> str:
    """How far a loss has moved, as a share: worse is +."""
    if now is None or not before:
        return ""
    return f"{100 * (now - before) / abs(before):+.1f} %"


def coded(text: str) -> Markup:
    """The text, escaped, with what stands between backticks as code."""
    # Markup of what was escaped just now: only our own two tags are added.
    return Markup(re.sub(r"`([^`<>]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def is_run(by: object) -> bool:
    """Whether an author is a run of Prefect's, which has a page."""
    return isinstance(by, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", by) is not None


def outcome(value: str) -> str:
    return OUTCOMES.get(value, value)


def kind_of(action: str) -> str:
    """How a champion came to reign."""
    return {
        "promote": "let in by the gate", "first": "the first champion", "recalibrate": "a new map of the score",
        "approve": "approved by a person", "rollback": "rolled back",
    }.get(action, action)  # fmt: skip
