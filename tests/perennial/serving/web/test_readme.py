"""Tests of the README's curl examples: pasted as they stand, but for the port, against the demo's model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from serving_world import ROOT, answering, register_pipeline

from perennial.settings import Settings
from perennial.workspace import Workspace
from tasks.learning.fitting import fit
from tasks.rows.normal_form import normalise
from tasks.rows.source import read_source

pytestmark = pytest.mark.process


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_examples_work_as_pasted(tmp_path: Path, mlflow_database: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(mlflow_database, home / "mlflow.db")
    workspace = Workspace(Settings(home=home, models=str(ROOT / "deployments")))
    definition = workspace.definition("flights")
    start, end = datetime(2013, 2, 1, tzinfo=UTC), datetime(2013, 2, 4, tzinfo=UTC)
    frame = normalise(read_source(definition, start, end), definition).rename(columns={"_time": definition.data.time})
    frame = frame[frame[definition.data.target].notna()].reset_index(drop=True)
    pipeline = fit(definition, frame, {"max_iter": 5}, 0).pipeline
    register_pipeline(workspace, definition, pipeline, frame, "readme")
    examples = re.findall(r"^curl .*?(?=^curl |^```)", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    with answering(workspace) as client:
        answers = []
        for example in examples:
            command = example.replace("localhost:8000", f"127.0.0.1:{client.port}")
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
            answers.append(json.loads(done.stdout))

    scored, labelled, model, health = answers
    assert scored["ids"] == ["MQ4401-2026-01-31"]
    assert 0 < scored["predictions"][0]["probability"] < 1
    assert (labelled["accepted"], labelled["unknown"]) == (1, [])
    assert (model["version"], model["traffic"]["requests_by_status"]["200"]) == (1, 2)
    assert health["status"] == "ok"
