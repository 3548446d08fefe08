"""A registry behind MLflow's own HTTP, which keeps the artifacts: a version registered, fetched and served."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_world import definition_of, free_port, make_workspace, register

from perennial.operate.asking import healthy
from perennial.serving.versions.host import Host
from perennial.workspace import Workspace

# MLflow's application on a small server: `mlflow server` takes half a minute of processor time to be ready.
SERVER = """
import sys
from mlflow.server import app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


@pytest.fixture
def address(tmp_path: Path, mlflow_database: Path) -> Iterator[str]:
    port = free_port()
    shutil.copy(mlflow_database, tmp_path / "server.db")
    environment = {
        **os.environ, "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{tmp_path}/server.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/", "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(tmp_path / "artifacts"),
    }  # fmt: skip
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not healthy(f"{url}/health"):
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < until, "MLflow's application did not answer"
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
def test_a_version_goes_to_a_remote_registry_and_comes_back_on_another_machine(address: str, tmp_path: Path) -> None:
    here = make_workspace(tmp_path / "laptop", definition_of())
    remote = {"tracking_uri": address, "tables": str(tmp_path / "tables")}
    laptop = Workspace(here.settings.model_copy(update=remote))
    assert laptop.settings.experiments_root is None
    register(laptop, "colours", "one")
    manifest = json.loads((laptop.home / "live" / "colours.json").read_text(encoding="utf-8"))
    assert manifest["model_uri"].startswith("mlflow-artifacts:/")
    assert not (laptop.home / "artifacts").exists(), "the server keeps the artifacts"
    assert laptop.registry.find("colours", "one") == laptop.registry.champion("colours")

    elsewhere = Workspace(laptop.settings.model_copy(update={"home": tmp_path / "elsewhere"}))
    host = Host(elsewhere)
    try:
        host.start()
        assert host.problems() == []
        assert host.served["colours"].champion.version == 1
        assert host.served["colours"].champion.golden_difference < 1e-9
    finally:
        host.stop()
