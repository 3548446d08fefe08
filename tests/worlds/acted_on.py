"""A world whose truth is known, where acting on a prediction prevents what it predicts, served over the real API.

A machine fails with a chance that its heat and load give. Those whose predicted risk is high are serviced, unless the
control group has them, and a serviced machine seldom fails. What would have come without acting is in `would`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import yaml
from serving_world import LocalClient, records
from small_model import retrain, suite

from perennial.definition import ModelDefinition
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens
from perennial.serving.web.app import Api
from perennial.workspace import Workspace
from tasks.steps.ingest import ingest_batch

FEATURES = ("heat", "load")
SHARE, PREVENTED, ACTS_FROM = 0.3, 0.95, 0.3
HISTORY_DAYS, SERVED_DAYS = 60, 14
PER_DAY = 120


def definition_of(**changes: Any) -> dict[str, Any]:
    return {
        "name": "machines",
        "task": "classification",
        "data": {"source": {"parquet": "none.parquet"}, "id": "machine", "time": "at", "target": "failed"},
        "features": {"numeric": list(FEATURES)},
        "training": {
            "estimator": "linear", "minimum_rows": 100, "tuning": {"trials": 0}, **changes.pop("training", {}),
        },
        "gate": {"minimum_rows": 100, **changes.pop("gate", {})},
        "monitoring": {"window": f"{SERVED_DAYS}d", "minimum_rows": 100, "persistence": "1 of 1"},
        "serving": {"control_group": SHARE},
        **changes,
    }  # fmt: skip


def define(workspace: Workspace, **changes: Any) -> ModelDefinition:
    models, expectations = workspace.settings.model_folders[0], workspace.settings.expectation_folders[0]
    (models / "machines.yaml").write_text(yaml.safe_dump(definition_of(**changes)), encoding="utf-8")
    rule = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "heat"}, "severity": "critical"}
    (expectations / "machines.json").write_text(json.dumps({"name": "machines", "expectations": [rule]}))
    return workspace.definition("machines")


def machines(start: datetime, days: int, seed: int, **shift: float) -> pd.DataFrame:
    """Machines with what becomes of them where nobody acts, `would`."""
    rng = np.random.default_rng(seed)
    count = days * PER_DAY
    heat, load = rng.normal(shift.get("heat", 0.0), 1, count), rng.normal(0, 1, count)
    chance = 1 / (1 + np.exp(-(1.6 * heat + 0.8 * load - 0.8)))
    return pd.DataFrame(
        {
            "machine": [f"m{seed}-{number}" for number in range(count)],
            "at": pd.Series(pd.date_range(start, periods=count, freq=timedelta(days=1) / PER_DAY)).dt.as_unit("us"),
            "heat": heat,
            "load": load,
            "would": (rng.random(count) < chance).astype(np.int64),
        }
    )


@dataclass(frozen=True)
class Served:
    """What was served, and what became of it.

    Attributes:
        rows: The machines with `score`, `control`, `would`, and `failed`: what happened, acting included.
    """

    workspace: Workspace
    definition: ModelDefinition
    rows: pd.DataFrame
    now: datetime


def train(workspace: Workspace, definition: ModelDefinition, now: datetime) -> None:
    """A champion that has learned from a time when nobody acted."""
    start = now - timedelta(days=HISTORY_DAYS + SERVED_DAYS + 1)
    history = machines(start, HISTORY_DAYS, seed=1).rename(columns={"would": "failed"})
    at = start + timedelta(days=HISTORY_DAYS)
    ingest_batch(
        workspace.store, definition, history, suite(workspace, "machines"), source="test", as_of=at, history=True
    )
    assert retrain(workspace, definition, as_of=at).reign is not None


def serve(workspace: Workspace, definition: ModelDefinition, rows: pd.DataFrame) -> pd.DataFrame:
    """Ask the API, act as it says, tell it what happened; and ingest the rows. Their log is in the tables then."""
    service = Service(workspace, ServingSettings(ship_seconds=30))
    path = "/models/machines"
    with LocalClient(Api(service, Tokens(""))) as client:
        asked = rows.assign(at=rows["at"].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
        given = records(asked, "machine", "at", *FEATURES)
        answer = client.post(f"{path}/invocations", json={"instances": given}).json()
        service.spool.seal()
        service.shipper.ship()
        score, control = np.array(answer["predictions"]), np.array(answer["control"])
        acted = ~control & (score > ACTS_FROM)
        prevented = np.random.default_rng(3).random(len(rows)) < PREVENTED
        failed = np.where(acted & prevented, 0, rows["would"])
        labels = [{"id": name, "truth": int(truth)} for name, truth in zip(rows["machine"], failed, strict=True)]
        for first in range(0, len(labels), 1000):
            told = client.post(f"{path}/labels", json={"labels": labels[first : first + 1000]})
            assert told.status_code == 200, told.text
        service.labels.ship()
    frame = rows[["machine", "at", *FEATURES]]
    ingest_batch(
        workspace.store, definition, frame, suite(workspace, "machines"), source="served", as_of=datetime.now(UTC)
    )
    return rows.assign(score=score, control=control, failed=failed)


def served_world(workspace: Workspace, **changes: Any) -> Served:
    """A champion, two weeks of traffic with a control group, and all labels."""
    definition = define(workspace, **changes)
    now = datetime.now(UTC)
    train(workspace, definition, now)
    rows = serve(workspace, definition, machines(now - timedelta(days=SERVED_DAYS), SERVED_DAYS, seed=2))
    return Served(workspace, definition, rows, datetime.now(UTC))
