"""What a model could not take as it came, counted while rows are scored, and said. It neither scores nor refuses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from perennial.model.known import Unknown, frame_as_known, known_categories, nearest, unknown_categories

_MOST_TOLD = 40


class Noticed:
    """Counts, over many chunks of rows, categories that a pipeline's training never saw, and images of no use."""

    def __init__(self, pipeline: Any) -> None:
        self._known = known_categories(pipeline)
        self._unknown: Counter[tuple[str, str]] = Counter()
        self._unreadable: Counter[str] = Counter()

    def see(self, rows: pd.DataFrame) -> None:
        for found in unknown_categories(frame_as_known(rows, self._known), self._known):
            self._unknown[found.column, found.value] += found.rows

    def lose(self, column: str, count: int) -> None:
        """So many of the column's images can't be read, and were missing to the model."""
        self._unreadable[column] += count

    def warnings(self) -> list[dict[str, Any]]:
        """One for each image column with losses, then the most frequent unknown categories; a few dozen at the most."""
        lost = [
            {"problem": "unreadable image", "column": column, "rows": count}
            for column, count in self._unreadable.items()
            if count
        ]
        unknown = [
            Unknown(column, value, rows, nearest(value, self._known[column])).to_dict()
            for (column, value), rows in self._unknown.most_common(_MOST_TOLD)
        ]
        return lost + unknown


def say(warning: dict[str, Any]) -> str:
    """A warning as one line for a person."""
    rows = "1 row" if warning["rows"] == 1 else f"{warning['rows']} rows"
    if warning["problem"] == "unreadable image":
        return f"images that can't be read in column {warning['column']} ({rows}): scored as missing ones"
    near = f"; the nearest known: {warning['nearest']!r}" if warning["nearest"] is not None else ""
    return f"{warning['problem']} in column {warning['column']}: {warning['value'][:80]!r} ({rows}){near}"
