"""The figures of a check that people look at over time, kept as a few small rows, so that no page reads predictions.

Of the newest mature window: the mean loss of what was answered, of what the first champion would have answered, of
each slice and of the control group, each with its 95 % interval. Rows that a decision rests on are not made here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import PerennialError
from perennial.model.scores import score_array, score_column
from perennial.state.registry import Version
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace
from tasks.check.decision import Decision
from tasks.measures.metrics import iterate_slices
from tasks.measures.quality import additive_loss, mean_loss, row_losses
from tasks.rows.frames import window_rows
from tasks.rows.reviewed import judging_labels
from tasks.steps.score import load_version, predictions_between, score_rows

FIRST_ROWS = 20_000
LEAST_ROWS = 30
_log = logging.getLogger(__name__)


def record_figures(workspace: Workspace, definition: ModelDefinition, decision: Decision) -> int:
    """Write the figures of the decision's newest mature window, once; how many rows that are."""
    if workspace.store.committed(definition.name, "figures", _key(decision)) is not None:
        return 0
    rows = list(figures_of(workspace, definition, decision.decision_id, as_of=decision.as_of))
    if rows:
        workspace.store.append(definition.name, "figures", pd.DataFrame(rows), key=_key(decision))
    return len(rows)


def figures_of(
    workspace: Workspace, definition: ModelDefinition, decision_id: str, *, as_of: datetime
) -> Iterator[dict[str, Any]]:
    """The rows of the table `figures` for a check at a moment, from what was known then."""
    end = as_of - definition.data.label_delay
    start = end - definition.monitoring.window
    judged = _judged(workspace, definition, start, end, as_of)
    loss = additive_loss(definition.loss, definition.task)
    common = {"decision_id": decision_id, "as_of": pd.Timestamp(as_of), "start": pd.Timestamp(start),
              "end": pd.Timestamp(end), "loss": loss}  # fmt: skip
    version = int(judged["version"].mode().iloc[0]) if len(judged) else 0
    for kind, part, rows in _parts(workspace, definition, judged, start, end, as_of):
        if row := _row(rows, "score", loss):
            yield common | {"kind": kind, "part": part, "version": version} | row
    first = _first(workspace, definition, as_of)
    if first is not None and len(judged):
        answered = _answers(workspace, definition, first, judged, start, end, as_of)
        if answered is not None and (row := _row(answered, "first", loss)):
            yield common | {"kind": "first", "part": "", "version": first.number} | row


def _judged(
    workspace: Workspace, definition: ModelDefinition, start: datetime, end: datetime, as_of: datetime
) -> pd.DataFrame:
    """The window's predictions that have their truth by now, in order of time."""
    made = predictions_between(workspace.store, definition.name, start=start, end=end, known_at=as_of)
    if not len(made):
        return made.assign(truth=pd.Series(dtype="float64"))
    truths = judging_labels(workspace.store, definition.name, as_of=as_of, ids=made["id"])[["id", "truth"]]
    joined = made.merge(truths, on="id", how="inner")
    joined = joined[joined["score"].notna()]
    return joined.sort_values(["time", "id"], kind="stable", ignore_index=True)


def _parts(
    workspace: Workspace, definition: ModelDefinition, judged: pd.DataFrame, start: datetime, end: datetime,
    as_of: datetime,
) -> Iterator[tuple[str, str, pd.DataFrame]]:  # fmt: skip
    """All rows, those of the control group, and each slice that has enough of them."""
    yield "live", "", judged
    if "group" in judged and (judged["group"] == "control").any():
        yield "control", "", judged[judged["group"] == "control"]
    if not definition.gate.slices or not len(judged):
        return
    columns = list(definition.gate.slices)
    values = window_rows(workspace.store, definition, start=start, end=end, known_at=as_of, columns=columns)
    values = judged[["id"]].merge(
        values.drop_duplicates(ROW_ID)[[ROW_ID, *columns]], left_on="id", right_on=ROW_ID, how="left"
    )
    for column, value, mask in iterate_slices({name: values[name].to_numpy() for name in columns}):
        if int(mask.sum()) >= definition.gate.slice_minimum_rows:
            yield "slice", f"{column} = {value}", judged[mask]


def _first(workspace: Workspace, definition: ModelDefinition, as_of: datetime) -> Version | None:
    """The model's first champion, which was never retrained; None where there was none yet."""
    lines = [line for line in workspace.registry.history(definition.name) if line.at <= as_of]
    return workspace.registry.version(definition.name, lines[0].version) if lines else None


def _answers(
    workspace: Workspace, definition: ModelDefinition, first: Version, judged: pd.DataFrame, start: datetime,
    end: datetime, as_of: datetime,
) -> pd.DataFrame | None:  # fmt: skip
    """The rows with what the first champion says to them; None where it can't be loaded any more, which is logged.

    Of more than FIRST_ROWS as many, evenly over the window.
    """
    if (judged["version"] == first.number).all():
        return judged.assign(first=judged["score"])
    sample = judged
    if len(judged) > FIRST_ROWS:
        sample = judged.iloc[np.linspace(0, len(judged) - 1, FIRST_ROWS).astype(np.int64)]
    rows = window_rows(workspace.store, definition, start=start, end=end, known_at=as_of, ids=sample["id"])
    rows = rows.drop_duplicates(ROW_ID).reset_index(drop=True)
    if not len(rows):
        return None
    try:
        pipeline = load_version(workspace.registry, first, definition)
    except PerennialError as error:
        _log.warning("no figure of the first champion of %s: %s", definition.name, error)
        return None
    scores = score_column(score_rows(pipeline, definition, rows)[0], pd.Index(rows[ROW_ID]))
    return sample.assign(first=sample["id"].map(scores)).dropna(subset="first")


def _row(rows: pd.DataFrame, column: str, loss: str) -> dict[str, Any] | None:
    """The mean loss with its interval; None of too few rows."""
    if len(rows) < LEAST_ROWS:
        return None
    found = mean_loss(row_losses(rows["truth"].to_numpy(float), score_array(rows[column]), loss))
    low, high = found.interval()
    return {"rows": found.rows, "value": found.mean, "low": low, "high": high}


def _key(decision: Decision) -> str:
    return f"figures:{decision.decision_id}"
