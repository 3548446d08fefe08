"""What was freed, or would be: a count, bytes and a word for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Freed:
    """One kind of thing that goes.

    Attributes:
        what: In words.
        count: How many.
        size_bytes: What they take in the storage; 0 where that shows only later, when the tables' files go.
        notes: Which, or what else is to be said.
    """

    what: str
    count: int
    size_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "count": self.count, "size_bytes": self.size_bytes, "notes": self.notes}


def size_text(size_bytes: int) -> str:
    """`0 B`, `12 kB`, `3.4 MB`: bytes as people say them."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"


def freed_text(freed: list[Freed], *, dry_run: bool) -> str:
    """A sentence about all of it."""
    size = size_text(sum(item.size_bytes for item in freed))
    parts = [f"{item.count:,} {item.what}" for item in freed if item.count]
    if not parts:
        return "nothing is old enough to go"
    return f"{'would free' if dry_run else 'freed'} {size}: {', '.join(parts)}"


def freed_markdown(model: str, freed: list[Freed], *, dry_run: bool) -> str:
    """The same as a page."""
    rows = [
        f"| {item.what} | {item.count:,} | {size_text(item.size_bytes)} | {', '.join(item.notes)} |" for item in freed
    ]
    table = "\n".join(["| what | how many | size | |", "|---|---|---|---|", *rows])
    return f"# {model}: {freed_text(freed, dry_run=dry_run)}\n\n{table}\n"
