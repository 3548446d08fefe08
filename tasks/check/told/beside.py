"""All that a check tells beside its verdict, gathered. Pure but for the champion's answers, which it is handed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import Monitoring
from perennial.model.scores import score_array
from tasks.check.inputs import CheckInputs, join_labels
from tasks.check.reference import is_prediction, prediction_values
from tasks.check.told.effects import what_moved
from tasks.check.told.slices import look_at_slices
from tasks.check.told.weak import look_for_segments
from tasks.check.window import WindowFacts
from tasks.measures import statistics
from tasks.measures.statistics import ColumnStatistics


def tell_beside(
    inputs: CheckInputs, policy: Monitoring, evidence: Mapping[str, Any], as_of: datetime
) -> dict[str, Any]:
    """What goes into the evidence beside what the verdict rests on; nothing where nobody asked.

    Args:
        evidence: Of the check, with `drift`: each column's movement in times of its limit.
    """
    aside = inputs.aside
    if aside is None:
        return {}
    told: dict[str, Any] = {}
    if moved := what_moved(inputs.reference, aside, evidence.get("drift", {})):
        told["effects"] = moved
    if aside.slices or aside.search:
        joined = join_labels(inputs, policy, as_of)
        if aside.slices:
            told["slices"] = look_at_slices(inputs, aside, policy, joined, int(evidence["rows"]), as_of)
        if aside.search:
            told["segments"] = look_for_segments(inputs.reference, aside, aside.search, joined)
    return told


def window_statistics(inputs: CheckInputs) -> dict[str, ColumnStatistics]:
    """Of each column of the window, and of the champion's answers in it; empty where nobody asked."""
    window = inputs.window
    if inputs.aside is None or not isinstance(window, WindowFacts):
        return {}
    found = {name: facts.statistics for name, facts in window.columns.items() if facts.statistics is not None}
    if found and any(is_prediction(column.name) for column in inputs.reference.profile.columns):
        found |= _answers(inputs)
    return found


def _answers(inputs: CheckInputs) -> dict[str, ColumnStatistics]:
    mine = inputs.predictions[inputs.predictions["version"].astype(str).isin(inputs.versions)]
    made = {}
    for name, values in prediction_values(score_array(mine["score"]), inputs.reference.classes).items():
        column = inputs.reference.column(name)
        if column is None:
            continue
        codes = column.codes(pd.Series(values, name=name))
        outside = int(((codes == 0) | (codes == column.bins - 1)).sum()) if column.bins > 1 else 0
        finite = values[np.isfinite(values)]
        missing = int(np.isnan(values).sum())
        made[name] = statistics.of_numbers(finite, rows=len(values), missing=missing, unseen=outside)
    return made
