"""Tests of a regression's intervals in both protocols, the log and the documents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from serving_world import LocalClient, copy_home, definition_of, promote_version, records, register, rows_of

from perennial.model.answers.intervals import Intervals
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens
from perennial.serving.web.app import Api
from perennial.serving.web.openapi import openapi
from perennial.workspace import Workspace

FEATURES = ("a", "b", "empty", "colour", "code")
MADE = Intervals(0.9, (10.0,), (-1.0, -2.0), (3.0, 4.0), 400)


def serve(world: Path, folder: Path, *, coverage: float, intervals: Intervals | None) -> tuple[Workspace, LocalClient]:
    workspace = copy_home(world, folder)
    raw = definition_of("numbers", "regression", serving={"interval": coverage})
    (folder / "models" / "numbers.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    if intervals is not None:
        number = register(workspace, "numbers", "with intervals", seed=1, promote=False)
        workspace.registry.client.set_model_version_tag("numbers", str(number), "perennial.interval", intervals.tag())
        promote_version(workspace, "numbers", number)
    service = Service(workspace, ServingSettings(ship_seconds=0.2))
    return workspace, LocalClient(Api(service, Tokens("")))


def test_both_protocols_answer_the_ends(world: Path, tmp_path: Path) -> None:
    workspace, client = serve(world, tmp_path / "home", coverage=0.9, intervals=MADE)
    frame = rows_of(12, 4, "regression")
    rows = records(frame, *FEATURES)
    with client:
        answer = client.post("/models/numbers/invocations", json={"instances": rows, "ids": list(frame["row"])}).json()
        inputs = [
            {"name": name, "datatype": "FP64" if name in ("a", "b", "empty") else "BYTES", "shape": [len(rows)],
             "data": [row[name] for row in rows]}
            for name in FEATURES
        ]  # fmt: skip
        v2 = client.post("/v2/models/numbers/infer", json={"inputs": inputs}).json()
        told = client.get("/models/numbers").json()
        document = client.get("/openapi.json").json()
        metadata = client.get("/v2/models/numbers").json()
        champions = {name: served.champion for name, served in client.service.host.served.items()}
        deadline, log = time.monotonic() + 30, workspace.store.frame("numbers", "predictions")
        # The two requests may come to the table one after the other.
        while "lower" not in log or not set(frame["row"]) <= set(log["id"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
            log = workspace.store.frame("numbers", "predictions")
    found = np.array(answer["predictions"])
    lower, upper = MADE.bounds(found)
    assert len(set(lower - found)) > 1  # both levels occur
    np.testing.assert_allclose(answer["lower"], lower)
    np.testing.assert_allclose(answer["upper"], upper)
    assert "warnings" not in answer
    outputs = {item["name"]: item["data"] for item in v2["outputs"]}
    np.testing.assert_allclose(outputs["lower"], lower)
    np.testing.assert_allclose(outputs["upper"], upper)
    assert {"lower", "upper"} <= {item["name"] for item in metadata["outputs"]}
    assert told["interval"] == {"coverage": 0.9, "rows": 400, "answered": True}
    (schema,) = _answers_of(document, "/models/numbers/invocations")
    jsonschema.validate(answer, schema)
    assert "lower" in schema["properties"]
    assert "lower" not in str(_answers_of(openapi(champions, False), "/models/colours/invocations"))
    logged = log.set_index("id").loc[list(frame["row"])]
    np.testing.assert_allclose(logged["lower"], lower)
    np.testing.assert_allclose(logged["upper"], upper)


@pytest.mark.parametrize("intervals", [None, MADE])
def test_a_version_without_them_says_so_and_answers(world: Path, tmp_path: Path, intervals: Intervals | None) -> None:
    """It has none, or those of another coverage."""
    _, client = serve(world, tmp_path / "home", coverage=0.8, intervals=intervals)
    with client:
        rows = records(rows_of(2, 4, "regression"), *FEATURES)
        answer = client.post("/models/numbers/invocations", json={"instances": rows}).json()
        told = client.get("/models/numbers").json()
    assert len(answer["predictions"]) == 2
    assert "lower" not in answer
    (warning,) = answer["warnings"]
    assert warning["problem"] == "no interval"
    assert "intervals of 0.8" in warning["told"]
    assert told["interval"]["answered"] is False


def _answers_of(document: dict[str, Any], path: str) -> list[dict[str, Any]]:
    content = document["paths"][path]["post"]["responses"]["200"]["content"]
    return [item["schema"] for item in content.values()]
