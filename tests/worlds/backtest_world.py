"""A small stream with a known shift, and its tables, for tests of the backtest: sales by demand, price and shop.

On the day of the shift demand loses most of its influence and the level rises, so that a model trained before it is
wrong afterwards: a new map mends a part of that, a training the rest.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import yaml

from perennial.definition import ModelDefinition
from perennial.workspace import Workspace
from tasks.steps.ingest import ingest_batch
from tasks.validation.suites import Suite, find_suite, load_suite

START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS_A_DAY = 24
RAW: dict[str, Any] = {
    "name": "shop",
    "task": "regression",
    "data": {
        "source": {"parquet": "rows.parquet"}, "id": "row", "time": "when", "target": "sales", "label_delay": "2d",
    },
    "features": {"numeric": ["price", "demand", "noise"], "categorical": ["shop"]},
    "training": {
        "estimator": "linear", "window": "42d", "minimum_rows": 100, "tuning": {"trials": 0, "metric": "rmse"},
    },
    "gate": {"minimum_rows": 50, "limits": {"rmse": {"max": 50}}, "holdout_window": "7d"},
    "monitoring": {"window": "7d", "minimum_rows": 50, "report_rows": 300, "growth": 1.5},
}  # fmt: skip
SUITE = {
    "name": "shop",
    "expectations": [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "row"}, "severity": "critical"},
    ],
}


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def rows(days: int, *, shift: int | None, seed: int = 0) -> pd.DataFrame:
    """So many days of rows, one an hour."""
    generator = np.random.default_rng(seed)
    count = days * ROWS_A_DAY
    when = pd.Series(pd.date_range(START, periods=count, freq="1h").as_unit("us"))
    shifted = np.zeros(count, bool) if shift is None else (when >= pd.Timestamp(day(shift))).to_numpy()
    price, noise = generator.uniform(1, 5, count), generator.normal(size=count)
    demand = generator.normal(size=count)
    slope = np.where(shifted, 0.2, 1.5)
    sales = 10 - 1.5 * price + slope * demand + 0.7 * shifted + generator.normal(size=count)
    return pd.DataFrame(
        {
            "row": [f"r{number:05}" for number in range(count)],
            "when": when,
            "price": price,
            "demand": demand,
            "noise": noise,
            "shop": pd.Series(generator.choice(["north", "south"], count), dtype="str"),
            "sales": sales,
        }
    )


def define(workspace: Workspace, text: str | None = None, **sections: dict[str, Any]) -> ModelDefinition:
    """Write the definition, or this text of it, and its suite into the workspace, and read it back."""
    raw = dict(RAW)
    for name, changes in sections.items():
        raw[name] = raw.get(name, {}) | changes
    models, expectations = workspace.settings.model_folders[0], workspace.settings.expectation_folders[0]
    (models / "shop.yaml").write_text(text or yaml.safe_dump(raw), encoding="utf-8")
    (expectations / "shop.json").write_text(json.dumps(SUITE), encoding="utf-8")
    return workspace.definition("shop")


def suite(workspace: Workspace) -> Suite:
    return load_suite(find_suite("shop", workspace.settings.expectation_folders))


def ingest_past(workspace: Workspace, definition: ModelDefinition, frame: pd.DataFrame, *, as_of: datetime) -> None:
    """Import history: rows and labels count as known when they happened."""
    ingest_batch(
        workspace.store, definition, frame, suite(workspace), source="past", as_of=as_of, history=True
    )  # fmt: skip
