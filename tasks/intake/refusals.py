"""Why single rows are refused: the rule, and what the row holds. Which rows those are is found elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Refusal:
    """Why one row is refused.

    Attributes:
        rule: The same for all rows that are refused for it, such as "ink_11: no finite number".
        reason: What this row holds.
    """

    rule: str
    reason: str


@dataclass
class Refusals:
    """Refusals by the row's position in the delivery, counted from 0."""

    by_row: dict[int, list[Refusal]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.by_row)

    def __contains__(self, row: int) -> bool:
        return row in self.by_row

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.by_row))

    def add(self, row: int, rule: str, reason: str) -> None:
        self.by_row.setdefault(row, []).append(Refusal(rule, reason))

    def update(self, other: Refusals, offset: int = 0) -> None:
        """Take over another part's, whose rows are counted from `offset`."""
        for row, found in other.by_row.items():
            self.by_row.setdefault(row + offset, []).extend(found)

    def rules(self, row: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(item.rule for item in self.by_row[row]))

    def text(self, row: int) -> str:
        return "; ".join(item.reason for item in self.by_row[row])

    def counts(self) -> Mapping[str, int]:
        """Rows by rule, most frequent first; a row counts under each of its rules."""
        return dict(Counter(rule for row in self.by_row for rule in self.rules(row)).most_common())

    def example(self, rule: str) -> str:
        """The first row's reason of a rule."""
        return next(item.reason for row in self for item in self.by_row[row] if item.rule == rule)

    def told(self, most: int = 4) -> list[str]:
        """One sentence a rule, most frequent first: how many rows, and one of them."""
        counts = self.counts()
        lines = [
            f"{rule} ({_rows(count)}, such as {self.example(rule)})" for rule, count in list(counts.items())[:most]
        ]
        return [*lines, f"and {len(counts) - most} other reasons"] if len(counts) > most else lines


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"
