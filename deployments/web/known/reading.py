"""What one model's pages read when they are asked for: whole records of one check, figures, statistics, files.

Everything is small by its nature (a row a check, a row a window); predictions and batches are read by nothing here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow.compute as pc

from deployments.web.known.glance import DecisionFacts
from perennial.errors import NotFoundError
from perennial.series.statistics import QUANTILES, statistics_frame
from perennial.state.store import Store
from perennial.workspace import Workspace

_REPORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(?:html|png)")
_FIGURES = ["as_of", "kind", "part", "version", "rows", "value", "low", "high", "loss"]


def figures(store: Store, model: str) -> pd.DataFrame:
    """The table `figures`, oldest first."""
    frame = store.frame(model, "figures", columns=_FIGURES)
    return frame.sort_values("as_of", kind="stable", ignore_index=True)


def signal_history(store: Store, model: str) -> list[DecisionFacts]:
    """Every decision with its signals, oldest first."""
    rows = store.read(model, "decisions", columns=["body"], where=pc.field("kind") == "decision")
    found = [msgspec.json.decode(body, type=DecisionFacts) for body in rows["body"].to_pylist()]
    return sorted(found, key=lambda item: datetime.fromisoformat(item.as_of))


@dataclass(frozen=True)
class ColumnWindow:
    """A column in one check's window: shares, quantiles at 5, 25, 50, 75 and 95 %, moments, the most frequent values.

    Of a category there are no numbers; what a check did not keep is None.
    """

    start: datetime
    rows: int
    missing: float
    outside: float
    quantiles: tuple[float, ...]
    mean: float | None
    deviation: float | None
    distinct: int | None
    top: Mapping[str, int]


def column_history(store: Store, model: str, column: str) -> list[ColumnWindow]:
    """A column's statistics, a window each check, oldest first."""
    frame = statistics_frame(store, model, column)
    plain = frame.astype(object).where(frame.notna(), None)
    return [
        ColumnWindow(
            start=row["start"].to_pydatetime(),
            rows=row["rows"],
            missing=row["missing_share"] or 0.0,
            outside=row["unseen_share"] or 0.0,
            quantiles=() if row["median"] is None else tuple(row[name] for name in QUANTILES),
            mean=row["mean"],
            deviation=row["deviation"],
            distinct=row["distinct"],
            top=row["top"],
        )
        for row in plain.to_dict("records")
    ]


def ordinary_range(reference: bytes | None, column: str) -> dict[str, tuple[float, float]]:
    """How far a column moved between windows of the champion's training: lowest and highest, by what is measured.

    Args:
        reference: The version's reference.json; None where it can't be had.
    """
    if reference is None:
        return {}
    runs = json.loads(reference).get("runs", [])
    rows = [run["columns"][column] for run in runs if column in run["columns"]]
    if not rows:
        return {}
    found = {"missing": (min(row[0] for row in rows), max(row[0] for row in rows))}
    medians = [row[3][2] for row in rows if len(row[3]) == 5]
    if medians:
        found["median"] = (min(medians), max(medians))
    return found


def stands_for(reference: bytes | None, column: str) -> tuple[str, str] | None:
    """The text or image that a column stands for, and what it says of it; None of any other column.

    Args:
        reference: As of `ordinary_range`.
    """
    for item in [] if reference is None else json.loads(reference).get("watched", []):
        for what, name in item["names"].items():
            if name == column:
                return item["feature"], what
    return None


def deliveries(store: Store, model: str, *, most: int = 8) -> list[dict[str, Any]]:
    """The newest deliveries, newest first."""
    columns = ["batch_id", "ingested_at", "source", "verdict", "rows", "kept", "quarantined", "labels"]
    frame = store.frame(model, "receipts", columns=columns)
    newest = frame.sort_values("ingested_at", kind="stable").tail(most)
    return [{str(key): value for key, value in row.items()} for row in newest.to_dict("records")][::-1]


def report_of(workspace: Workspace, entry: Mapping[str, Any]) -> str | None:
    """The name of a decision's Evidently report, where it was made."""
    moment = datetime.fromisoformat(entry["as_of"])
    name = f"{moment:%Y%m%dT%H%M%S}-{entry['decision_id'][:8]}.html"
    return name if (_folder(workspace, entry["model"]) / name).is_file() else None


def examples_of(workspace: Workspace, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Examples of the texts and images that moved at a decision, as the check has kept them; none where it did not."""
    moment = datetime.fromisoformat(entry["as_of"])
    name = f"{moment:%Y%m%dT%H%M%S}-{entry['decision_id'][:8]}.examples.json"
    path = _folder(workspace, entry["model"]) / name
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return found


def example_picture(workspace: Workspace, entry: Mapping[str, Any], number: int, when: str, place: int) -> bytes:
    """The small JPEG of one example.

    Raises:
        NotFoundError: There is none.
    """
    found = examples_of(workspace, entry)
    values = found[number][when] if number < len(found) and when in ("before", "now") else []
    made = base64.b64decode(values[place]["picture"]) if place < len(values) else b""
    if not made:
        raise NotFoundError("there is no such picture", "Go back to the decision's page")
    return made


def validation_report(workspace: Workspace, model: str, batch_id: str, at: datetime) -> str | None:
    """The name of a delivery's validation report, where it was made."""
    name = f"validation-{at:%Y%m%dT%H%M%S}-{batch_id[:8]}.html"
    return name if (_folder(workspace, model) / name).is_file() else None


def report_file(workspace: Workspace, model: str, name: str) -> Path:
    """A report of a model's.

    Raises:
        NotFoundError: There is none of that name.
    """
    path = _folder(workspace, model) / name
    if not _REPORT.fullmatch(name) or not path.is_file():
        raise NotFoundError(f"{model} has no report {name[:80]!r}", "Go back to the model's page")
    return path


def comparison(workspace: Workspace, model: str, left: int, right: int) -> dict[str, Any] | None:
    """What `perennial compare` has kept of two versions; None where they were not compared yet."""
    path = _folder(workspace, model) / f"compare-{left}-{right}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def backtest(workspace: Workspace, model: str) -> dict[str, Any] | None:
    """The newest backtest's figures; None where none was made."""
    path = _folder(workspace, model) / "backtest.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found | {"made_at": datetime.fromtimestamp(path.stat().st_mtime).astimezone()}


def _folder(workspace: Workspace, model: str) -> Path:
    """Where a model's reports are; unlike the workspace's own, this makes no folder: a page changes nothing."""
    return workspace.home / "reports" / model
