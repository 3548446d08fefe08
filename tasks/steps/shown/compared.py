"""Two versions side by side on the same rows: the newest ones whose truth is known. It promotes and refuses nobody.

What the gate said of a version is of the rows of its time: two versions' figures in a registry are of different rows,
and say nothing of each other. Here both answer the same rows, now.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, DataError
from perennial.model.scores import is_many, of_truth
from perennial.state.registry import Version
from perennial.state.store import Store
from perennial.state.tables import ROW_ID, ROW_TIME
from perennial.workspace import Workspace
from tasks.measures.metrics import CURVE_POINTS, curves, iterate_slices, metric_table
from tasks.measures.quality import additive_loss, mean_loss, row_losses
from tasks.rows.experiment import STANDS_FOR, untreated
from tasks.rows.frames import window_rows
from tasks.rows.reviewed import judging_labels
from tasks.steps.score import load_version, score_rows

MOST_ROWS = 20_000
DISAGREEMENTS = 20
_MOST_WINDOWS = 64


@dataclass(frozen=True)
class Side:
    """One version's part.

    Attributes:
        learned: So many of the rows lie within its training, which flatters it.
        calibration: Share that came true at a probability of 0, 0.01, …, 1, None where undefined; of two classes only.
    """

    version: int
    learned: int
    metrics: dict[str, float | None]
    calibration: list[float | None]


@dataclass(frozen=True)
class SliceBeside:
    """A slice's mean loss under both versions."""

    part: str
    rows: int
    left: float
    right: float


@dataclass(frozen=True)
class Disagreement:
    """A row on which the two answer very differently.

    Attributes:
        left, right: Their answers; of many classes the probability that each gave to what came true.
        truth: Its number, or its class's code.
    """

    id: str
    time: str
    left: float
    right: float
    truth: float
    features: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same rows.

    Attributes:
        start, end: The rows' time, `end` excluded.
        loss: The loss per row that is compared.
        difference, low, high: The right one's mean loss less the left one's, with its 95 % interval.
    """

    model: str
    as_of: str
    start: str
    end: str
    rows: int
    loss: str
    left: Side
    right: Side
    difference: float
    low: float | None
    high: float | None
    slices: list[SliceBeside]
    disagreements: list[Disagreement]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def compare_versions(
    workspace: Workspace, definition: ModelDefinition, left: int, right: int, *, as_of: datetime
) -> Comparison:
    """Score the newest rows whose truth is due and known with both versions.

    Of more than MOST_ROWS the newest are taken; there are at least `monitoring.minimum_rows`.

    Raises:
        ConflictError: It is one version twice, or one that answers of another class.
        NotFoundError: There is no such version.
        DataError: Too few rows have their truth.
    """
    if left == right:
        raise ConflictError(f"version {left} can't be compared with itself", "Name two versions")
    registry, task = workspace.registry, definition.task
    versions = [registry.version(definition.name, number) for number in (left, right)]
    pipelines = [load_version(registry, version, definition) for version in versions]
    rows = newest_judged(workspace.store, definition, as_of=as_of)
    truth = rows["truth"].to_numpy(dtype=np.float64)
    scores = [score_rows(pipeline, definition, rows.drop(columns="truth"))[0] for pipeline in pipelines]
    loss = additive_loss(definition.loss, task)
    losses = [row_losses(truth, score, loss) for score in scores]
    difference = mean_loss(losses[1] - losses[0])
    low, high = difference.interval()
    sides = [_side(definition, version, rows, truth, score) for version, score in zip(versions, scores, strict=True)]
    return Comparison(
        model=definition.name,
        as_of=as_of.isoformat(),
        start=rows[ROW_TIME].min().isoformat(),
        end=(rows[ROW_TIME].max() + pd.Timedelta(microseconds=1)).isoformat(),
        rows=len(rows),
        loss=loss,
        left=sides[0],
        right=sides[1],
        difference=difference.mean,
        low=_known(low),
        high=_known(high),
        slices=_slices(definition, rows, losses),
        disagreements=_disagreements(definition, rows, truth, scores),
    )


def newest_judged(store: Store, definition: ModelDefinition, *, as_of: datetime) -> pd.DataFrame:
    """`_id`, `_time`, features and `truth` of the newest rows whose truth is due and known, in order of time.

    Not of those that were acted on.

    Raises:
        DataError: There are too few.
    """
    model, least = definition.name, definition.monitoring.minimum_rows
    newest = store.read(model, "receipts", columns=["time_until"])["time_until"]
    latest = pc.max(newest).as_py() if len(newest) else None
    end = as_of - definition.data.label_delay
    if latest is not None:
        end = min(end, latest + timedelta(microseconds=1))
    length = definition.monitoring.window
    joined = pd.DataFrame()
    for _ in range(_MOST_WINDOWS.bit_length()):
        rows = window_rows(store, definition, start=end - length, end=end, known_at=as_of)
        truths = judging_labels(store, model, as_of=as_of, ids=rows[ROW_ID]) if len(rows) else pd.DataFrame()
        if len(rows) and len(truths):
            named = truths[["id", "truth"]].rename(columns={"id": ROW_ID})
            joined = rows.drop_duplicates(ROW_ID).merge(named, on=ROW_ID, how="inner")
            joined = untreated(store, definition, joined, ids=ROW_ID, times=ROW_TIME, as_of=as_of)
            joined = joined.drop(columns=STANDS_FOR, errors="ignore")
        if len(joined) >= max(least, 1):
            ordered = joined.sort_values([ROW_TIME, ROW_ID], kind="stable", ignore_index=True)
            return ordered.tail(MOST_ROWS).reset_index(drop=True)
        length *= 2
    raise DataError(
        f"{len(joined)} rows of {model} have their truth; {least} are needed to compare versions",
        f"Add truth: `perennial label {model} FILE`",
    )


def write_comparison(workspace: Workspace, found: Comparison) -> Path:
    """Keep a comparison, where the page looks for it."""
    name = f"compare-{found.left.version}-{found.right.version}.json"
    path = workspace.reports_folder(found.model) / name
    staged = path.with_suffix(".part")
    staged.write_text(json.dumps(found.to_dict(), allow_nan=False), encoding="utf-8")
    staged.replace(path)
    return path


def _side(
    definition: ModelDefinition, version: Version, rows: pd.DataFrame, truth: np.ndarray, score: np.ndarray
) -> Side:
    until = pd.Timestamp(version.tag("trained_until"))
    calibration: list[float | None] = []
    if definition.task == "classification" and not is_many(score):
        calibration = [_known(value) for value in curves(truth, score).calibration]
        assert len(calibration) == CURVE_POINTS
    metrics = {name: _known(value) for name, value in metric_table(definition.task, truth, score).items()}
    return Side(version.number, int((rows[ROW_TIME] <= until).sum()), metrics, calibration)


def _slices(definition: ModelDefinition, rows: pd.DataFrame, losses: list[np.ndarray]) -> list[SliceBeside]:
    columns = {name: rows[name].to_numpy() for name in definition.gate.slices}
    found = [
        SliceBeside(
            f"{column} = {value}", int(mask.sum()), float(losses[0][mask].mean()), float(losses[1][mask].mean())
        )
        for column, value, mask in iterate_slices(columns)
        if int(mask.sum()) >= definition.gate.slice_minimum_rows
    ]
    return sorted(found, key=lambda item: -abs(item.right - item.left) * item.rows)


def _disagreements(
    definition: ModelDefinition, rows: pd.DataFrame, truth: np.ndarray, scores: list[np.ndarray]
) -> list[Disagreement]:
    apart = np.abs(scores[0] - scores[1])
    if is_many(scores[0]):
        apart, scores = apart.max(axis=1), [of_truth(score, truth) for score in scores]
    found = []
    for place in np.argsort(-apart, kind="stable")[:DISAGREEMENTS]:
        if not apart[place] > 0:
            break
        row = rows.iloc[int(place)]
        features = {name: _shown(row[name]) for name in definition.features.columns}
        left, right = (float(score[place]) for score in scores)
        moment = row[ROW_TIME].isoformat()
        found.append(Disagreement(str(row[ROW_ID]), moment, left, right, float(truth[place]), features))
    return found


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, float | np.floating):
        return _known(float(value))
    return value.item() if isinstance(value, np.generic) else str(value)[:200]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
