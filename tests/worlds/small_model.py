"""A small real model for tests: is this handwritten digit even? scikit-learn's own 1,797 images, two hours apart.

The images come in the order in which they were collected, from one group of writers after the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sklearn.datasets import load_digits

from perennial.definition import ModelDefinition
from perennial.state.registry import Reign, Version
from perennial.workspace import Workspace
from tasks.learning.fitting import FittedModel
from tasks.learning.search import TuningResult
from tasks.steps import retrain as retraining
from tasks.steps.describe import describe, with_twin
from tasks.steps.ingest import Receipt, ingest_batch
from tasks.steps.register import TrainingRecord, register_training
from tasks.steps.retrain import Judged, Prepared
from tasks.validation.suites import Suite, find_suite, load_suite

START = datetime(2024, 1, 1, tzinfo=UTC)
NUMERIC = [f"ink_{row}{column}" for row in range(4) for column in range(4)]


def day(number: float) -> datetime:
    """The moment so many times six days after the first image: 72 images each, and blocks enough for the gate."""
    return START + timedelta(days=6 * number)


@cache
def _rows() -> pd.DataFrame:
    digits = load_digits()
    blocks = digits.images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    frame = pd.DataFrame(blocks, columns=NUMERIC)
    frame["shade"] = pd.cut(blocks.mean(axis=1), [0, 4.5, 5.2, 17], labels=["light", "middle", "dark"]).astype("str")
    frame["row"] = [f"r{number:04}" for number in range(len(frame))]
    frame["when"] = pd.date_range(START, periods=len(frame), freq="2h").as_unit("us")
    frame["even"] = (digits.target % 2 == 0).astype(np.int64)
    return frame


def rows(first: float = 0, last: float = 100) -> pd.DataFrame:
    """The images of the days [first, last)."""
    frame = _rows()
    return frame[(frame["when"] >= day(first)) & (frame["when"] < day(last))].reset_index(drop=True).copy()


RAW: dict[str, Any] = {
    "name": "digits",
    "task": "classification",
    "data": {
        "source": {"parquet": "rows.parquet"}, "id": "row", "time": "when", "target": "even", "label_delay": "6d",
    },
    "features": {"numeric": NUMERIC, "categorical": ["shade"]},
    "training": {"estimator": "linear", "minimum_rows": 100, "tuning": {"trials": 2, "metric": "log_loss"}},
    "gate": {
        "metric": "brier", "limits": {"roc_auc": {"min": 0.6}}, "minimum_rows": 50, "slices": ["shade"],
        "slice_minimum_rows": 30,
    },
    "monitoring": {"window": "18d", "minimum_rows": 50, "report_rows": 300},
}  # fmt: skip
SUITE: dict[str, Any] = {
    "name": "digits",
    "expectations": [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "row"}, "severity": "critical"},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "ink_11"}, "severity": "critical"},
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}, "severity": "critical"},
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "ink_11", "min_value": 0, "max_value": 16, "mostly": 0.9},
            "severity": "critical",
        },
    ],
}


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The base with nested changes."""
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = merge(merged[key], value) if isinstance(value, dict) and key in merged else value
    return merged


def define(workspace: Workspace, **changes: Any) -> ModelDefinition:
    """Write the model's definition and suite into the workspace and read it back."""
    raw = merge(RAW, changes)
    name = raw["name"]
    models, expectations = workspace.settings.model_folders[0], workspace.settings.expectation_folders[0]
    (models / f"{name}.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    (expectations / f"{name}.json").write_text(json.dumps(SUITE | {"name": name}), encoding="utf-8")
    return workspace.definition(name)


def suite(workspace: Workspace, name: str = "digits") -> Suite:
    return load_suite(find_suite(name, workspace.settings.expectation_folders))


def add(
    workspace: Workspace, definition: ModelDefinition, frame: pd.DataFrame, *, as_of: datetime, history: bool = False
) -> Receipt:
    """Ingest a batch."""
    checks = suite(workspace, definition.name)
    return ingest_batch(
        workspace.store, definition, frame, checks, source="test", as_of=as_of, history=history
    )[0]  # fmt: skip


def write_source(workspace: Workspace, frame: pd.DataFrame) -> Path:
    """Put rows where the definition's source looks for them."""
    path: Path = workspace.settings.model_folders[0] / "rows.parquet"
    frame.to_parquet(path)
    return path


@dataclass(frozen=True)
class Trained:
    """What the steps of one retraining gave."""

    prepared: Prepared
    tuning: TuningResult
    judged: Judged
    final: FittedModel
    record: TrainingRecord
    version: Version
    reign: Reign | None


def retrain(
    workspace: Workspace, definition: ModelDefinition, *, as_of: datetime, decision_id: str | None = None,
    pictures: bool = False,
) -> Trained:  # fmt: skip
    """The steps that the retrain flow takes, without Prefect; `pictures` are what only people look at."""
    prepared = retraining.prepare(workspace, definition, as_of=as_of)
    tuning = retraining.search(workspace, prepared)
    challenger = retraining.train(prepared, tuning)
    judged = retraining.judge_challenger(workspace, prepared, challenger)
    record = describe(prepared, tuning, challenger, judged, seconds={"train": 1.0}, decision_id=decision_id)
    if not pictures:  # a third of a training's time
        record = replace(record, figures={}, tables={}, curves={})
    stays = judged.report.verdict in ("promote", "wait")
    final = retraining.refit(prepared, tuning) if stays else challenger
    record = with_twin(record, final) if stays else record
    version = register_training(workspace.registry, record)
    reign = retraining.promote(workspace, prepared, version, judged.report, by="test", decision_id=decision_id)
    retraining.record_outcome(workspace, prepared, judged, by="test", decision_id=decision_id, version=version.number)
    return Trained(prepared, tuning, judged, final, record, version, reign)


@dataclass(frozen=True)
class World:
    """A workspace with a trained model in it."""

    workspace: Workspace
    definition: ModelDefinition
    training: Trained
