"""Which rows were acted on, from the serving log; read only of a model that has a control group. Nothing is written."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.state.store import Store, between
from tasks.measures.propensity import Experiment, experiment_of

STANDS_FOR = "_stands_for"


def has_experiment(definition: ModelDefinition) -> bool:
    """Whether the log is asked at all: the definition has a control group, or learns from one that it had."""
    return definition.serving.control_group > 0 or definition.training.intervention != "ignore"


def read_experiment(
    store: Store, definition: ModelDefinition, *, as_of: datetime, start: datetime | None = None
) -> Experiment | None:
    """Of the rows from `start` on, as the log knew them at a moment; None where no row of either group is known.

    Without a control group in the definition, nothing is read.
    """
    if not has_experiment(definition):
        return None
    schema = store.read(definition.name, "predictions", columns=["group"], where=pc.scalar(False)).schema.names
    if "group" not in schema:  # nothing was ever answered over the API
        return None
    where = between("time", start, as_of) & (pc.field("predicted_at") <= as_of) & pc.field("group").is_valid()
    columns = ["id", "time", "group", "propensity"]
    log = store.frame(definition.name, "predictions", columns=columns, where=where)
    return experiment_of(log, whole_log=definition.serving.log_share >= 1) if len(log) else None


def untreated(
    store: Store, definition: ModelDefinition, rows: pd.DataFrame, *, ids: str, times: str, as_of: datetime
) -> pd.DataFrame:
    """The rows on which nobody acted, with `STANDS_FOR`, their weight; as they are where there is no experiment.

    Args:
        ids, times: The names of these columns.
    """
    start: Any = rows[times].min().to_pydatetime() if len(rows) else None
    found = read_experiment(store, definition, as_of=as_of, start=start) if len(rows) else None
    if found is None:
        return rows
    weights = found.weights(rows[ids], rows[times])
    return rows.assign(**{STANDS_FOR: weights})[weights > 0].reset_index(drop=True)
