"""The Evidently report of a check: HTML for people, JSON for machines. It decides nothing and may fail alone."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.model.scores import is_many, score_array
from perennial.workspace import Workspace
from tasks.check.decision import Decision
from tasks.measures.dates import Dates, date_columns, describe_dates
from tasks.steps.monitor import check_rows, reference_sample
from tasks.steps.shown.examples import file_name, read_examples, render_html

_log = logging.getLogger(__name__)
_SCORE = "prediction"


def write_report(workspace: Workspace, definition: ModelDefinition, decision: Decision) -> str | None:
    """Write HTML and JSON for the window beside the champion's training rows, both sampled.

    Returns:
        The HTML file's path; None where the report could not be made: the decision stands without it.
    """
    name = f"{decision.as_of:%Y%m%dT%H%M%S}-{decision.decision_id[:8]}"
    target = workspace.reports_folder(definition.name) / f"{name}.html"
    if target.exists():
        return str(target)
    rows = definition.monitoring.report_rows
    try:
        version = workspace.registry.version(definition.name, int(decision.champion_version))
        reference = reference_sample(workspace.registry, version).rename(columns={"_score": _SCORE})
        current = check_rows(workspace, definition, as_of=decision.as_of, limit=rows).rename(columns={"score": _SCORE})
        classes = json.loads(version.tag("classes") or "[]")
        reference, current = (_by_class(frame, classes) for frame in (reference, current))
        render(reference, current, definition, target)
        _add_examples(target, decision)
    except Exception as error:  # noqa: BLE001 - whatever a report library throws, the decision is made
        _log.warning("no report for decision %s: %s: %s", decision.decision_id, type(error).__name__, error)
        return None
    return str(target)


def _add_examples(target: Path, decision: Decision) -> None:
    """Put examples of what moved, where the check has kept any, before all else that the page shows."""
    kept = target.parent / file_name(decision.to_dict())
    if kept.exists():
        page = target.read_text(encoding="utf-8")
        told = render_html(read_examples(kept))
        staged = target.with_suffix(".part")
        staged.write_text(re.sub(r"<body[^>]*>", lambda match: match[0] + told, page, count=1), encoding="utf-8")
        staged.replace(target)


def _by_class(frame: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Of many classes a column for the probability of each, in place of the one with all of them."""
    if len(classes) <= 2:
        return frame
    scores = score_array(frame[_SCORE])
    if not is_many(scores):
        return frame.drop(columns=_SCORE)
    return frame.drop(columns=_SCORE).assign(
        **{f"{_SCORE} of {name}": scores[:, code] for code, name in enumerate(classes)}
    )


def render(reference: pd.DataFrame, current: pd.DataFrame, definition: ModelDefinition, target: Path) -> None:
    """Drift of every column and of the prediction, with distributions, as TARGET.html and TARGET.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its import, about names that numpy has moved
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import DatasetMissingValueCount, RowCount, ValueDrift

    features = definition.features
    dates = Dates(features.datetime, definition.data.time, features.timezone)
    reference, current = describe_dates(reference, dates), describe_dates(current, dates)
    parts = [date_columns(name) for name in features.datetime]
    numeric = [*features.numeric, *(days for _, _, days in parts)]
    numeric += [str(name) for name in current if str(name).startswith(_SCORE)]
    categorical = [*features.categorical, *features.boolean, *(part for found in parts for part in found[:2])]
    columns = [name for name in [*numeric, *categorical] if _usable(reference, current, name)]
    shape = DataDefinition(
        numerical_columns=[name for name in numeric if name in columns],
        categorical_columns=[name for name in categorical if name in columns],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = Report([RowCount(), DatasetMissingValueCount(), *(ValueDrift(column=name) for name in columns)])
        result = report.run(
            Dataset.from_pandas(current[columns], data_definition=shape),
            Dataset.from_pandas(reference[columns], data_definition=shape),
        )
        staged = target.with_suffix(".part")
        result.save_html(str(staged))
    target.with_suffix(".json").write_text(result.json(), encoding="utf-8")
    staged.replace(target)


def _usable(reference: pd.DataFrame, current: pd.DataFrame, name: str) -> bool:
    """One column without values aborts a whole report."""
    return all(name in frame and frame[name].notna().any() for frame in (reference, current)) and not (
        pd.api.types.is_numeric_dtype(current[name]) and np.isinf(current[name]).any()
    )
