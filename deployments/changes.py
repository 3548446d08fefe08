"""What deploying would do, as values: a change and how it is carried out. No knowledge of any kind of thing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["created", "updated", "unchanged", "removed"]
SIGNS: Mapping[Action, str] = {"created": "+", "updated": "~", "removed": "-", "unchanged": "="}
_LONGEST = 60


@dataclass(frozen=True)
class Change:
    """What happens to one thing on the Prefect server.

    Attributes:
        differences: By field, what is there and what will be; secrets only as "(set)".
    """

    name: str
    action: Action
    kind: Literal["deployment", "automation", "channel", "work pool"] = "deployment"
    differences: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def line(self) -> str:
        """`~ deployment monitor/flights  schedules: 0 6 * * * → 0 7 * * *`."""
        told = ", ".join(f"{name}: {_short(old)} → {_short(new)}" for name, (old, new) in self.differences.items())
        return f"{SIGNS[self.action]} {self.kind} {self.name}" + (f"  {told}" if told else "")


@dataclass(frozen=True)
class Step:
    """A change and the function that makes it; an unchanged thing has nothing to do."""

    change: Change
    carry_out: Callable[[], object] = lambda: None


def carry_out(steps: Iterable[Step]) -> list[Change]:
    """Make the changes in their order."""
    changes = []
    for step in steps:
        step.carry_out()
        changes.append(step.change)
    return changes


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields of `new` whose value differs; the order in lists does not count, since sets come back in any."""
    return {name: (old.get(name), value) for name, value in new.items() if _ordered(old.get(name)) != _ordered(value)}


def _ordered(value: Any) -> Any:
    """The value with its lists ordered; `id` is the server's own."""
    if isinstance(value, Mapping):
        return {key: _ordered(item) for key, item in value.items() if key != "id"}
    if isinstance(value, list | tuple | set):
        return sorted((_ordered(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value


def _short(value: Any) -> str:
    if value is None or value in ({}, []):
        return "(none)"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
