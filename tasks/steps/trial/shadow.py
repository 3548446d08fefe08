"""What two versions say to rows that neither has learned from, with their truth. It judges nothing.

A version that does not answer is scored in the shadow: from the ingested rows, when a check asks, each row once. The
scores go to the table where the API's own shadow writes (MODEL/shadow), never to what was answered.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.model.scores import known_scores, own_scores, score_array, score_column
from perennial.serving.log.shipper import SHADOW
from perennial.state.registry import Version
from perennial.state.store import between
from perennial.state.tables import ROW_ID, ROW_TIME
from perennial.workspace import Workspace
from tasks.calibration.maps import base_version, same_model
from tasks.check.complaints.complaint import read_complaints
from tasks.check.complaints.masks import is_refused
from tasks.rows.experiment import STANDS_FOR, untreated
from tasks.rows.frames import window_rows
from tasks.rows.reviewed import judging_labels
from tasks.steps.score import load_version, log_predictions, score_rows

_INSTANT = timedelta(microseconds=1)


def rows_of_both(
    workspace: Workspace, definition: ModelDefinition, newcomer: Version, former: Version, *, as_of: datetime,
    until: datetime | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Mature rows since both versions' training, with what the models themselves say, before any map.

    Of a row that one of them has answered live, that answer counts. Rows that a complaint stands against are left out,
    and those that were acted on.

    Args:
        until: Only rows before it; all that are mature by default.

    Returns:
        time, truth, score (the newcomer's) and shadow (the former's), in order of time; with a control group `weight`.
    """
    learned = max(datetime.fromisoformat(version.tag("trained_until")) for version in (newcomer, former))
    start, end = learned + _INSTANT, as_of - definition.data.label_delay
    end = end if until is None else min(end, until)
    nothing = pd.DataFrame({"time": pd.to_datetime([], utc=True), "truth": [], "score": [], "shadow": []})
    if end <= start:
        return nothing
    rows = window_rows(workspace.store, definition, start=start, end=end, known_at=as_of).drop_duplicates(ROW_ID)
    truth = judging_labels(workspace.store, definition.name, as_of=as_of, ids=rows[ROW_ID])[["id", "truth"]]
    rows = rows.merge(truth, left_on=ROW_ID, right_on="id", how="inner")
    newest = workspace.ledger(definition.name).newest(as_of=as_of)
    rows = rows[~is_refused(rows[ROW_TIME], read_complaints([newest] if newest else []))].reset_index(drop=True)
    rows = untreated(workspace.store, definition, rows, ids=ROW_ID, times=ROW_TIME, as_of=as_of)
    if not len(rows):
        return nothing
    kept = [name for name in (ROW_TIME, "truth", STANDS_FOR) if name in rows.columns]
    found = rows[kept].rename(columns={ROW_TIME: "time", STANDS_FOR: "weight"})
    rows = rows.drop(columns=STANDS_FOR, errors="ignore")
    for name, version in (("score", newcomer), ("shadow", former)):
        found[name] = score_column(_own_scores(workspace, definition, version, rows, start, as_of), found.index)
    return found.sort_values("time", kind="stable", ignore_index=True)


def _own_scores(
    workspace: Workspace, definition: ModelDefinition, version: Version, rows: pd.DataFrame, start: datetime,
    as_of: datetime,
) -> np.ndarray:  # fmt: skip
    """The version's own score of each row: as it was logged, or made and logged now."""
    known = _logged(workspace, definition.name, version, start, as_of)
    scores = score_array(rows[ROW_ID].map(known)).copy()
    absent = ~known_scores(scores)
    if absent.any():
        unscored = rows[absent].drop(columns=["id", "truth"]).reset_index(drop=True)
        score, raw = score_rows(load_version(workspace.registry, version, definition), definition, unscored)
        log_predictions(
            workspace.store, f"{definition.name}/{SHADOW}", unscored, score, raw=raw,
            version=int(base_version(version)), as_of=as_of, origin="check",
        )  # fmt: skip
        if absent.all():
            return raw
        scores[absent] = raw
    return scores


def _logged(workspace: Workspace, model: str, version: Version, start: datetime, as_of: datetime) -> pd.Series[Any]:
    """Raw scores by id, of the version and those that differ from it by the map only; the first of each id counts."""
    numbers = [version.number, *(int(number) for number in same_model(workspace.registry, version))]
    where = between("time", start, as_of) & (pc.field("predicted_at") <= as_of) & pc.field("version").isin(numbers)
    tables = [workspace.store.frame(name, "predictions", where=where) for name in (model, f"{model}/{SHADOW}")]
    logged = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    logged = logged.sort_values("predicted_at", kind="stable").drop_duplicates("id")
    return own_scores(logged).set_axis(logged["id"].astype("str"))
